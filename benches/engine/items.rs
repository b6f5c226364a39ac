//! Whole items through the scheduler, without a network: all at once against one by one, with drafts and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use code_explainer_engine::{Backend, Precision, Sampling, native};
use code_explainer_host::machine::Machine;
use code_explainer_scheduler::{
    EngineRules, Event, Job, Loader, Priority, Scheduler, SchedulerOptions, StepLimits, Supervisor,
    Tenant, Ticket,
};
use code_explainer_weights::Checkpoint;
use tokio_util::sync::CancellationToken;

use crate::steps::options;

/// A scheduler over an engine of its own.
pub(crate) struct Server {
    scheduler: Scheduler,
    runtime: tokio::runtime::Runtime,
    /// Nanoseconds that the engine took for steps, and tokens that were drafted and held.
    counts: Arc<[AtomicU64; 3]>,
    runs: u64,
    /// Has the engine's thread; does nothing until the end.
    supervisor: Supervisor,
}

/// How the answers are to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answers {
    pub(crate) most: usize,
    /// Go on to `most` past the end.
    pub(crate) ignore_eos: bool,
}

/// What a run of items gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) generated: usize,
    /// Part of the time in which the engine ran a step.
    pub(crate) in_engine: f64,
    pub(crate) drafted: u64,
    pub(crate) held: u64,
    /// The answers, in order.
    pub(crate) answers: Vec<Vec<u32>>,
}

impl Server {
    pub(crate) fn start(
        checkpoint: &Arc<Checkpoint>,
        precision: Precision,
        defaults: &SchedulerOptions,
        speculation: bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let checkpoint = checkpoint.clone();
        let load = move || {
            let backend = native::load(&*checkpoint, &options(precision, 32 * 800))?;
            Ok(Box::new(backend) as Box<dyn Backend>)
        };
        let counts: Arc<[AtomicU64; 3]> = Arc::default();
        let count = counts.clone();
        let rules = EngineRules {
            step: StepLimits {
                sequences: 32,
                tokens: 512,
            },
            target_itl: None,
            speculation: speculation.into(),
            prefix_cache: true,
        };
        let (scheduler, starting) = Scheduler::start(
            vec![Box::new(load) as Loader],
            &SchedulerOptions {
                engine: rules,
                ..defaults.clone()
            },
            Arc::new(move |report| {
                let duration = report.duration.as_nanos() as u64;
                count[0].fetch_add(duration, Ordering::Relaxed);
                count[1].fetch_add(report.draft_tokens as u64, Ordering::Relaxed);
                count[2].fetch_add(report.accepted_tokens as u64, Ordering::Relaxed);
            }),
            Machine::Threads,
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (_, supervisor) = runtime.block_on(starting.ready(Arc::new(|_| {})))?;
        Ok(Self {
            scheduler,
            runtime,
            counts,
            runs: 0,
            supervisor,
        })
    }

    /// Runs the prompts, `together` at a time. Those of a run share the beginnings of their prompts with each other, and
    /// with no other run.
    pub(crate) fn run(
        &mut self,
        prompts: &[Vec<u32>],
        together: usize,
        answers: Answers,
        eos: &[u32],
    ) -> Result<Run, Box<dyn std::error::Error>> {
        self.runs += 1;
        let tenant: Tenant = "bench".into();
        let salt: Arc<[u8]> = self.runs.to_le_bytes().into();
        let before = self.counted();
        let mut run = Run::default();
        let began = Instant::now();
        let mut waiting = prompts.iter();
        let mut running = std::collections::VecDeque::new();
        loop {
            while running.len() < together
                && let Some(prompt) = waiting.next()
            {
                let job = Job {
                    prompt: prompt.clone(),
                    sampling: Sampling::default(),
                    max_new_tokens: answers.most,
                    min_new_tokens: 0,
                    eos: eos.into(),
                    ignore_eos: answers.ignore_eos,
                    salt: salt.clone(),
                    priority: Priority::default(),
                };
                let place = self.scheduler.enter(&tenant)?;
                running.push_back(self.scheduler.submit(place, job)?);
            }
            let Some(ticket) = running.pop_front() else {
                break;
            };
            // Its events wait in its channel, so the oldest can be read to its end first.
            run.answers.push(self.runtime.block_on(answer(ticket))?);
        }
        run.seconds = began.elapsed().as_secs_f64();
        run.generated = run.answers.iter().map(Vec::len).sum();
        let after = self.counted();
        let engine = Duration::from_nanos(after[0] - before[0]).as_secs_f64();
        run.in_engine = engine / run.seconds;
        run.drafted = after[1] - before[1];
        run.held = after[2] - before[2];
        Ok(run)
    }

    fn counted(&self) -> [u64; 3] {
        std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed))
    }

    /// Ends the engine's thread, and frees its memory.
    pub(crate) fn stop(self) -> Result<(), Box<dyn std::error::Error>> {
        self.scheduler.stop();
        let ended = CancellationToken::new();
        ended.cancel();
        let threads = self.runtime.block_on(self.supervisor.run(ended))?;
        for thread in threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        Ok(())
    }
}

async fn answer(mut ticket: Ticket) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let mut tokens = Vec::new();
    while let Some(event) = ticket.next().await {
        match event {
            Event::Token { token, .. } => tokens.push(token),
            Event::Failed(failure) => return Err(format!("an item failed: {failure:?}").into()),
            Event::Ended(_) => return Ok(tokens),
            _ => {}
        }
    }
    Err("the engine ended".into())
}
