//! What holds for the scheduler whatever comes in which order, tried with random schedules and without threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use crate::engine::Sampling;
use crate::engine::fake::FakeBackend;
use crate::scheduler::core::Core;
use crate::scheduler::policy::StepLimits;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::{End, Event, Gauges, Job, Ticket};

const VOCABULARY: usize = 97;
const CONTEXT: usize = 64;
const BLOCK_TOKENS: usize = 4;
const EOS: u32 = 13;

/// One thing that happens to the scheduler.
#[derive(Debug, Clone)]
enum Act {
    Submit {
        prompt: usize,
        max_new: usize,
        min_new: usize,
        ignore_eos: bool,
    },
    /// Drops the ticket of one of the items in flight.
    Cancel(prop::sample::Index),
    Steps(usize),
    FailStep,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let submit = (1..CONTEXT - 1, 1..30_usize, 0..5_usize, any::<bool>()).prop_map(
        |(prompt, max_new, min_new, ignore_eos)| {
            let min_new = min_new.min(max_new);
            Act::Submit {
                prompt,
                max_new,
                min_new,
                ignore_eos,
            }
        },
    );
    prop::collection::vec(
        prop_oneof![
            4 => submit,
            1 => any::<prop::sample::Index>().prop_map(Act::Cancel),
            4 => (1..6_usize).prop_map(Act::Steps),
            1 => Just(Act::FailStep),
        ],
        1..60,
    )
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
        sequences in 1..6_usize,
        extra_tokens in 0..20_usize,
        blocks in 16..40_usize,
    ) {
        let limits = StepLimits { sequences, tokens: sequences + extra_tokens };
        let (backend, control) = FakeBackend::new(VOCABULARY, CONTEXT, blocks, BLOCK_TOKENS);
        let gauges = Arc::new(Gauges::default());
        let mut core = Core::new(Box::new(backend), limits, gauges.clone());
        let mut items: HashMap<usize, Item> = HashMap::new();
        let mut failing = false;
        for (n, act) in acts.into_iter().enumerate() {
            match act {
                Act::Submit { prompt, max_new, min_new, ignore_eos } => {
                    let job = Job {
                        prompt: (0..prompt).map(|i| ((n * 31 + i * 7) % VOCABULARY) as u32).collect(),
                        sampling: Sampling::default(),
                        max_new_tokens: max_new,
                        min_new_tokens: min_new,
                        eos: [EOS].into(),
                        ignore_eos,
                    };
                    gauges.enter(usize::MAX);
                    gauges.arrived();
                    let (sequence, ticket) = Sequence::new(job.clone(), 0, Instant::now());
                    core.submit(sequence);
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
                        step(&mut core, limits)?;
                    }
                }
                Act::FailStep => {
                    control.fail_next_step();
                    failing = true;
                    step(&mut core, limits)?;
                }
            }
        }
        // Nobody starves: each step advances the oldest, so this many are enough for all.
        let bound = items.len() * (CONTEXT + 30) + 2;
        let mut steps = 0;
        while !core.is_idle() {
            step(&mut core, limits)?;
            steps += 1;
            prop_assert!(steps <= bound, "the scheduler makes no progress");
        }
        core.tick(Instant::now());
        prop_assert_eq!(gauges.blocks_used(), 0);
        prop_assert_eq!((gauges.queued(), gauges.running()), (0, 0));
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
        let limits = StepLimits { sequences: 2, tokens: 8 };
        let (backend, _) = FakeBackend::new(VOCABULARY, CONTEXT, 16, BLOCK_TOKENS);
        let gauges = Arc::new(Gauges::default());
        let mut core = Core::new(Box::new(backend), limits, gauges.clone());
        let job = Job {
            prompt: vec![1; prompt],
            sampling: Sampling::default(),
            max_new_tokens: 20,
            min_new_tokens: 0,
            eos: [].into(),
            ignore_eos: true,
        };
        let (sequence, ticket) = Sequence::new(job, 0, Instant::now());
        core.submit(sequence);
        for _ in 0..steps_before {
            core.tick(Instant::now());
        }
        drop(ticket);
        prop_assert_eq!(core.tick(Instant::now()), None, "no step works on it");
        prop_assert_eq!(gauges.blocks_used(), 0);
    }
}

fn step(core: &mut Core, limits: StepLimits) -> Result<(), TestCaseError> {
    if let Some(report) = core.tick(Instant::now()) {
        prop_assert!(report.sequences <= limits.sequences);
        let tokens = report.prefill_tokens + report.decode_tokens;
        prop_assert!(tokens >= 1 && tokens <= limits.tokens, "{} tokens", tokens);
    }
    Ok(())
}
