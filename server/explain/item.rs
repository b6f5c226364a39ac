//! An item's way from its answer to its client, and what is told about it at the end.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::Timings;
use crate::error::Error;
use crate::explain::log::AnswerLog;
use crate::explain::outlet::Room;
use crate::explain::prepare::Prepared;
use crate::explain::reader::{Next, Reader};
use crate::explain::{Accepted, Done, Ending, EventKind, ItemEvent, Outlet, now, until};
use crate::metrics::{ItemTimes, Metrics};
use crate::request::{Replay, ValidRequest};
use crate::telemetry::ItemTrace;

/// How far an answer was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed {
    /// When the first text went out.
    first_sent: Option<Instant>,
    /// The item's time was up before the end.
    cut: bool,
}

/// An item's way to its client.
pub(super) struct Item<'a> {
    pub(super) id: Arc<str>,
    pub(super) out: &'a Outlet,
    pub(super) trace: &'a ItemTrace,
    pub(super) metrics: &'a Metrics,
    pub(super) received: Instant,
}

impl Item<'_> {
    /// Reads the answer to its end, or until its time is up, at the pace of the client.
    pub(super) async fn follow(
        &self,
        reader: &mut Reader,
        request: &ValidRequest,
        prepared: &Prepared,
        deadline: Option<Instant>,
    ) -> Result<Followed, Error> {
        let (mut first_sent, mut sequence) = (None, 0);
        loop {
            let next = tokio::select! {
                biased;
                () = until(deadline) => {
                    self.cut(reader, sequence).await?;
                    return Ok(Followed { first_sent, cut: true });
                }
                next = reader.next() => next?,
            };
            if next == Next::End {
                return Ok(Followed {
                    first_sent,
                    cut: false,
                });
            }
            let paced = request.replay == Replay::Paced;
            if paced && next == Next::Text {
                let due = reader.due().unwrap_or_else(now);
                tokio::time::sleep_until(due.into()).await;
            }
            // What there is to say is taken when there is room for it, and not before: it does not queue.
            let room = self.room().await?;
            let kind = match next {
                Next::Accepted(queue_position) => {
                    reader.told(queue_position);
                    EventKind::Accepted(Accepted {
                        queue_position,
                        language: prepared.language.clone(),
                        prompt_tokens: prepared.tokens.len(),
                        prompt: request.include_prompt.then(|| prepared.text.clone()),
                    })
                }
                Next::Queued(position) => {
                    reader.told(position);
                    EventKind::Queued(position)
                }
                Next::Text | Next::End => {
                    first_sent.get_or_insert_with(now);
                    // Who comes late, or reads slowly, gets what was said so far at once.
                    let all = !paced && (room.waited || reader.is_behind());
                    let text = reader.text(all);
                    sequence += 1;
                    EventKind::Delta {
                        text,
                        sequence: sequence - 1,
                    }
                }
            };
            room.send(self.event(kind));
        }
    }

    /// Sends an event as soon as there is room.
    pub(super) async fn tell(&self, kind: EventKind) -> Result<(), Error> {
        self.room().await?.send(self.event(kind));
        Ok(())
    }

    pub(super) fn event(&self, kind: EventKind) -> ItemEvent {
        ItemEvent {
            id: self.id.clone(),
            kind,
        }
    }

    /// Its time is up: what was said and not sent goes out. There must be something to keep.
    async fn cut(&self, reader: &mut Reader, sequence: u64) -> Result<(), Error> {
        if reader.look(|log| log.generated_tokens) == 0 {
            return Err(Error::Deadline);
        }
        if let Some(text) = reader.rest() {
            self.room().await?.send(ItemEvent {
                id: self.id.clone(),
                kind: EventKind::Delta { text, sequence },
            });
        }
        Ok(())
    }

    pub(super) async fn room(&self) -> Result<Room<'_>, Error> {
        if let Some(room) = self.out.try_room() {
            return Ok(room);
        }
        let _parked = self.metrics.streams.parked();
        self.out.room().await
    }

    /// What the client is told at the end, from what the item saw of the answer: one that joined another's saw less.
    pub(super) fn done(
        &self,
        reader: &Reader,
        followed: Followed,
        request: &ValidRequest,
        prepared: &Prepared,
    ) -> Result<Done, Error> {
        let Followed { first_sent, cut } = followed;
        let ended = now();
        let (times, mut done) = reader.look(|log| {
            let times = times(log, reader, first_sent, ended);
            let done = Done {
                reason: match &log.end {
                    _ if cut => Ending::Deadline,
                    Some(end) => Ending::Complete(end.clone()?),
                    None => return Err(Error::Internal),
                },
                prompt_tokens: prepared.tokens.len(),
                cached_tokens: match log.level {
                    Some(_) => prepared.tokens.len(),
                    None => log.started.map_or(0, |started| started.cached_tokens),
                },
                generated_tokens: log.generated_tokens,
                timings: Timings::default(),
                first_token: times.first_token,
                largest_batch: log.largest_batch,
                level: log.level,
                joined: reader.joined || log.elsewhere,
                seed: request.sampling.seed,
                strategy: request.strategy.as_str(),
                notes: prepared.notes.clone(),
                full_text: request.include_full_text.then(|| log.text().to_owned()),
            };
            Ok::<_, Error>((times, done))
        })?;
        done.timings = times.timings;
        if done.level.is_some() {
            self.trace.part("replay", times.accepted, ended);
        } else {
            let mut at = times.accepted;
            for (part, time) in [
                ("queue", done.timings.queue),
                ("prefill", done.timings.prefill),
                ("decode", done.timings.decode),
            ] {
                self.trace.part(part, at, at + time);
                at += time;
            }
        }
        let generated = done.generated_tokens as i64;
        self.trace.set("code_explainer.generated_tokens", generated);
        let times = ItemTimes {
            total: ended.saturating_duration_since(self.received),
            queue: done.timings.queue,
            first_token: done.first_token,
        };
        self.metrics.item_done(request.strategy, &times);
        Ok(done)
    }
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
