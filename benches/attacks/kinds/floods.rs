//! Frames without an end. A server has withstood these before: they are here so that it goes on to.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::stage::Stage;
use crate::subject::ATTACKER;
use crate::wire::{self, frame};

const CONNECTIONS: usize = 4;
/// What a connection sends at most, in bytes; then it is made anew.
const MOST: usize = 64 << 20;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Headers that never end.
pub(crate) async fn continuations(stage: Stage) -> Result<()> {
    let block = wire::headers(wire::EXPLAIN, stage.token(ATTACKER));
    let begin = move || frame(HEADERS, 0, 1, &block);
    let more = |_| frame(CONTINUATION, 0, 1, &[0; 16 << 10]);
    flood(stage, begin, more).await
}

/// Calls that are taken back as soon as they are made.
pub(crate) async fn resets(stage: Stage) -> Result<()> {
    let block = wire::headers(wire::EXPLAIN, stage.token(ATTACKER));
    let more = move |round: u32| {
        let calls = (0..100).map(|call| {
            // A client's streams are odd.
            let stream = 2 * (100 * round + call) + 1;
            let cancel = 8_u32.to_be_bytes();
            [
                frame(HEADERS, END_HEADERS, stream, &block),
                frame(RST_STREAM, 0, stream, &cancel),
            ]
            .concat()
        });
        calls.collect::<Vec<_>>().concat()
    };
    flood(stage, Vec::new, more).await
}

/// Pings, whose answers are read.
pub(crate) async fn pings(stage: Stage) -> Result<()> {
    let more = |round: u32| frame(PING, 0, 0, &u64::from(round).to_be_bytes()).repeat(1000);
    flood(stage, Vec::new, more).await
}

/// On each connection: a greeting, `begin`, and then `more` until the server ends it.
async fn flood(
    stage: Stage,
    begin: impl Fn() -> Vec<u8> + Clone + Send + Sync + 'static,
    more: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static,
) -> Result<()> {
    stage.ready().await;
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (stage, begin, more) = (stage.clone(), begin.clone(), more.clone());
        tasks.spawn(async move {
            loop {
                let told = match one(&stage, &begin, &more).await {
                    Ok(()) => "all was taken",
                    Err(_) => "closed by the server",
                };
                stage.got(told);
                sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn one(
    stage: &Stage,
    begin: &impl Fn() -> Vec<u8>,
    more: &impl Fn(u32) -> Vec<u8>,
) -> std::io::Result<()> {
    let connection = wire::connect(stage.grpc(), wire::ATTACKER, None).await?;
    let (mut answers, mut requests) = connection.into_split();
    let reader = tokio::spawn(async move {
        let mut read = [0; 16 << 10];
        while matches!(answers.read(&mut read).await, Ok(1..)) {}
    });
    let _reader = Aborted(reader);
    requests.write_all(PREFACE).await?;
    requests.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    requests.write_all(&begin()).await?;
    let (mut sent, mut round) = (0, 0);
    while sent < MOST {
        let bytes = more(round);
        requests.write_all(&bytes).await?;
        (sent, round) = (sent + bytes.len(), round + 1);
    }
    Ok(())
}

/// A task that ends with this.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}
