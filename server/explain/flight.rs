//! One generation, shared by all who ask for the same answer while it is under way.
//!
//! ## Joining => Flying => (Landed | Failed | Abandoned)
//! Who asks first makes the flight and everybody reads its log. A flight looks the answer up, reads it from the replica
//! that is making it, or has it generated where there is none, and puts it into the cache before it gives its key up: so
//! nobody can come between the two and generate it again. The prompt is made when an engine may need it, so that what is in
//! a cache, or was asked for by somebody else, costs none. When the last reader leaves, the flight is abandoned and the
//! engine's work on it stops before the next step. Failed and abandoned answers are never cached.

use std::sync::Arc;
use std::time::Instant;

use code_explainer_cache as cache;
use code_explainer_cache::{
    CacheKey, CachedAnswer, CachedDelta, FinishReason, Leader, Lookup, Timings, Told,
};
use code_explainer_host::cpu::Budget;
use code_explainer_scheduler::{End, Event, Failure, Job, Priority, QueuePermit};
use tokio::sync::{OnceCell, watch};

use crate::access::rates::Rates;
use crate::error::Error;
use crate::explain::hit::Snippet;
use crate::explain::log::{AnswerLog, Writer};
use crate::explain::prepare::Prepared;
use crate::explain::single_flight::Lead;
use crate::explain::{Explainer, now};
use crate::request::{CacheMode, ValidRequest};

/// Replicas that may lose an answer while a flight reads it: then it is generated here. More than can be bad luck; who
/// writes to Redis could go on for ever.
const LOST_REPLICAS: u32 = 8;

/// What a flight needs to know of the item that it was made for.
pub(super) struct Plan {
    pub(super) request: Arc<ValidRequest>,
    pub(super) snippet: Snippet,
    /// There from the beginning where the answer's name depends on it, or the client wants to see it.
    pub(super) prepared: OnceCell<Arc<Prepared>>,
    /// Keys what it leaves behind.
    pub(super) salt: Arc<[u8]>,
    /// CPU time that is left for the prompt.
    pub(super) budget: Budget,
    /// What the tenant may still ask for.
    pub(super) rates: Arc<Rates>,
}

impl Explainer {
    /// Flies until the answer is there, or nobody waits for it.
    pub(super) async fn run_flight(
        self: Arc<Self>,
        mut lead: Lead,
        plan: Plan,
        place: QueuePermit,
    ) {
        let writer = Writer(lead.writer.0.clone());
        let key = lead.key.filter(|_| self.cache.enabled());
        let priority = lead.priority.clone();
        let result = tokio::select! {
            biased;
            () = lead.abandoned() => return,
            result = self.answer(&writer, &plan, place, key, priority) => result,
        };
        if let Err(error) = result {
            // Whoever asks from here on gets a try of its own.
            drop(lead);
            writer.fail(error);
        }
    }

    async fn answer(
        &self,
        writer: &Writer,
        plan: &Plan,
        place: QueuePermit,
        key: Option<CacheKey>,
        priority: watch::Receiver<Priority>,
    ) -> Result<(), Error> {
        let Some(key) = key else {
            let prepared = self.prompt(writer, plan).await?;
            let waits = (place, priority);
            let reason = self.generate(writer, plan, prepared, waits, None).await?;
            self.keep(writer, plan, prepared, reason);
            writer.end(reason);
            return Ok(());
        };
        let leader = match plan.request.cache_mode {
            CacheMode::Only => match self.cache.lookup(&key).await {
                Lookup::Hit(level, answer) => {
                    writer.replay(now(), level, answer);
                    return Ok(());
                }
                Lookup::Miss => return Err(Error::NotCached),
            },
            CacheMode::Refresh | CacheMode::Bypass => None,
            CacheMode::Default => match self.find(writer, plan, &key).await? {
                Source::Told => return Ok(()),
                Source::Engine(leader) => leader,
            },
        };
        let prepared = self.prompt(writer, plan).await?;
        // An answer to a prompt that a clock has cut short is not the one that the key names: those who wait for it elsewhere
        // are let go, and it is not kept.
        let leader = leader.filter(|_| !prepared.cut_short);
        let (waits, leads) = ((place, priority), leader.as_ref());
        let reason = (self.generate(writer, plan, prepared, waits, leads)).await?;
        let seed = plan.request.sampling.seed;
        let cached = |log: &AnswerLog| Arc::new(to_cached(log, reason, prepared, seed));
        let answer = writer.read(|log| (!log.diverged).then(|| cached(log)));
        match (answer, leader) {
            _ if prepared.cut_short => {}
            (Some(answer), Some(leader)) => self.cache.finish(leader, key, answer),
            (Some(answer), None) => self.cache.put(key, answer),
            (None, _) => tracing::warn!(
                "an answer came out differently from what another replica told of it: it is not cached"
            ),
        }
        self.keep(writer, plan, prepared, reason);
        writer.end(reason);
        Ok(())
    }

    /// The prompt, made if it is not there; its readers are told of it.
    async fn prompt<'a>(&self, writer: &Writer, plan: &'a Plan) -> Result<&'a Prepared, Error> {
        let make = async || {
            let prepared = self.prepare(&plan.request, &plan.snippet, &plan.salt, &plan.budget);
            prepared.await.map(Arc::new)
        };
        let prepared = plan.prepared.get_or_try_init(make).await?;
        writer.about(prepared.about(false));
        Ok(prepared)
    }

    /// A whole answer can be found by what comes later; one that quotes others only repeats what they say.
    fn keep(&self, writer: &Writer, plan: &Plan, prepared: &Prepared, reason: FinishReason) {
        if reason != FinishReason::Eos
            || plan.request.cache_mode == CacheMode::Bypass
            || !prepared.sources.is_empty()
            || !self.retrieval.keeps_answers()
        {
            return;
        }
        let text = writer.read(|log| (!log.diverged).then(|| log.text().into_owned()));
        let Some(text) = text else { return };
        let language = prepared.language.as_deref().unwrap_or_default();
        self.retrieval
            .keep_answer(&plan.salt, language, &plan.request.code, &text);
    }

    /// Has the answer told from where it is, or is being made; else the engine is to make it. Who was told a part of it
    /// begins anew, and the writer leaves out what its readers know.
    async fn find(&self, writer: &Writer, plan: &Plan, key: &CacheKey) -> Result<Source, Error> {
        for _ in 0..LOST_REPLICAS {
            let mut follower = match self.cache.plan(key).await {
                cache::Plan::Replay(level, answer) => {
                    writer.replay(now(), level, answer);
                    return Ok(Source::Told);
                }
                cache::Plan::Lead(leader) => return Ok(Source::Engine(Some(leader))),
                cache::Plan::Make => return Ok(Source::Engine(None)),
                cache::Plan::Follow(follower) => follower,
            };
            // The other replica may be lost, and clients are told of the prompt before the answer.
            self.prompt(writer, plan).await?;
            writer.follows(now());
            loop {
                match follower.next().await {
                    Told::Deltas(deltas) => writer.told(now(), &deltas),
                    Told::Done(answer) => {
                        writer.told_to_the_end(&answer);
                        self.cache.keep(*key, &Arc::new(*answer));
                        return Ok(Source::Told);
                    }
                    Told::Lost => break,
                    Told::Failed => {
                        writer.begin_again();
                        return Ok(Source::Engine(None));
                    }
                }
            }
            writer.begin_again();
        }
        Ok(Source::Engine(None))
    }

    /// Has the engine generate the answer, and tells other replicas of it.
    async fn generate(
        &self,
        writer: &Writer,
        plan: &Plan,
        prepared: &Prepared,
        (place, mut priority): (QueuePermit, watch::Receiver<Priority>),
        leader: Option<&Leader>,
    ) -> Result<FinishReason, Error> {
        let request = &plan.request;
        // Only here: an answer that is there already takes nothing from anybody.
        let may_need = prepared.tokens.len() + request.max_new_tokens;
        (plan.rates.take_tokens(may_need))
            .inspect_err(|_| self.metrics.access.rate_limited("tokens"))?;
        let job = Job {
            prompt: prepared.tokens.clone(),
            sampling: request.sampling,
            max_new_tokens: request.max_new_tokens,
            min_new_tokens: request.min_new_tokens,
            eos: self.text.eos().into(),
            ignore_eos: request.ignore_eos,
            salt: plan.salt.clone(),
            priority: *priority.borrow_and_update(),
        };
        let mut ticket = self.scheduler.submit(place, job)?;
        writer.queued(ticket.accepted_at, ticket.queue_position);
        let mut detokenizer = self.text.detokenizer(&request.stops);
        let (mut generated, mut last) = (0, None);
        let mut started = ticket.accepted_at;
        loop {
            let event = tokio::select! {
                event = ticket.next() => event,
                () = raised(&mut priority) => {
                    self.scheduler.raise(&mut ticket, *priority.borrow_and_update());
                    continue;
                }
            };
            match event {
                Some(Event::Queued(position)) => writer.moved(position),
                Some(Event::Started { at, cached_tokens }) => {
                    started = at;
                    writer.started(at, cached_tokens);
                }
                Some(Event::Token { token, at, batch }) => {
                    if let Some(last) = last.replace(at) {
                        self.metrics.inter_token(at - last);
                    }
                    generated += 1;
                    let step = detokenizer.push(token, generated >= request.min_new_tokens);
                    writer.token(at, batch, &step.text);
                    if let Some(leader) = leader.filter(|_| !step.text.is_empty()) {
                        leader.tell(&cached(&step.text, at, started));
                    }
                    if step.stopped {
                        // Dropping the ticket stops the engine's work on it.
                        return Ok(FinishReason::Stop);
                    }
                }
                Some(Event::Ended(end)) => {
                    let (rest, at) = (detokenizer.finish(), now());
                    writer.rest(at, &rest);
                    if let Some(leader) = leader.filter(|_| !rest.is_empty()) {
                        leader.tell(&cached(&rest, at, started));
                    }
                    return Ok(finish_reason(end));
                }
                Some(Event::Failed(failure)) => return Err(failed(failure)),
                None => return Err(Error::ShuttingDown),
            }
        }
    }
}

/// What comes of looking for an answer.
enum Source {
    /// The readers have all of it.
    Told,
    /// It is to be made, and other replicas told of it.
    Engine(Option<Leader>),
}

/// Resolves when one who is more urgent has joined. Safe to drop.
async fn raised(priority: &mut watch::Receiver<Priority>) {
    if priority.changed().await.is_err() {
        // Nobody can join any more.
        std::future::pending::<()>().await;
    }
}

fn cached(text: &str, at: Instant, started: Instant) -> CachedDelta {
    CachedDelta {
        text: text.to_owned(),
        at_us: at.saturating_duration_since(started).as_micros() as u64,
    }
}

fn to_cached(
    log: &AnswerLog,
    reason: FinishReason,
    prepared: &Prepared,
    seed: u64,
) -> CachedAnswer {
    let started = log.started.map(|started| started.at);
    let delta = |n| {
        // What another replica told before this one began came at no time of this one's.
        let at = log.came_at(n).or(started);
        let (at, started) = at.zip(started).unwrap_or_else(|| (now(), now()));
        cached(&log.between(n, n + 1), at, started)
    };
    let deltas = (0..log.deltas()).map(delta).collect();
    CachedAnswer {
        deltas,
        finish_reason: reason,
        prompt_tokens: prepared.tokens.len() as u32,
        generated_tokens: log.generated_tokens as u32,
        seed,
        notes: prepared.notes.clone(),
        language: prepared.language.clone().unwrap_or_default(),
        timings: timings(log).unwrap_or_default(),
    }
}

fn timings(log: &AnswerLog) -> Option<Timings> {
    let (queued, started, (first, last)) = (log.queued?, log.started?, log.tokens_at?);
    Some(Timings {
        queue: started.at.saturating_duration_since(queued.at),
        prefill: first.saturating_duration_since(started.at),
        decode: last.saturating_duration_since(first),
    })
}

fn finish_reason(end: End) -> FinishReason {
    match end {
        End::Eos => FinishReason::Eos,
        End::Length => FinishReason::Length,
        End::Context => FinishReason::Context,
    }
}

fn failed(failure: Failure) -> Error {
    match failure {
        Failure::OutOfMemory => Error::OutOfMemory,
        Failure::Engine => Error::Engine,
        Failure::Wedged => Error::Wedged,
        Failure::ShuttingDown => Error::ShuttingDown,
    }
}
