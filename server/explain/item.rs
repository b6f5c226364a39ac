//! An item's way from its answer to its client, and what is told about it at the end.

use std::sync::Arc;
use std::time::Instant;

use code_explainer_cache::Timings;
use code_explainer_code::prompt::Strategy;

use crate::error::Error;
use crate::explain::log::{About, AnswerLog};
use crate::explain::outlet::Room;
use crate::explain::reader::{Next, Reader};
use crate::explain::{
    Accepted, CancelReason, Done, Ending, EventKind, ItemEvent, Outlet, Record, now, until,
};
use crate::metrics::{ItemTimes, Metrics, Outcome};
use crate::request::{Replay, ValidRequest};
use crate::telemetry::ItemTrace;

/// An item's way to its client.
pub(super) struct Item<'a> {
    pub(super) id: Arc<str>,
    pub(super) out: &'a Outlet,
    pub(super) trace: &'a ItemTrace,
    pub(super) metrics: &'a Metrics,
    pub(super) record: &'a Record,
    /// Its client is told of the load that others make.
    pub(super) reports_load: bool,
    pub(super) received: Instant,
}

/// What of its request an item needs to tell its answer. The rest, the code above all, is not kept for a client that does
/// not read.
pub(super) struct Telling {
    paced: bool,
    full_text: bool,
    seed: u64,
    strategy: Strategy,
    notes: Vec<String>,
}

impl Telling {
    pub(super) fn of(request: &ValidRequest) -> Self {
        Self {
            paced: request.replay == Replay::Paced,
            full_text: request.include_full_text,
            seed: request.sampling.seed,
            strategy: request.strategy,
            notes: request.notes.clone(),
        }
    }
}

/// An answer that an item tells.
pub(super) struct Found {
    pub(super) reader: Reader,
    pub(super) telling: Telling,
    /// What there is to say of it where that is not what the answer's maker says.
    pub(super) own: Option<Arc<About>>,
}

impl Item<'_> {
    /// Reads the answer to its end, or until its time is up, and sends it, at the pace of the client and over one
    /// connection after another.
    pub(super) async fn follow(
        &self,
        found: Found,
        deadline: Option<Instant>,
        leave: &(impl Fn(u64, &EventKind) -> bool + Sync),
    ) -> Result<(), Error> {
        let Found {
            mut reader,
            telling,
            own,
        } = found;
        let mut generation = self.out.generation();
        let (mut first_sent, mut ended, mut sequence) = (None, None, 0);
        // Deltas that there were when its time was up.
        let mut cut = None;
        let about = |reader: &Reader| (own.clone()).unwrap_or_else(|| reader.about());
        loop {
            let next = match cut {
                Some(deltas) => reader.left(deltas),
                None => tokio::select! {
                    biased;
                    () = until(deadline) => {
                        cut = Some(what_there_is(&reader)?);
                        continue;
                    }
                    next = reader.next(self.record) => next?,
                },
            };
            if let Next::Queued(position) = next
                && !self.reports_load
            {
                reader.told(position);
                continue;
            }
            if next == Next::End {
                ended.get_or_insert_with(now);
            }
            let paced = telling.paced && cut.is_none();
            if paced && next == Next::Text {
                let due = reader.due().unwrap_or_else(now);
                tokio::select! {
                    () = until(deadline) => continue,
                    () = until(Some(due)) => {}
                }
            }
            // What there is to say is taken when there is room for it, and not before: it does not queue.
            let room = self.room().await?;
            if room.generation != generation {
                generation = room.generation;
                if let Some((has, read)) = self.record.rewind() {
                    reader.rewind(has.accepted, read);
                    sequence = has.deltas as u64;
                }
                continue;
            }
            let kind = match next {
                Next::Accepted(queue_position) => {
                    reader.told(queue_position);
                    let about = about(&reader);
                    let accepted = Accepted {
                        queue_position: if self.reports_load { queue_position } else { 0 },
                        language: about.language.clone(),
                        prompt_tokens: about.prompt_tokens,
                        prompt: about.prompt.clone(),
                    };
                    self.record.accepted(&accepted);
                    EventKind::Accepted(accepted)
                }
                Next::Queued(position) => {
                    reader.told(position);
                    EventKind::Queued(position)
                }
                Next::Text => {
                    first_sent.get_or_insert_with(now);
                    // Who comes late, or reads slowly, gets what was said so far at once.
                    let late = !paced && (room.waited || reader.is_behind());
                    let text = reader.text(late || cut.is_some());
                    self.record.delta(reader.position());
                    sequence += 1;
                    EventKind::Delta {
                        text,
                        sequence: sequence - 1,
                    }
                }
                Next::End => {
                    let ended = ended.unwrap_or_else(now);
                    let about = about(&reader);
                    let seen = (first_sent, ended, cut.is_some());
                    let (mut done, times) = done(&reader, seen, &telling, &about)?;
                    if !self.reports_load {
                        keep_load_back(&mut done);
                    }
                    let kind = EventKind::Done(Box::new(done));
                    self.record
                        .ended(|| Some(reader.kept(cut.is_some())), &kind);
                    if !leave(generation, &kind) {
                        continue;
                    }
                    self.count(&kind, &times, ended, &telling, &about);
                    self.send(room, kind);
                    return Ok(());
                }
            };
            self.send(room, kind);
        }
    }

    /// Sends the last event of an item that has failed, unless nobody is there to hear it.
    pub(super) async fn fail(
        &self,
        error: Error,
        leave: &(impl Fn(u64, &EventKind) -> bool + Sync),
    ) {
        let kind = EventKind::Failed(error);
        self.record.ended(|| None, &kind);
        while let Some(room) = self.out.last_room().await {
            if leave(room.generation, &kind) {
                return self.send(room, kind);
            }
        }
    }

    fn send(&self, room: Room, kind: EventKind) {
        let id = self.id.clone();
        room.send(ItemEvent { id, kind });
    }

    async fn room(&self) -> Result<Room, Error> {
        if let Some(room) = self.out.try_room() {
            return Ok(room);
        }
        let _parked = self.metrics.streams.parked();
        self.out.room().await
    }

    /// Counts and traces an item that is answered.
    fn count(
        &self,
        kind: &EventKind,
        times: &Times,
        ended: Instant,
        telling: &Telling,
        about: &About,
    ) {
        let EventKind::Done(done) = kind else { return };
        // One that was made for another before this item came took it no time.
        if let Some((began, made)) = about.made.filter(|(began, _)| *began >= self.received) {
            self.trace.part("prompt", began, made);
        }
        let prompt = done.prompt_tokens as i64;
        self.trace.set("code_explainer.prompt_tokens", prompt);
        if done.level.is_some() {
            self.trace.part("replay", times.accepted, ended);
        } else {
            let mut at = times.accepted;
            for (part, time) in [
                ("queue", times.timings.queue),
                ("prefill", times.timings.prefill),
                ("decode", times.timings.decode),
            ] {
                self.trace.part(part, at, at + time);
                at += time;
            }
        }
        let generated = done.generated_tokens as i64;
        self.trace.set("code_explainer.generated_tokens", generated);
        let counted = ItemTimes {
            total: ended.saturating_duration_since(self.received),
            queue: times.timings.queue,
            first_token: times.first_token,
        };
        self.metrics.item_done(telling.strategy, &counted);
        self.metrics.item_ended(Outcome::Done);
        if done.reason == Ending::Deadline {
            self.metrics.life.cancelled(CancelReason::Deadline);
        }
    }
}

/// Its time is up: the deltas that it keeps. There must be a token, or text of another replica's.
fn what_there_is(reader: &Reader) -> Result<usize, Error> {
    reader.look(|log| match (log.generated_tokens, log.deltas()) {
        (0, 0) => Err(Error::Deadline),
        (_, deltas) => Ok(deltas),
    })
}

/// What the client is told at the end, from what the item saw of the answer: one that joined another's saw less.
fn done(
    reader: &Reader,
    (first_sent, ended, cut): (Option<Instant>, Instant, bool),
    telling: &Telling,
    about: &About,
) -> Result<(Done, Times), Error> {
    reader.look(|log| {
        let times = times(log, reader, first_sent, ended);
        let done = Done {
            reason: match &log.end {
                _ if cut => Ending::Deadline,
                Some(end) => Ending::Complete(end.clone()?),
                None => return Err(Error::Internal),
            },
            prompt_tokens: about.prompt_tokens,
            cached_tokens: match log.level {
                Some(_) => about.prompt_tokens,
                None => log.started.map_or(0, |started| started.cached_tokens),
            },
            generated_tokens: log.generated_tokens,
            timings: times.timings,
            first_token: times.first_token,
            largest_batch: log.largest_batch,
            level: log.level,
            joined: reader.joined || log.elsewhere,
            seed: telling.seed,
            strategy: telling.strategy.as_str(),
            // Those of the request are its own, and not of others who are given the same answer.
            notes: telling.notes.iter().chain(&about.notes).cloned().collect(),
            sources: about.sources.clone(),
            full_text: telling
                .full_text
                .then(|| log.between(0, reader.position()).into_owned()),
        };
        Ok((done, times))
    })
}

/// What an item waited for and shared a batch with is others' affair. What its client can measure itself stays.
fn keep_load_back(done: &mut Done) {
    done.largest_batch = 0;
    done.timings.prefill += std::mem::take(&mut done.timings.queue);
}

/// When an item was accepted, and how long it took from there.
struct Times {
    accepted: Instant,
    timings: Timings,
    first_token: std::time::Duration,
}

fn times(log: &AnswerLog, reader: &Reader, first_sent: Option<Instant>, ended: Instant) -> Times {
    let boarded = reader.boarded_at;
    let accepted = log.queued.map_or(boarded, |queued| queued.at.max(boarded));
    let since = |later: Instant, earlier| later.saturating_duration_since(earlier);
    if log.level.is_some() {
        let decode = since(ended, accepted);
        return Times {
            accepted,
            timings: Timings {
                decode,
                ..Timings::default()
            },
            first_token: first_sent.map_or(decode, |first| since(first, accepted)),
        };
    }
    // What happened before the item came took it no time.
    let started = log.started.map_or(accepted, |s| s.at.max(accepted));
    let (first, last) = log.tokens_at.unwrap_or((started, started));
    let first = first.max(started);
    let last = last.max(first);
    Times {
        accepted,
        timings: Timings {
            queue: since(started, accepted),
            prefill: since(first, started),
            decode: since(last, first),
        },
        first_token: since(first, accepted),
    }
}
