//! One item from its valid request to its last event: prompt, cache, engine, text. Knows nothing of the wire.

mod events;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use events::{Accepted, Done, EventKind, ItemEvent};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheKey, CachedAnswer, FinishReason, KeyParts, Level, Lookup, Timings};
use crate::engine::BackendInfo;
use crate::error::Error;
use crate::identity::Identity;
use crate::metrics::{ItemTimes, Metrics, Outcome};
use crate::prompt::{self, PROMPT_REVISION};
use crate::request::ValidRequest;
use crate::scheduler::{End, Event, Failure, Job, Scheduler, SchedulerOptions, Ticket};
use crate::telemetry::{ItemTrace, TraceParent, Traces};
use crate::text::{Detokenizer, Text};

/// Explains items. One for a server, shared by all its streams.
pub struct Explainer {
    /// Tokenizer and chat template.
    pub text: Arc<Text>,
    /// The way to the engines.
    pub scheduler: Scheduler,
    /// How they run items.
    pub options: SchedulerOptions,
    /// Answers that were given before.
    pub cache: Arc<Cache>,
    /// The model, as loaded.
    pub model: BackendInfo,
    /// Tells this model's answers from another's, in the cache.
    pub model_digest: String,
    /// With an identity's tenant it makes the salt of the cache's keys, and of the names of shared prefixes of the KV cache.
    pub cache_secret: String,
    /// Prompts that may be made at once.
    pub preparing: Arc<Semaphore>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Where to trace.
    pub traces: Arc<Traces>,
    /// Set when the server can wait for no item any more.
    pub closing: CancellationToken,
}

/// Where an item's events go; in order, and bounded: a slow reader slows its own items, never the engine.
pub type Outlet = mpsc::Sender<ItemEvent>;

/// A prompt, tokenized.
struct Prepared {
    tokens: Vec<u32>,
    text: String,
    language: Option<String>,
    notes: Vec<String>,
}

/// An answer while it grows.
struct Answer {
    detokenizer: Option<Detokenizer>,
    deltas: Vec<String>,
    generated: usize,
    stopped: bool,
    cached_tokens: usize,
    largest_batch: usize,
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Explainer {
    /// Works on an item until it has ended, was cancelled, or nobody listens any more. `before_last` is called when
    /// only the last event is left to send: from then on the client may use the id again.
    pub async fn run(
        &self,
        request: ValidRequest,
        identity: &Identity,
        out: Outlet,
        cancel: CancellationToken,
        parent: &TraceParent,
        before_last: impl FnOnce(),
    ) {
        let received = Instant::now();
        let id: Arc<str> = request.id.as_str().into();
        let trace = self.traces.item(parent, &id, request.strategy.as_str());
        let item = Item {
            id: id.clone(),
            out: &out,
            trace: &trace,
            received,
        };
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            () = out.closed() => Err(Error::Cancelled),
            () = self.closing.cancelled() => Err(Error::ShuttingDown),
            result = self.explain(&item, request, identity) => result,
        };
        let (outcome, label) = match &result {
            Ok(_) => (Outcome::Done, None),
            Err(error @ Error::Cancelled) => (Outcome::Cancelled, Some(error.label())),
            Err(error) => (Outcome::Failed, Some(error.label())),
        };
        self.metrics.item_ended(outcome);
        trace.end(label);
        before_last();
        let kind = result.map_or_else(EventKind::Failed, |done| EventKind::Done(Box::new(done)));
        // Nobody is left to tell where this fails.
        let _ = out.send(ItemEvent { id, kind }).await;
    }

    async fn explain(
        &self,
        item: &Item<'_>,
        request: ValidRequest,
        identity: &Identity,
    ) -> Result<Done, Error> {
        let place = self.scheduler.enter()?;
        let request = Arc::new(request);
        let prepared = self.prepare(&request).await?;
        item.trace.part("prompt", item.received, Instant::now());
        item.trace
            .set("code_explainer.prompt_tokens", prepared.tokens.len() as i64);
        let salt = identity.salt(self.cache_secret.as_bytes());
        let key = self.cache_key(&request, prepared.language.as_deref(), &salt);
        if let Some(key) = &key
            && let Lookup::Hit(level, answer) = self.cache.lookup(key).await
        {
            // A slow reader of an old answer is in nobody's way.
            drop(place);
            return self.replay(item, &request, prepared, level, &answer).await;
        }
        let job = Job {
            prompt: prepared.tokens.clone(),
            sampling: request.sampling,
            max_new_tokens: request.max_new_tokens,
            min_new_tokens: request.min_new_tokens,
            eos: self.text.eos().into(),
            ignore_eos: request.ignore_eos,
            salt,
            tenant: identity.tenant.clone(),
        };
        let ticket = self.scheduler.submit(place, job)?;
        item.accepted(&request, &prepared, ticket.queue_position)
            .await?;
        let (done, deltas) = self.generate(item, &request, &prepared, ticket).await?;
        if let Some(key) = key {
            self.cache
                .put(key, Arc::new(done.to_cached(&prepared, deltas)));
        }
        Ok(done)
    }

    /// Parsing and tokenizing take milliseconds on long code: not on the threads that serve the network, and not more
    /// at once than there are cores.
    async fn prepare(&self, request: &Arc<ValidRequest>) -> Result<Prepared, Error> {
        let turn = self.preparing.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Error::ShuttingDown)?;
        let (request, text) = (request.clone(), self.text.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, also when the item has been cancelled meanwhile.
            let _turn = turn;
            prepare(&request, &text)
        })
        .await;
        let prepared = prepared.unwrap_or_else(|panic| {
            tracing::error!(%panic, "a prompt could not be made");
            Err(Error::Internal)
        })?;
        let (tokens, context) = (prepared.tokens.len(), self.model.context_length);
        if tokens >= context {
            let problem = format!(
                "makes a prompt of {tokens} tokens, but the model's context of {context} must hold prompt and answer"
            );
            return Err(Error::invalid("code", problem));
        }
        Ok(prepared)
    }

    /// `None` where the answer is not to be cached.
    fn cache_key(
        &self,
        request: &ValidRequest,
        language: Option<&str>,
        salt: &[u8],
    ) -> Option<CacheKey> {
        (request.reproducible && self.cache.enabled()).then(|| {
            CacheKey::new(&KeyParts {
                salt,
                code: request.code.as_bytes(),
                language: language.unwrap_or_default(),
                strategy: request.strategy.as_str(),
                prompt_revision: PROMPT_REVISION,
                model_digest: self.model_digest.as_bytes(),
                precision: self.model.precision.as_str(),
                temperature: request.sampling.temperature,
                top_p: request.sampling.top_p,
                top_k: request.sampling.top_k,
                repetition_penalty: request.sampling.repetition_penalty,
                seed: request.sampling.seed,
                stops: &request.stops,
                ignore_eos: request.ignore_eos,
                max_new_tokens: request.max_new_tokens,
                min_new_tokens: request.min_new_tokens,
            })
        })
    }

    async fn replay(
        &self,
        item: &Item<'_>,
        request: &ValidRequest,
        prepared: Prepared,
        level: Level,
        answer: &CachedAnswer,
    ) -> Result<Done, Error> {
        let accepted_at = Instant::now();
        item.accepted(request, &prepared, 0).await?;
        let mut first_token = None;
        for (sequence, text) in answer.deltas.iter().enumerate() {
            first_token.get_or_insert_with(|| accepted_at.elapsed());
            item.send(EventKind::Delta {
                text: text.clone(),
                sequence: sequence as u64,
            })
            .await?;
        }
        let decode = accepted_at.elapsed();
        let first_token = first_token.unwrap_or(decode);
        item.trace.part("replay", accepted_at, accepted_at + decode);
        let times = ItemTimes {
            total: item.received.elapsed(),
            queue: Duration::ZERO,
            first_token,
        };
        self.metrics.item_done(request.strategy, &times);
        Ok(Done {
            reason: answer.finish_reason,
            prompt_tokens: answer.prompt_tokens as usize,
            cached_tokens: answer.prompt_tokens as usize,
            generated_tokens: answer.generated_tokens as usize,
            timings: Timings {
                decode,
                ..Timings::default()
            },
            first_token,
            largest_batch: 0,
            level: Some(level),
            seed: request.sampling.seed,
            strategy: request.strategy.as_str(),
            notes: prepared.notes,
            full_text: request.include_full_text.then(|| answer.deltas.concat()),
        })
    }

    async fn generate(
        &self,
        item: &Item<'_>,
        request: &ValidRequest,
        prepared: &Prepared,
        mut ticket: Ticket,
    ) -> Result<(Done, Vec<String>), Error> {
        let mut answer = Answer::new(self.text.detokenizer(&request.stops));
        let accepted_at = ticket.accepted_at;
        let reason = loop {
            match ticket.next().await {
                Some(Event::Started { at, cached_tokens }) => {
                    answer.started = Some(at);
                    answer.cached_tokens = cached_tokens;
                }
                Some(Event::Token { token, at, batch }) => {
                    if let Some(last) = answer.last {
                        self.metrics.inter_token(at - last);
                    }
                    let may_stop = answer.generated + 1 >= request.min_new_tokens;
                    let text = answer.push(token, at, batch, may_stop);
                    item.delta(&mut answer.deltas, text).await?;
                    if answer.stopped {
                        // Dropping the ticket stops the engine's work on it.
                        break FinishReason::Stop;
                    }
                }
                Some(Event::Ended(end)) => {
                    let rest = answer.detokenizer.take().map(Detokenizer::finish);
                    item.delta(&mut answer.deltas, rest.unwrap_or_default())
                        .await?;
                    break finish_reason(end);
                }
                Some(Event::Failed(failure)) => return Err(failed(failure)),
                None => return Err(Error::ShuttingDown),
            }
        };
        drop(ticket);
        let started = answer.started.unwrap_or(accepted_at);
        let first = answer.first.unwrap_or(started);
        let last = answer.last.unwrap_or(first);
        item.trace.part("queue", accepted_at, started);
        item.trace.part("prefill", started, first);
        item.trace.part("decode", first, last);
        item.trace
            .set("code_explainer.generated_tokens", answer.generated as i64);
        let timings = Timings {
            queue: started - accepted_at,
            prefill: first - started,
            decode: last - first,
        };
        let first_token = first - accepted_at;
        let total = item.received.elapsed();
        let times = ItemTimes {
            total,
            queue: timings.queue,
            first_token,
        };
        self.metrics.item_done(request.strategy, &times);
        let done = Done {
            reason,
            prompt_tokens: prepared.tokens.len(),
            cached_tokens: answer.cached_tokens,
            generated_tokens: answer.generated,
            timings,
            first_token,
            largest_batch: answer.largest_batch,
            level: None,
            seed: request.sampling.seed,
            strategy: request.strategy.as_str(),
            notes: prepared.notes.clone(),
            full_text: request.include_full_text.then(|| answer.deltas.concat()),
        };
        Ok((done, answer.deltas))
    }
}

/// An item's way to its client.
struct Item<'a> {
    id: Arc<str>,
    out: &'a Outlet,
    trace: &'a ItemTrace,
    received: Instant,
}

impl Item<'_> {
    async fn send(&self, kind: EventKind) -> Result<(), Error> {
        let event = ItemEvent {
            id: self.id.clone(),
            kind,
        };
        self.out.send(event).await.map_err(|_| Error::Cancelled)
    }

    async fn accepted(
        &self,
        request: &ValidRequest,
        prepared: &Prepared,
        queue_position: usize,
    ) -> Result<(), Error> {
        self.send(EventKind::Accepted(Accepted {
            queue_position,
            language: prepared.language.clone(),
            prompt_tokens: prepared.tokens.len(),
            prompt: request.include_prompt.then(|| prepared.text.clone()),
        }))
        .await
    }

    async fn delta(&self, deltas: &mut Vec<String>, text: String) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let sequence = deltas.len() as u64;
        deltas.push(text.clone());
        self.send(EventKind::Delta { text, sequence }).await
    }
}

impl Answer {
    fn new(detokenizer: Detokenizer) -> Self {
        Self {
            detokenizer: Some(detokenizer),
            deltas: Vec::new(),
            generated: 0,
            stopped: false,
            cached_tokens: 0,
            largest_batch: 0,
            started: None,
            first: None,
            last: None,
        }
    }

    fn push(&mut self, token: u32, at: Instant, batch: usize, may_stop: bool) -> String {
        self.generated += 1;
        self.largest_batch = self.largest_batch.max(batch);
        self.first.get_or_insert(at);
        self.last = Some(at);
        let step = self
            .detokenizer
            .as_mut()
            .map(|d| d.push(token, may_stop))
            .unwrap_or_default();
        self.stopped = step.stopped;
        step.text
    }
}

impl Done {
    fn to_cached(&self, prepared: &Prepared, deltas: Vec<String>) -> CachedAnswer {
        CachedAnswer {
            deltas,
            finish_reason: self.reason,
            prompt_tokens: self.prompt_tokens as u32,
            generated_tokens: self.generated_tokens as u32,
            seed: self.seed,
            notes: self.notes.clone(),
            language: prepared.language.clone().unwrap_or_default(),
            timings: self.timings,
        }
    }
}

fn prepare(request: &ValidRequest, text: &Text) -> Result<Prepared, Error> {
    let parts = prompt::build(request.strategy, &request.code, request.language.as_deref());
    let prompt = text
        .encode_prompt(parts.system.as_deref(), &parts.user)
        .map_err(|error| {
            tracing::error!(%error, "a prompt could not be tokenized");
            Error::Internal
        })?;
    Ok(Prepared {
        tokens: prompt.tokens,
        text: prompt.text,
        language: parts.language,
        notes: parts.notes,
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
        Failure::ShuttingDown => Error::ShuttingDown,
    }
}
