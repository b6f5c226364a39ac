//! A tenant that has nothing to do with the attack, and now and then sends something small.

use std::time::Duration;

use anyhow::{Context, Result};
use code_explainer_client::{Client, Error, Event, ExplainOptions, Item};
use futures::StreamExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::numbers::Times;

/// How long after the end of a phase an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is asked for before anything is measured: the engine learns what its steps cost, and keeps the beginning of prompts.
const WARM_UP: usize = 12;
/// Requests are due so many times their usual time apart, so that on an idle server they hardly ever meet.
const SPACING: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(100);

/// What it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// An explanation of a few lines: the time to its first token.
    Explanation,
    /// The vector of a few words: the time to the answer.
    Embedding,
}

/// Sends each request when it is due, whether or not those before it were answered: so do many clients that know nothing of
/// one another.
pub(crate) struct Neighbour {
    client: Client,
    asks: Asks,
    sent: u64,
    interval: Duration,
}

/// What it saw in a phase.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) times: Times,
    /// The last error, where it had any.
    pub(crate) error: Option<String>,
}

impl Neighbour {
    pub(crate) fn new(client: Client, asks: Asks) -> Self {
        Self {
            client,
            asks,
            sent: 0,
            interval: SHORTEST,
        }
    }

    /// Asks a few times, and finds out how far apart requests can be due.
    pub(crate) async fn warm_up(&mut self) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..WARM_UP {
            let began = Instant::now();
            self.ask()
                .await
                .context("the neighbour, on an idle server")?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        self.interval = (times[WARM_UP / 2] * SPACING).max(SHORTEST);
        Ok(())
    }

    /// Asks for something new at every interval. Each time counts from the moment when its request was due, so that a stall
    /// counts for everything that it holds up, and not for one request alone.
    pub(crate) async fn during(&mut self, phase: Duration) -> Seen {
        let mut asked = JoinSet::new();
        let began = Instant::now();
        let end = began + phase;
        let patience = end + PATIENCE;
        let mut due = began;
        while due < end {
            sleep_until(due).await;
            let ask = self.ask();
            asked.spawn(async move { (due, timeout_at(patience, ask).await, due.elapsed()) });
            due += self.interval;
        }
        let mut seen = Seen::default();
        while let Some(ended) = asked.join_next().await {
            match ended.expect("no panic") {
                (_, Ok(Ok(())), after) => seen.times.answered(ms(after)),
                // One that is refused has no answer, however long one waits.
                (due, Ok(Err(error)), _) => {
                    seen.times.unanswered(ms(patience - due));
                    seen.error = Some(error.to_string());
                }
                (due, Err(_), _) => seen.times.unanswered(ms(patience - due)),
            }
        }
        seen
    }

    /// Asks for something that nobody has asked for yet, and waits for the first of the answer.
    fn ask(&mut self) -> impl Future<Output = Result<(), Error>> + use<> {
        self.sent += 1;
        ask(self.client.clone(), self.asks, self.sent)
    }
}

async fn ask(client: Client, asks: Asks, n: u64) -> Result<(), Error> {
    if asks == Asks::Embedding {
        let text = format!("what is the number {n} good for");
        return client.embed(vec![text]).await.map(drop);
    }
    let code = format!("def price_{n}(amount):\n    return amount * {n} + tax(amount)\n");
    let options = ExplainOptions {
        max_new_tokens: Some(1),
        ignore_eos: true,
        ..ExplainOptions::default()
    };
    let item = Item::new(&code).with_options(options);
    let mut answer = client.explain(item).await?;
    let mut first = None;
    // To the end of the call: to leave before would be to cancel it.
    while let Some(event) = answer.next().await {
        if let Event::Delta(_) | Event::Done(_) = event? {
            first = Some(());
        }
    }
    first.ok_or(Error::Incomplete)
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
