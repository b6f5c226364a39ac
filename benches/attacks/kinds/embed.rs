//! Six large calls for vectors at a time, beside one short text of another tenant.

use std::time::{Duration, Instant};

use anyhow::Result;
use code_explainer_client::proto::EmbedRequest;
use tokio::time::sleep;

use crate::neighbour::ms;
use crate::stage::Stage;

const CALLS: usize = 6;
/// Six of these fit into the queue of 1,024 texts.
const TEXTS: usize = 170;
/// Texts of this length that the model is run over at once, at most: what another one's text waits for. A CPU has one for
/// each core.
const MOST_TEXTS: usize = 16;

pub(crate) async fn run(stage: Stage) -> Result<()> {
    let mut service = stage.service().await?;
    let mut batches = Vec::new();
    let texts = std::thread::available_parallelism()?.get().min(MOST_TEXTS);
    for batch in 0..4 {
        let began = Instant::now();
        let texts = long_texts(&format!("batch {batch}"), texts);
        service.embed(stage.call(EmbedRequest { texts })?).await?;
        batches.push(ms(began.elapsed()));
    }
    // The first has the model come into memory.
    let step = batches[1..].iter().sum::<f64>() / (batches.len() - 1) as f64;
    stage.step(step);
    stage.ready().await;
    let calls = (0..CALLS).map(|call| {
        let (stage, mut service) = (&stage, service.clone());
        async move {
            for round in 0.. {
                let texts = long_texts(&format!("call {call} round {round}"), TEXTS);
                match service.embed(stage.call(EmbedRequest { texts })?).await {
                    Ok(_) => stage.got("vectors of a call"),
                    Err(status) => {
                        stage.got(code_explainer_client::code_name(status.code()));
                        // Refused at once, it is not asked again at once.
                        sleep(Duration::from_millis(200)).await;
                    }
                }
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(calls).await.map(drop)
}

/// Texts of more tokens than the model looks at, each unlike all others from its first word on.
fn long_texts(name: &str, texts: usize) -> Vec<String> {
    let text = |n| {
        format!(
            "{name} text {n} {}",
            "lorem ipsum dolor sit amet ".repeat(80)
        )
    };
    (0..texts).map(text).collect()
}
