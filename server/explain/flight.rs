//! One generation, shared by all who ask for the same answer while it is under way.
//!
//! ## Boarding => Flying => (Landed | Failed | Abandoned)
//! Who asks first makes the flight and everybody reads its log. A flight looks the answer up, has it generated where
//! there is none, and puts it into the cache before it gives its key up: so nobody can come between the two and
//! generate it again. When the last reader leaves, the flight is abandoned and the engine's work on it stops before
//! the next step. Failed and abandoned answers are never cached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::access::rates::Rates;
use crate::cache::{CacheKey, CachedAnswer, FinishReason, Lookup, Timings};
use crate::error::Error;
use crate::explain::log::{AnswerLog, Writer};
use crate::explain::prepare::Prepared;
use crate::explain::reader::Reader;
use crate::explain::{Explainer, now};
use crate::request::ValidRequest;
use crate::scheduler::{End, Event, Failure, Job, Place};

/// Answers that are being generated, by what they answer. Bounded by the queue and the engines' batches, since each has
/// a place in one of them.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: Mutex<HashMap<CacheKey, watch::Sender<AnswerLog>>>,
}

/// The right and the duty to generate an answer.
#[derive(Debug)]
pub(super) struct Lead {
    writer: Writer,
    key: Option<CacheKey>,
    /// Others can join.
    shared: bool,
    flights: Arc<Flights>,
}

/// How an item comes to its answer.
pub(super) enum Boarding {
    /// Another item has asked for the same.
    Joined(Reader),
    /// It is the first: the flight is its to start.
    Leads(Reader, Lead),
}

/// What a flight needs to know of the item that it was made for.
pub(super) struct Plan {
    pub(super) request: Arc<ValidRequest>,
    pub(super) prepared: Arc<Prepared>,
    /// Keys what it leaves behind.
    pub(super) salt: Arc<[u8]>,
    /// What the tenant may still ask for.
    pub(super) rates: Arc<Rates>,
}

impl Flights {
    /// Joins the flight of this key, or makes it. Without a key, or unless it is to be shared, nobody else can join.
    pub(super) fn board(
        self: &Arc<Self>,
        key: Option<CacheKey>,
        share: bool,
        at: Instant,
    ) -> Boarding {
        let mut flying = self.lock();
        let shared = key.filter(|_| share);
        if let Some(log) = shared.as_ref().and_then(|key| flying.get(key)) {
            return Boarding::Joined(Reader::new(log.subscribe(), at, true));
        }
        let (log, reader) = watch::channel(AnswerLog::default());
        if let Some(key) = shared {
            flying.insert(key, log.clone());
        }
        let lead = Lead {
            writer: Writer(log),
            key,
            shared: shared.is_some(),
            flights: self.clone(),
        };
        Boarding::Leads(Reader::new(reader, at, false), lead)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, watch::Sender<AnswerLog>>> {
        // Each operation leaves the map whole.
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// Waits until no reader is left, and then lets nobody board any more.
    async fn abandoned(&mut self) {
        loop {
            self.writer.0.closed().await;
            let flights = self.flights.clone();
            let mut flying = flights.lock();
            // Readers are added under the lock, so what is seen here stays so.
            if self.writer.0.receiver_count() == 0 {
                self.give_up_key(&mut flying);
                return;
            }
        }
    }

    fn give_up_key(&mut self, flying: &mut HashMap<CacheKey, watch::Sender<AnswerLog>>) {
        if let Some(key) = self.key.filter(|_| std::mem::take(&mut self.shared)) {
            flying.remove(&key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let flights = self.flights.clone();
        self.give_up_key(&mut flights.lock());
    }
}

impl Explainer {
    /// Flies until the answer is there, or nobody waits for it.
    pub(super) async fn fly(self: Arc<Self>, mut lead: Lead, plan: Plan, place: Place) {
        let writer = Writer(lead.writer.0.clone());
        let key = lead.key.filter(|_| self.cache.enabled());
        let result = tokio::select! {
            biased;
            () = lead.abandoned() => return,
            result = self.answer(&writer, &plan, place, key) => result,
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
        place: Place,
        key: Option<CacheKey>,
    ) -> Result<(), Error> {
        if let Some(key) = &key
            && let Lookup::Hit(level, answer) = self.cache.lookup(key).await
        {
            writer.replay(now(), level, &answer);
            return Ok(());
        }
        // An answer that is there already takes nothing from anybody.
        let may_need = plan.prepared.tokens.len() + plan.request.max_new_tokens;
        (plan.rates.take_tokens(may_need))
            .inspect_err(|_| self.metrics.access.rate_limited("tokens"))?;
        let (reason, rest) = self.generate(writer, plan, place).await?;
        if let Some(key) = key {
            let answer = writer.read(|log| to_cached(log, &rest, reason, plan));
            self.cache.put(key, Arc::new(answer));
        }
        writer.end(&rest, reason);
        Ok(())
    }

    /// Has the engine generate the answer. Gives why it ended, and its last text.
    async fn generate(
        &self,
        writer: &Writer,
        plan: &Plan,
        place: Place,
    ) -> Result<(FinishReason, String), Error> {
        let request = &plan.request;
        let job = Job {
            prompt: plan.prepared.tokens.clone(),
            sampling: request.sampling,
            max_new_tokens: request.max_new_tokens,
            min_new_tokens: request.min_new_tokens,
            eos: self.text.eos().into(),
            ignore_eos: request.ignore_eos,
            salt: plan.salt.clone(),
            // That of who asked first, as is the place.
            priority: request.priority,
        };
        let mut ticket = self.scheduler.submit(place, job)?;
        writer.queued(ticket.accepted_at, ticket.queue_position);
        let mut detokenizer = self.text.detokenizer(&request.stops);
        let (mut generated, mut last) = (0, None);
        loop {
            match ticket.next().await {
                Some(Event::Queued(position)) => writer.moved(position),
                Some(Event::Started { at, cached_tokens }) => writer.started(at, cached_tokens),
                Some(Event::Token { token, at, batch }) => {
                    if let Some(last) = last.replace(at) {
                        self.metrics.inter_token(at - last);
                    }
                    generated += 1;
                    let step = detokenizer.push(token, generated >= request.min_new_tokens);
                    writer.token(at, batch, &step.text);
                    if step.stopped {
                        // Dropping the ticket stops the engine's work on it.
                        return Ok((FinishReason::Stop, String::new()));
                    }
                }
                Some(Event::Ended(end)) => return Ok((finish_reason(end), detokenizer.finish())),
                Some(Event::Failed(failure)) => return Err(failed(failure)),
                None => return Err(Error::ShuttingDown),
            }
        }
    }
}

fn to_cached(log: &AnswerLog, rest: &str, reason: FinishReason, plan: &Plan) -> CachedAnswer {
    let mut deltas: Vec<String> = (0..log.deltas())
        .map(|delta| log.between(delta, delta + 1).to_owned())
        .collect();
    if !rest.is_empty() {
        deltas.push(rest.to_owned());
    }
    CachedAnswer {
        deltas,
        finish_reason: reason,
        prompt_tokens: plan.prepared.tokens.len() as u32,
        generated_tokens: log.generated_tokens as u32,
        seed: plan.request.sampling.seed,
        notes: plan.prepared.notes.clone(),
        language: plan.prepared.language.clone().unwrap_or_default(),
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
