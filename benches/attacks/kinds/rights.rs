//! Rights that one has not, or not any more.

use std::time::Duration;

use anyhow::Result;
use code_explainer_client::code_name;
use code_explainer_client::proto::admin_service_client::AdminServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{GetCacheStatsRequest, GetPerformanceReportRequest};
use tokio::time::{Instant, sleep, timeout};
use tonic::Request;

use crate::kinds::received::{ItemStream, told};
use crate::stage::{Stage, tiny};
use crate::subject::ATTACKER;

/// A few looks at a file take no longer.
const NOTICED: Duration = Duration::from_secs(5);
const FORWARDED: [(&str, &str); 4] = [
    ("x-forwarded-for", "203.0.113.9"),
    ("forwarded", "for=203.0.113.9;proto=https"),
    ("x-real-ip", "203.0.113.9"),
    ("x-envoy-external-address", "203.0.113.9"),
];

/// What a proxy on the server's machine passes on from elsewhere, to a server without keys.
pub(crate) async fn forwarded_admin(stage: Stage) -> Result<()> {
    let admin = AdminServiceClient::new(stage.channel().await?);
    stage.ready().await;
    let mut answered = 0_u32;
    for (name, value) in FORWARDED {
        let mut stats = Request::new(GetCacheStatsRequest {});
        stats.metadata_mut().insert(name, value.parse()?);
        let mut report = Request::new(GetPerformanceReportRequest {});
        report.metadata_mut().insert(name, value.parse()?);
        let stats = admin.clone().get_cache_stats(stats).await.map(drop);
        let report = admin.clone().get_performance_report(report).await.map(drop);
        for ended in [stats, report] {
            answered += u32::from(ended.is_ok());
            let code = ended.err().map_or(tonic::Code::Ok, |status| status.code());
            stage.got(format!("{name}: {}", code_name(code)));
        }
    }
    stage.check("forwarded calls of an admin answered", answered.into(), 0.0);
    Ok(())
}

/// A rate is lowered in the file while a stream is open.
pub(crate) async fn lowered_rate(stage: Stage) -> Result<()> {
    const ITEMS: usize = 30;
    let of_rate = |rate: &str| {
        stage
            .keys()
            .book("", &format!("tenant {ATTACKER} items={rate}\n"))
    };
    stage.files().write("book", &of_rate("6000/min"));
    sleep(NOTICED).await;
    let mut stream = ItemStream::open(&stage, ATTACKER).await?;
    stream.send(Wish::Explain(tiny("before", "x = 0"))).await?;
    stream.until_ended().await?;
    stage.ready().await;
    stage.files().write("book", &of_rate("1/min"));
    sleep(NOTICED).await;
    let mut answered = 0_u32;
    for n in 0..ITEMS {
        let item = tiny(&format!("item-{n}"), &format!("x = {}", n + 1));
        stream.send(Wish::Explain(item)).await?;
        let ended = stream.until_ended().await?;
        answered += u32::from(ended);
        stage.got(if ended { "items at 1/min" } else { "refusals" });
    }
    stage.check("items of a minute that may have one", answered.into(), 1.0);
    // Lowering and raising it again is no way to a full bucket.
    std::future::pending().await
}

/// The authority of a client's certificate goes out of its file while the client is connected.
pub(crate) async fn withdrawn_authority(stage: Stage) -> Result<()> {
    const WITHIN: f64 = 10.0;
    let client = stage.certified_client(&stage.authorities().of_attacker)?;
    client.model().await?;
    stage.ready().await;
    stage.files().write("ca", &stage.authorities().kept.pem());
    let began = Instant::now();
    let refused = loop {
        match timeout(Duration::from_secs(5), client.model()).await {
            Ok(Ok(_)) => stage.got("calls answered"),
            Ok(Err(error)) => {
                stage.got(format!("then {}", code_name(error.code())));
                break true;
            }
            Err(_) => stage.got(told(&anyhow::anyhow!("no answer"))),
        }
        if began.elapsed().as_secs_f64() > WITHIN {
            break false;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let what = match refused {
        true => "seconds until the certificate was refused",
        false => "seconds, and the certificate still counts",
    };
    stage.check(what, began.elapsed().as_secs_f64(), WITHIN);
    Ok(())
}
