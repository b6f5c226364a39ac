//! The same answers with and without drafts.

use std::error::Error;
use std::sync::Arc;

use code_explainer_engine::Precision;
use code_explainer_scheduler::SchedulerOptions;
use code_explainer_text::Text;
use code_explainer_weights::Checkpoint;
use serde_json::{Map, Value, json};

use crate::items::{Answers, Server};
use crate::snippets::{self, Task};
use crate::steps::median;

/// The argument that asks for nothing but this, in one precision.
pub(crate) const FLAG: &str = "--speculation";

const CONCURRENCY: [usize; 3] = [1, 8, 32];
const SNIPPETS: usize = 32;

/// What is compared, and with what.
pub(crate) struct Comparison<'a> {
    pub(crate) checkpoint: &'a Arc<Checkpoint>,
    pub(crate) text: &'a Text,
    /// Everything but speculation.
    pub(crate) scheduler: &'a SchedulerOptions,
}

struct Workload {
    name: &'static str,
    prompts: Vec<Vec<u32>>,
    answers: Answers,
}

impl Comparison<'_> {
    pub(crate) fn all(&self) -> Result<Value, Box<dyn Error>> {
        let mut all = Map::new();
        for (precision, rounds) in [(Precision::Int8, 2), (Precision::Int4, 1)] {
            all.insert(precision.to_string(), self.of(precision, rounds)?);
        }
        Ok(all.into())
    }

    fn workloads(&self) -> Result<[Workload; 3], Box<dyn Error>> {
        let explain = snippets::prompts(self.text, SNIPPETS, Task::Explain)?;
        let long = snippets::prompts(self.text, 4 * SNIPPETS, Task::Explain)?;
        let answers = |most, ignore_eos| Answers { most, ignore_eos };
        Ok([
            Workload {
                name: "A",
                prompts: snippets::cut(&long, 128)[..SNIPPETS].to_vec(),
                answers: answers(48, true),
            },
            Workload {
                name: "explain",
                prompts: explain,
                answers: answers(96, false),
            },
            Workload {
                name: "copy",
                prompts: snippets::prompts(self.text, SNIPPETS, Task::Copy)?,
                answers: answers(96, false),
            },
        ])
    }

    /// Rates and ratios by workload and concurrency, medians over rounds in which both take turns.
    pub(crate) fn of(&self, precision: Precision, rounds: usize) -> Result<Value, Box<dyn Error>> {
        println!(
            "\nspeculation, {precision}, generated tok/s        off        on     ratio   drafts held"
        );
        let start = |on| Server::start(self.checkpoint, precision, self.scheduler, on);
        let (mut off, mut on) = (start(false)?, start(true)?);
        let mut all = Map::new();
        for workload in self.workloads()? {
            let mut by_concurrency = Map::new();
            for together in CONCURRENCY {
                let row = compare(
                    &mut off,
                    &mut on,
                    &workload,
                    together,
                    rounds,
                    self.text.eos(),
                )
                .map_err(|error| format!("{precision}, {}: {error}", workload.name))?;
                let number = |name: &str| row[name].as_f64().unwrap_or_default();
                println!(
                    "{:<8} {together:>2} at a time   {:>24.0}{:>10.0}{:>10.2}{:>10.0} %",
                    workload.name,
                    number("off_tokens_per_s"),
                    number("on_tokens_per_s"),
                    number("ratio"),
                    100.0 * number("drafts_held") / number("drafts").max(1.0)
                );
                by_concurrency.insert(together.to_string(), row);
            }
            all.insert(workload.name.into(), by_concurrency.into());
        }
        off.stop()?;
        on.stop()?;
        Ok(all.into())
    }
}

fn compare(
    off: &mut Server,
    on: &mut Server,
    workload: &Workload,
    together: usize,
    rounds: usize,
    eos: &[u32],
) -> Result<Value, Box<dyn Error>> {
    // One by one takes longest, and the same time for each.
    let count = if together == 1 {
        SNIPPETS / 2
    } else {
        SNIPPETS
    };
    let (prompts, answers) = (&workload.prompts[..count], workload.answers);
    let (mut ratios, mut rates) = (Vec::new(), [Vec::new(), Vec::new()]);
    let (mut drafted, mut held) = (0, 0);
    for round in 0..rounds {
        let runs = match round % 2 {
            0 => {
                let without = off.run(prompts, together, answers, eos)?;
                [without, on.run(prompts, together, answers, eos)?]
            }
            _ => {
                let with = on.run(prompts, together, answers, eos)?;
                [off.run(prompts, together, answers, eos)?, with]
            }
        };
        let [without, with] = &runs;
        if with.answers != without.answers {
            return Err("answers differ with drafts".into());
        }
        ratios.push(without.seconds / with.seconds);
        for (rates, run) in rates.iter_mut().zip(&runs) {
            rates.push(run.generated as f64 / run.seconds);
        }
        (drafted, held) = (drafted + with.drafted, held + with.held);
    }
    let [without, with] = rates.map(median);
    Ok(json!({
        "off_tokens_per_s": without,
        "on_tokens_per_s": with,
        "ratio": median(ratios),
        "drafts": drafted,
        "drafts_held": held,
    }))
}
