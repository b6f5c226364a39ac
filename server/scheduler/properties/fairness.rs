//! What holds between tenants and between priorities: measured in steps and in tokens, never in the machine's time.

use super::*;
use crate::policy::BRIEF;

/// A tenant of the test: it sends one item after another, `ahead` of them at once.
struct Sender {
    tenant: Tenant,
    ahead: usize,
    sizes: Vec<(usize, usize)>,
    sent: usize,
    waiting: Vec<Ticket>,
    served: usize,
}

impl Sender {
    fn new(name: &str, ahead: usize, sizes: Vec<(usize, usize)>) -> Self {
        Self {
            tenant: name.into(),
            ahead,
            sizes,
            sent: 0,
            waiting: Vec::new(),
            served: 0,
        }
    }

    /// Sends what is missing to its number, and takes what came.
    fn go_on(&mut self, bench: &Bench) {
        self.waiting.retain_mut(|ticket| {
            let mut ended = false;
            while let Ok(event) = ticket.events.try_recv() {
                match event {
                    Event::Token { .. } => self.served += 1,
                    Event::Ended(_) => ended = true,
                    _ => {}
                }
            }
            !ended
        });
        while self.waiting.len() < self.ahead {
            let (prompt, answer) = self.sizes[self.sent % self.sizes.len()];
            self.sent += 1;
            let job = job(self.sent % 3, self.tenant.as_bytes()[0], prompt, answer);
            self.waiting.push(bench.submit_for(&self.tenant, job));
        }
    }
}

/// Steps and rows until the first token of an item that is sent now; the step that ran when it came counts.
fn time_to_first_token(bench: &mut Bench, flood: Option<&mut Sender>) -> (usize, usize) {
    let mut flood = flood;
    let mut rows = 0;
    if let Some(flood) = &mut flood {
        flood.go_on(bench);
        rows += bench.tick().map_or(0, |r| r.rows());
    }
    let mut ticket = bench.submit_for(&"one at a time".into(), job(1, b'o', 40, 8));
    let (mut steps, mut first) = (0, None);
    loop {
        if let Some(flood) = &mut flood {
            flood.go_on(bench);
        }
        steps += 1;
        rows += bench.tick().expect("it is worked on").rows();
        while let Ok(event) = ticket.events.try_recv() {
            match event {
                Event::Token { .. } if first.is_none() => first = Some((steps, rows)),
                Event::Ended(_) => return first.expect("a token comes before the end"),
                _ => {}
            }
        }
        assert!(steps < 200, "it is never answered");
    }
}

#[test]
fn a_flood_of_one_tenant_does_not_delay_another() {
    let mut bench = Bench::new(plain(16, 64), 160);
    let idle = time_to_first_token(&mut bench, None);
    assert_eq!(idle, (1, 40));
    let mut flood = Sender::new("flood", 1000, vec![(40, 20), (13, 20), (60, 4), (25, 9)]);
    for _ in 0..100 {
        flood.go_on(&bench);
        bench.tick();
    }
    let mut times: Vec<_> = (0..100)
        .map(|_| time_to_first_token(&mut bench, Some(&mut flood)))
        .collect();
    times.sort_unstable();
    let (steps, rows) = (times[94].0, times.iter().map(|t| t.1).max().expect("some"));
    assert!(steps <= 2 * idle.0, "p95 is {steps} steps: {times:?}");
    // A step's time is at most proportional to its rows, the one that ran when the item came included.
    assert!(rows <= 2 * idle.1 + 16, "at most {rows} rows: {times:?}");
    assert!(bench.paused > 0, "slots were given away");
    assert!(flood.served > 1000, "and the flood was served beside");
}

#[test]
fn one_long_prompt_at_a_time_leaves_the_steps_short_that_anothers_tokens_wait_for() {
    let mut bench = Bench::new(plain(4, 64), 160);
    let mut one = bench.submit_for(&"one".into(), job(1, b'o', 8, 60));
    let mut full_steps = 0;
    // Of other salts, so that none is found.
    for salt in 0..4 {
        let mut long = bench.submit_for(&"long".into(), job(0, salt, 200, 1));
        let mut ended = false;
        while !ended {
            let report = bench.tick().expect("it is worked on");
            full_steps += usize::from(report.prefill_tokens > 64 / BRIEF);
            while let Ok(event) = long.events.try_recv() {
                ended |= matches!(event, Event::Ended(_));
            }
        }
    }
    // Before it has had any, nobody knows that it will have more.
    assert_eq!(full_steps, 1);
    while let Ok(event) = one.events.try_recv() {
        assert!(!matches!(event, Event::Ended(_)), "it is there to the end");
    }
}

#[test]
fn nobody_is_slowed_down_for_a_tenant_that_is_not_there() {
    let mut bench = Bench::new(plain(4, 64), 64);
    let mut only = Sender::new("only", 50, vec![(60, 2)]);
    only.go_on(&bench);
    assert_eq!(bench.tick().map(|r| r.prefill_tokens), Some(64));
}

#[test]
fn an_interactive_item_takes_the_slot_of_a_bulk_one_which_loses_nothing() {
    let mut bench = Bench::new(plain(2, 32), 64);
    let bulk = Job {
        priority: Priority::Bulk,
        ..job(0, 0, 20, 30)
    };
    let mut items = [bulk.clone(), bulk].map(|job| Item {
        ticket: bench.submit(job.clone()),
        job,
        tokens: Vec::new(),
        end: None,
    });
    for _ in 0..5 {
        bench.tick();
    }
    let mut urgent = bench.submit(Job {
        priority: Priority::Interactive,
        ..job(1, 0, 8, 3)
    });
    bench.tick();
    let begun = urgent.events.try_recv();
    assert!(matches!(begun, Ok(Event::Started { .. })), "{begun:?}");
    assert_eq!(bench.paused, 1);
    bench.finish(3).expect("they end");
    for item in &mut items {
        item.drain();
        assert_eq!(item.tokens, item.alone().0);
    }
}

/// With 64 in flight, half of them given up one by one: their blocks are free at the next step, every time.
#[test]
fn a_cancelled_item_of_sixty_four_frees_its_blocks_within_a_step() {
    let mut bench = Bench::new(plain(64, 128), 64 * 16);
    let mut tickets: Vec<_> = (0..64)
        .map(|i| bench.submit(job(i % 3, 0, 1 + i % 8, 54)))
        .collect();
    for _ in 0..8 {
        bench.tick();
    }
    let mut steps: Vec<usize> = Vec::new();
    while tickets.len() > 32 {
        let before = bench.gauges.running();
        drop(tickets.swap_remove(tickets.len() / 3));
        let mut after = 0;
        while bench.gauges.running() >= before && after < 100 {
            bench.tick();
            after += 1;
        }
        steps.push(after);
    }
    steps.sort_unstable();
    let p99 = steps[steps.len() * 99 / 100];
    assert_eq!(p99, 1, "steps from giving up to free blocks: {steps:?}");
    drop(tickets);
    bench.tick();
    assert_eq!(bench.gauges.blocks_used(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The bound that the ledger's documentation promises: who always has something waiting is served alike, by weight.
    #[test]
    fn tenants_that_always_wait_are_served_alike_by_weight(
        sizes in prop::collection::vec((1..40_usize, 1..24_usize), 2..8),
        weights in prop::array::uniform2(1..4_u32),
        sequences in 2..9_usize,
    ) {
        let names = ["a", "b"];
        let weights = names.iter().zip(weights).map(|(n, w)| ((*n).to_owned(), f64::from(w)));
        let weights = Weights(weights.collect());
        let mut bench = Bench::weighted(plain(sequences, sequences + 24), 160, weights.clone());
        let mut senders = names.map(|name| Sender::new(name, 30, sizes.clone()));
        let largest = sizes.iter().map(|(p, a)| p + a).max().expect("some");
        let bound = (2 * sequences * largest) as f64;
        for _ in 0..400 {
            senders.iter_mut().for_each(|sender| sender.go_on(&bench));
            bench.tick();
            let [a, b] = names.map(|name| bench.queue.served(name));
            prop_assert!((a - b).abs() <= bound, "{} and {}, bound {}", a, b, bound);
        }
        let shares = senders.map(|s| s.served as f64 / weights.of(&s.tenant));
        prop_assert!(shares[0] / shares[1] > 0.6 && shares[1] / shares[0] > 0.6, "{:?}", shares);
    }
}
