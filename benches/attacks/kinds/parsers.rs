//! Snippets that parsers take long over, two at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use code_explainer_client::proto::ExplainRequest;
use tokio::time::{sleep, timeout};

use crate::stage::{Stage, tiny};
use crate::subject::ATTACKER;
use crate::wire::{self, Connection};

/// Places at the fair_semaphore of a machine with two cores.
const AT_A_TIME: usize = 2;
const PATIENCE: Duration = Duration::from_secs(1);
const BEGINNING: &str = "int main(){ let x; fn f() {} ";

/// Items with deadlines of a second, one after the other at each place.
pub(crate) async fn deadlines(stage: Stage) -> Result<()> {
    attack(stage, true).await
}

/// Items without, whose client resets them after a second.
pub(crate) async fn resets(stage: Stage) -> Result<()> {
    attack(stage, false).await
}

async fn attack(stage: Stage, deadlines: bool) -> Result<()> {
    stage.ready().await;
    // Only now: a connection without a call is closed after a while.
    let connection = Connection::to(stage.grpc(), wire::ATTACKER, None).await?;
    let number = Arc::new(AtomicUsize::new(0));
    let one_after_the_other = || async {
        loop {
            let mut item = slow(number.fetch_add(1, Ordering::Relaxed));
            if deadlines {
                item.timeout = PATIENCE.try_into().ok();
            }
            let opened = connection.open(wire::EXPLAIN, stage.token(ATTACKER)).await;
            let (response, mut body) = opened?;
            body.send_data(wire::framed(&item), true)?;
            let ended = wire::status(response);
            if deadlines {
                stage.got(ended.await);
            } else if let Ok(ended) = timeout(PATIENCE, ended).await {
                stage.got(ended);
            } else {
                body.send_reset(h2::Reason::CANCEL);
                stage.got("reset by itself");
            }
            // A server that refuses at once is not asked again at once.
            sleep(Duration::from_millis(20)).await;
        }
    };
    let places = (0..AT_A_TIME).map(|_| one_after_the_other());
    futures::future::try_join_all::<_>(places)
        .await
        .map(|_: Vec<()>| ())
}

/// One of three, and unlike all before.
fn slow(number: usize) -> ExplainRequest {
    let (what, times, language) = match number % 3 {
        0 => ("*<<", 5_400, ""),
        1 => ("yield10^;,", 1_630, ""),
        _ => ("?::<", 16_000, "typescript"),
    };
    let code = format!("{BEGINNING}{} {number}", what.repeat(times));
    ExplainRequest {
        language: language.into(),
        strategy: "ast_augmented".into(),
        ..tiny("", &code)
    }
}
