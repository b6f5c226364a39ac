use proptest::prelude::*;

use super::*;

fn text(tokens: usize) -> Vec<u32> {
    vec![1; tokens]
}

/// What waits, with receivers that stay.
struct Room {
    waiting: Waiting,
    now: Instant,
    told: HashMap<u64, oneshot::Receiver<Vectors>>,
}

fn limits(texts: usize) -> BatchLimits {
    BatchLimits {
        texts,
        tokens: BATCH_TOKENS,
    }
}

impl Room {
    fn new(limit: usize) -> Self {
        Self {
            waiting: Waiting::new(limit),
            now: Instant::now(),
            told: HashMap::new(),
        }
    }

    fn ask(&mut self, lane: Lane, tenant: &str, lengths: &[usize]) -> Result<u64, Full> {
        let (id, told) = self.waiting.enter(lane, &tenant.into(), lengths.len())?;
        self.told.insert(id, told);
        let texts = lengths.iter().map(|&length| text(length)).collect();
        self.waiting.fill(id, texts, self.now);
        Ok(id)
    }

    /// The lengths of the next batch; it is computed.
    fn batch(&mut self, most: usize) -> Vec<usize> {
        let batch = self.waiting.take(limits(most), self.now);
        batch
            .iter()
            .for_each(|piece| self.waiting.done(piece, vec![1.0]));
        batch.iter().map(|piece| piece.tokens.len()).collect()
    }

    fn told(&mut self, id: u64) -> Option<Vectors> {
        self.told.get_mut(&id)?.try_recv().ok()
    }
}

#[test]
fn lanes_go_in_their_order_and_batches_are_of_one_lane() {
    let mut room = Room::new(100);
    for (lane, tokens) in [(Lane::Background, 3), (Lane::Request, 2), (Lane::Query, 1)] {
        room.ask(lane, "a", &[tokens]).expect("room");
    }
    for expected in 1..=3 {
        assert_eq!(room.batch(8), [expected]);
    }
    assert!(room.batch(8).is_empty());
}

#[test]
fn no_lane_waits_for_ever_for_those_above_it() {
    let mut room = Room::new(100);
    room.ask(Lane::Request, "a", &[2]).expect("room");
    room.ask(Lane::Background, "a", &[3]).expect("room");
    let mut order = Vec::new();
    for _ in 0..24 {
        room.ask(Lane::Query, "a", &[1]).expect("room");
        order.extend(room.batch(1));
    }
    let at = |length| order.iter().position(|&found| found == length);
    assert!(at(2) <= Some(PASSED[1]) && at(2).is_some(), "{order:?}");
    assert!(at(3) <= Some(PASSED[2] + 1) && at(3).is_some(), "{order:?}");
}

#[test]
fn a_batch_is_bounded_by_texts_and_by_padded_tokens() {
    let mut room = Room::new(100);
    room.ask(Lane::Request, "a", &[10, 2000, 2048, 5])
        .expect("room");
    assert_eq!(room.batch(8), [2048, 2000]);
    assert_eq!(room.batch(1), [10]);
    assert_eq!(room.batch(1), [5]);
}

#[test]
fn a_newcomer_is_in_the_next_batch() {
    let mut room = Room::new(2000);
    for _ in 0..6 {
        room.ask(Lane::Request, "many", &[256; 256]).expect("room");
    }
    // It has had a good deal already.
    room.batch(16);
    room.batch(16);
    let short = room.ask(Lane::Request, "newcomer", &[7]).expect("room");
    assert!(room.batch(16).contains(&7));
    assert_eq!(room.told(short), Some(Ok(vec![vec![1.0]])));
}

#[test]
fn a_short_text_is_not_padded_to_a_long_one_of_another_tenant() {
    let mut room = Room::new(100);
    room.ask(Lane::Request, "a", &[256, 256]).expect("room");
    assert_eq!(room.batch(1), [256]);
    room.ask(Lane::Request, "b", &[70]).expect("room");
    room.ask(Lane::Request, "c", &[40]).expect("room");
    assert_eq!(
        room.batch(8),
        [40, 70],
        "who has just come goes first, and a's text is longer"
    );
    assert_eq!(room.batch(8), [256]);
}

#[test]
fn each_lane_has_room_of_its_own() {
    let mut room = Room::new(4);
    room.ask(Lane::Request, "a", &[1; 4]).expect("room");
    for n in 0..1000 {
        room.ask(Lane::Background, "b", &[1]).expect("room");
        let asked = room.ask(Lane::Query, "a", &[1]);
        assert_eq!(asked.is_ok(), n < QUERY_TEXTS, "{n}");
    }
    room.ask(Lane::Query, "b", &[1]).expect("another's room");
}

#[test]
fn who_has_most_gives_up_its_newest_and_the_newcomer_is_let_in() {
    let mut room = Room::new(10);
    let first = room.ask(Lane::Request, "many", &[1; 5]).expect("room");
    let second = room.ask(Lane::Request, "many", &[1; 5]).expect("room");
    assert_eq!(room.ask(Lane::Request, "many", &[1]), Err(Full), "its own");
    let newcomer = room.ask(Lane::Request, "new", &[1; 3]).expect("room");
    assert_eq!(room.told(second), Some(Err(Failure::Displaced)));
    assert_eq!((room.told(first), room.told(newcomer)), (None, None));
    // 5 and 3 of 10: who would then have more than the other is refused, and nobody loses anything.
    assert_eq!(room.ask(Lane::Request, "new", &[1; 3]), Err(Full));
    assert_eq!((room.told(first), room.told(newcomer)), (None, None));
    assert_eq!(room.waiting.texts(), 8);
}

#[test]
fn a_request_that_needs_less_gives_the_rest_back() {
    let mut room = Room::new(10);
    let (id, _told) = (room.waiting.enter(Lane::Request, &"a".into(), 10)).expect("room");
    room.waiting.fill(id, vec![text(1)], room.now);
    assert_eq!(room.waiting.texts(), 1);
    room.ask(Lane::Request, "a", &[1; 9]).expect("room");
}

proptest! {
    /// Whatever comes and goes: bounds hold, books balance, nobody who asks for little is turned away by one who has
    /// much, and tenants that always wait are served alike.
    #[test]
    fn bounds_and_turns_hold(
        steps in prop::collection::vec((0..6_usize, 0..4_usize, 1..9_usize, 1..40_usize), 1..200),
    ) {
        const LIMIT: usize = 24;
        let tenants = ["a", "b", "c", "d"];
        let mut room = Room::new(LIMIT);
        let mut open: Vec<u64> = Vec::new();
        for (action, tenant, count, length) in steps {
            match action {
                0..=2 => {
                    let lane = &room.waiting.lanes[Lane::Request as usize];
                    let has = |name: &str| lane.tenants.get(name).map_or(0, |share| share.texts);
                    let own = has(tenants[tenant]);
                    let (free, before) = (LIMIT - lane.texts, lane.texts);
                    let most = tenants.iter().filter(|t| **t != tenants[tenant]).map(|t| has(t)).max();
                    match room.ask(Lane::Request, tenants[tenant], &vec![length; count]) {
                        Ok(id) => open.push(id),
                        Err(Full) => {
                            prop_assert!(count > free);
                            // Nobody has that much more.
                            prop_assert!(most <= Some(own + count + 8), "{most:?} {own} {count}");
                            prop_assert_eq!(room.waiting.lanes[Lane::Request as usize].texts, before);
                        }
                    }
                }
                3 if !open.is_empty() => {
                    let id = open.swap_remove(length % open.len());
                    room.waiting.end(id, Err(Failure::Closed));
                }
                _ => {
                    room.batch(count);
                }
            }
            let lane = &room.waiting.lanes[Lane::Request as usize];
            prop_assert!(lane.texts <= LIMIT);
            let shares = lane.tenants.values().map(|share| share.texts).sum::<usize>();
            let requests = room.waiting.requests.values().map(|request| request.texts).sum::<usize>();
            prop_assert_eq!((shares, requests), (lane.texts, lane.texts));
            for share in lane.tenants.values() {
                prop_assert!(!share.requests.is_empty());
                prop_assert!(share.ready.iter().all(|id| !room.waiting.requests[id].pieces.is_empty()));
            }
        }
        while !room.batch(8).is_empty() {}
        prop_assert_eq!(room.waiting.texts(), 0);
        prop_assert!(room.waiting.requests.is_empty());
    }

    /// Of tenants with a backlog, none gets more tokens than another and a batch.
    #[test]
    fn those_who_always_wait_are_served_alike(lengths in prop::array::uniform3(1..256_usize), most in 1..33_usize) {
        let mut room = Room::new(10_000);
        for (tenant, length) in ["a", "b", "c"].into_iter().zip(lengths) {
            for _ in 0..10 {
                room.ask(Lane::Request, tenant, &[length; 256]).expect("room");
            }
        }
        let mut served: HashMap<Tenant, usize> = HashMap::new();
        for _ in 0..20 {
            for piece in room.waiting.take(limits(most), room.now) {
                let tenant = room.waiting.requests[&piece.request].tenant.clone();
                *served.entry(tenant).or_default() += piece.tokens.len();
            }
            let given = |tenant: &str| served.get(tenant).copied().unwrap_or(0);
            let given = ["a", "b", "c"].map(given);
            let (least, most) = (given.iter().min(), given.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 256), "{given:?}");
        }
    }
}

#[test]
fn on_a_cpu_a_batch_is_no_larger_than_its_cores_need() {
    let cpu = BatchLimits::new(32, "cpu").tokens;
    assert!((CORE_TOKENS..=BATCH_TOKENS).contains(&cpu), "{cpu}");
    assert_eq!(BatchLimits::new(32, "cuda:0").tokens, BATCH_TOKENS);
    let mut room = Room::new(100);
    room.ask(Lane::Request, "a", &[256; 8]).expect("room");
    let limits = BatchLimits {
        texts: 32,
        tokens: 512,
    };
    assert_eq!(room.waiting.take(limits, room.now).len(), 2);
}
