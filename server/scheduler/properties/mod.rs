//! What holds for the scheduler whatever comes in which order, tried with random schedules and without threads.

mod fairness;
mod several;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer_engine::Sampling;
use code_explainer_engine::fake::{FakeBackend, FakeControl};
use proptest::prelude::*;

use crate::core::Core;
use crate::policy::StepLimits;
use crate::queue::{Incarnation, Queue};
use crate::sequence::Sequence;
use crate::speculation::{Drafting, StepCosts};
use crate::waiting::{Priority, Tenant};
use crate::{End, EngineRules, Event, Gauges, Job, StepReport, Ticket, Weights};

const VOCABULARY: usize = 97;
const CONTEXT: usize = 64;
const BLOCK_TOKENS: usize = 4;
const EOS: u32 = 13;
const AGING: Duration = Duration::from_secs(10);
/// What a step takes, as the queue sees it.
const STEP: Duration = Duration::from_millis(10);
const PRIORITIES: [Priority; 3] = [Priority::Normal, Priority::Bulk, Priority::Interactive];
const SEAT: Incarnation = Incarnation { engine: 0, life: 0 };

/// One thing that happens to the scheduler.
#[derive(Debug, Clone)]
enum Act {
    Submit {
        /// Prompts of the same family begin alike.
        family: usize,
        salt: u8,
        prompt: usize,
        max_new: usize,
        min_new: usize,
        ignore_eos: bool,
    },
    /// Drops the ticket of one of the items in flight.
    Cancel(prop::sample::Index),
    Steps(usize),
    FailStep,
    RunOutOfMemory,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let length = (1..CONTEXT - 1, 1..30_usize, 0..5_usize);
    let submit = (0..3_usize, 0..2_u8, length, any::<bool>()).prop_map(
        |(family, salt, (prompt, max_new, min_new), ignore_eos)| Act::Submit {
            family,
            salt,
            prompt,
            max_new,
            min_new: min_new.min(max_new),
            ignore_eos,
        },
    );
    prop::collection::vec(
        prop_oneof![
            4 => submit,
            1 => any::<prop::sample::Index>().prop_map(Act::Cancel),
            4 => (1..6_usize).prop_map(Act::Steps),
            1 => Just(Act::FailStep),
            1 => Just(Act::RunOutOfMemory),
        ],
        1..60,
    )
}

fn options() -> impl Strategy<Value = EngineRules> {
    (1..6_usize, 0..20_usize, any::<[bool; 2]>()).prop_map(
        |(sequences, extra_tokens, [speculation, prefix_cache])| EngineRules {
            step: StepLimits {
                sequences,
                tokens: sequences + extra_tokens,
            },
            target_itl: None,
            speculation: speculation.into(),
            prefix_cache,
        },
    )
}

/// The scheduler without its thread.
struct Bench {
    core: Core,
    queue: Queue,
    gauges: Arc<Gauges>,
    control: Arc<FakeControl>,
    options: EngineRules,
    /// It goes on by [`STEP`] with each.
    now: Instant,
    accepted: usize,
    cached: usize,
    preempted: usize,
    paused: usize,
}

impl Bench {
    fn new(options: EngineRules, blocks: usize) -> Self {
        Self::weighted(options, blocks, Weights::default())
    }

    fn weighted(options: EngineRules, blocks: usize, weights: Weights) -> Self {
        let (backend, control) = FakeBackend::new(VOCABULARY, CONTEXT, blocks, BLOCK_TOKENS);
        let gauges = Arc::new(Gauges::new(1));
        let mut core = Core::new(Box::new(backend), options, gauges.engine(0));
        // The fake's own times would make a test depend on the machine.
        core.speculation.costs = StepCosts::free();
        Self {
            core,
            queue: Queue::new(1, AGING, weights),
            gauges,
            control,
            options,
            now: Instant::now(),
            accepted: 0,
            cached: 0,
            preempted: 0,
            paused: 0,
        }
    }

    fn submit(&self, job: Job) -> Ticket {
        self.submit_for(&"".into(), job)
    }

    fn submit_for(&self, tenant: &Tenant, job: Job) -> Ticket {
        let place = self.gauges.places.enter(tenant, usize::MAX);
        let now = self.now;
        let rank = self.queue.rank(job.priority, now);
        let (sequence, mut ticket) = Sequence::new(job, place.expect("no limit"), rank, now);
        let position = self.queue.push(sequence, usize::MAX, false, now);
        ticket.told(position.expect("it is not stopped"));
        ticket
    }

    fn tick(&mut self) -> Option<StepReport> {
        self.now += STEP;
        assert!(self.queue.schedule(SEAT, &mut self.core, self.now));
        let report = self.core.tick(self.now, Duration::ZERO);
        assert!(self.queue.settle(SEAT, &mut self.core, self.now));
        let report = report?;
        self.accepted += report.accepted_tokens;
        self.cached += report.cached_tokens;
        self.preempted += report.preempted;
        self.paused += report.paused;
        Some(report)
    }

    fn step(&mut self) -> Result<(), TestCaseError> {
        let limits = self.options.step;
        if let Some(report) = self.tick() {
            prop_assert!(report.sequences <= limits.sequences);
            let tokens = report.rows();
            prop_assert!(tokens >= 1 && tokens <= limits.tokens, "{} tokens", tokens);
            prop_assert!(report.accepted_tokens <= report.draft_tokens);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.core.is_idle() && self.gauges.queued() == 0
    }

    /// Runs until all is done.
    fn finish(&mut self, items: usize) -> Result<(), TestCaseError> {
        // Nobody starves: the oldest advances in each step. It may be computed again for each that is preempted.
        let bound = items * (CONTEXT + 30) * 4 + 100;
        let mut steps = 0;
        while !self.is_idle() {
            self.step()?;
            steps += 1;
            prop_assert!(steps <= bound, "the scheduler makes no progress");
        }
        self.tick();
        prop_assert_eq!(self.gauges.blocks_used(), 0);
        prop_assert_eq!((self.gauges.queued(), self.gauges.running()), (0, 0));
        Ok(())
    }
}

fn job(family: usize, salt: u8, prompt: usize, max_new: usize) -> Job {
    // Families differ late in the prompt, or early: both have common blocks with themselves.
    let token =
        |i: usize| ((i * 7 + if i >= family * 6 { family * 31 } else { 0 }) % VOCABULARY) as u32;
    Job {
        prompt: (0..prompt).map(token).collect(),
        sampling: Sampling::default(),
        max_new_tokens: max_new,
        min_new_tokens: 0,
        eos: [EOS].into(),
        ignore_eos: true,
        salt: [salt].into(),
        priority: Priority::Normal,
    }
}

/// An item as the test sees it.
struct Item {
    job: Job,
    ticket: Ticket,
    tokens: Vec<u32>,
    end: Option<Result<End, ()>>,
}

impl Item {
    fn drain(&mut self) {
        while let Ok(event) = self.ticket.events.try_recv() {
            assert!(self.end.is_none(), "nothing comes after the end");
            match event {
                Event::Queued(_) => unreachable!("it comes by another way"),
                Event::Started { .. } => assert!(self.tokens.is_empty(), "started comes first"),
                Event::Token { token, .. } => self.tokens.push(token),
                Event::Ended(end) => self.end = Some(Ok(end)),
                Event::Failed(_) => self.end = Some(Err(())),
            }
        }
    }

    /// The answer that the item gets when nothing else is there.
    fn alone(&self) -> (Vec<u32>, End) {
        let mut context = self.job.prompt.clone();
        loop {
            let generated = context.len() - self.job.prompt.len();
            let mut token = FakeBackend::next_token(&context, 0, VOCABULARY);
            while generated < self.job.min_new_tokens && token == EOS {
                token = (token + 1) % VOCABULARY as u32;
            }
            context.push(token);
            let end = if token == EOS && !self.job.ignore_eos {
                End::Eos
            } else if generated + 1 == self.job.max_new_tokens {
                End::Length
            } else if context.len() == CONTEXT {
                End::Context
            } else {
                continue;
            };
            return (context.split_off(self.job.prompt.len()), end);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_item_gets_its_own_answer_and_nothing_leaks(
        acts in acts(),
        options in options(),
        blocks in 16..40_usize,
    ) {
        let mut bench = Bench::new(options, blocks);
        let mut items: HashMap<usize, Item> = HashMap::new();
        let mut failing = false;
        for (n, act) in acts.into_iter().enumerate() {
            match act {
                Act::Submit { family, salt, prompt, max_new, min_new, ignore_eos } => {
                    let job = Job {
                        min_new_tokens: min_new,
                        ignore_eos,
                        priority: PRIORITIES[family],
                        ..job(family, salt, prompt, max_new)
                    };
                    let tenant = format!("{salt}").into();
                    let ticket = bench.submit_for(&tenant, job.clone());
                    items.insert(n, Item { job, ticket, tokens: Vec::new(), end: None });
                }
                Act::Cancel(index) => {
                    let mut ids: Vec<_> = items.keys().copied().collect();
                    ids.sort_unstable();
                    if !ids.is_empty() {
                        items.remove(&ids[index.index(ids.len())]);
                    }
                }
                Act::Steps(count) => {
                    for _ in 0..count {
                        bench.step()?;
                    }
                }
                Act::FailStep => {
                    bench.control.fail_next_step();
                    failing = true;
                    bench.step()?;
                }
                Act::RunOutOfMemory => {
                    bench.control.limit_rows(Some(2));
                    bench.step()?;
                    bench.step()?;
                    bench.control.limit_rows(None);
                }
            }
        }
        bench.finish(items.len())?;
        for item in items.values_mut() {
            item.drain();
            match item.end {
                Some(Ok(end)) => {
                    let tokens = std::mem::take(&mut item.tokens);
                    prop_assert_eq!((tokens, end), item.alone());
                }
                Some(Err(())) => prop_assert!(failing, "it failed without a cause"),
                None => prop_assert!(false, "an item was lost"),
            }
        }
    }

    #[test]
    fn a_cancelled_item_is_gone_at_the_next_step(
        prompt in 1..40_usize,
        steps_before in 0..10_usize,
    ) {
        let mut bench = Bench::new(plain(2, 8), 16);
        let ticket = bench.submit(job(0, 0, prompt, 20));
        for _ in 0..steps_before {
            bench.tick();
        }
        drop(ticket);
        prop_assert_eq!(bench.tick(), None, "no step works on it");
        prop_assert_eq!(bench.gauges.blocks_used(), 0);
    }
}

fn plain(sequences: usize, tokens: usize) -> EngineRules {
    EngineRules {
        step: StepLimits { sequences, tokens },
        target_itl: None,
        speculation: Drafting::Never,
        prefix_cache: false,
    }
}

#[test]
fn a_prompt_that_begins_alike_is_computed_once_for_each_salt() {
    let prefix_cache = true;
    let mut bench = Bench::new(
        EngineRules {
            prefix_cache,
            ..plain(4, 64)
        },
        64,
    );
    // All at once: those that come second wait for the first one's blocks.
    let tickets = [0, 0, 1].map(|salt| bench.submit(job(0, salt, 22, 2)));
    bench.finish(3).expect("they end");
    drop(tickets);
    assert_eq!(
        bench.cached, 20,
        "five full blocks, for the second of the first salt"
    );
    let _ticket = bench.submit(job(1, 1, 22, 2));
    bench.finish(1).expect("it ends");
    assert_eq!(
        bench.cached, 24,
        "and one of those that differ from the seventh token on"
    );
}

#[test]
fn the_youngest_gives_way_when_blocks_run_out_and_loses_nothing() {
    // Two prompts of two blocks each in a pool of seven: their answers take eight blocks together.
    let mut bench = Bench::new(plain(2, 16), 7);
    let jobs = [job(1, 0, 6, 10), job(2, 0, 6, 10)];
    let items = jobs.map(|job| Item {
        ticket: bench.submit(job.clone()),
        job,
        tokens: Vec::new(),
        end: None,
    });
    bench.finish(2).expect("they end");
    assert!(bench.preempted > 0);
    for mut item in items {
        item.drain();
        assert_eq!(
            (item.tokens.clone(), item.end),
            (item.alone().0, Some(Ok(End::Length)))
        );
    }
}

#[test]
fn drafts_that_hold_save_steps_and_change_no_answer() {
    let steps = |speculation: bool| {
        let mut bench = Bench::new(
            EngineRules {
                speculation: speculation.into(),
                ..plain(1, 16)
            },
            64,
        );
        let mut item = Item {
            job: job(0, 0, 20, 40),
            ticket: bench.submit(job(0, 0, 20, 40)),
            tokens: Vec::new(),
            end: None,
        };
        bench.finish(1).expect("it ends");
        item.drain();
        assert_eq!(item.tokens, item.alone().0);
        (bench.control.steps(), bench.accepted)
    };
    let ((without, none), (with, accepted)) = (steps(false), steps(true));
    assert_eq!(none, 0);
    assert!(accepted > 0);
    assert_eq!(with + accepted, without);
}

#[test]
fn the_budget_follows_a_latency_target() {
    let options = EngineRules {
        target_itl: Some(Duration::from_nanos(1)),
        ..plain(4, 64)
    };
    let mut bench = Bench::new(options, 64);
    let first = bench.submit(job(0, 0, 4, 20));
    for _ in 0..4 {
        bench.tick();
    }
    // No step can be as fast as that, so beside the first one's decode there is no room for anybody.
    let second = bench.submit(job(1, 0, 40, 2));
    assert_eq!(bench.tick().map(|r| r.sequences), Some(1));
    drop(first);
    bench.finish(1).expect("alone it runs as ever");
    drop(second);
}
