//! Keeps what decides who may call as its files have it: looks at them every now and then, and withdraws what counts no
//! more. Whoever cannot be told of any more, because a file cannot be read, is let in for a grace and then not.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use code_explainer_host::machine::Machine;
use rustls::pki_types::UnixTime;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Access;
use super::reload::Look;
use crate::metrics::Metrics;

impl Access {
    /// Keeps up with the files until `stop`: looks at them after each of `every`. `tell` is told when it becomes known or
    /// unknown who may call.
    pub async fn keep_up(
        self: Arc<Self>,
        every: Duration,
        metrics: Arc<Metrics>,
        machine: Machine,
        tell: impl Fn(bool),
        stop: CancellationToken,
    ) {
        self.tell_ends(&metrics);
        if self.book.is_none() && self.tls.is_none() {
            return;
        }
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When the first look began of those that have failed one after the other.
        let mut failing: Option<Instant> = None;
        let mut due = async || {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.again.notified() => {}
            }
        };
        while stop.run_until_cancelled(due()).await.is_some() {
            let began = Instant::now();
            let (access, counted) = (self.clone(), metrics.clone());
            // Reading a file blocks.
            let mut look = pin!(machine.compute(move || access.look(&counted)));
            // A file that does not let go of its reader, on a disk that hangs, is one that cannot be read.
            let hangs = sleep_until((failing.unwrap_or(began) + self.grace).max(began + every));
            let looked = tokio::select! {
                looked = &mut look => looked,
                () = stop.cancelled() => return,
                () = hangs => {
                    self.set_known(false, &metrics, &tell);
                    tokio::select! {
                        looked = look => looked,
                        () = stop.cancelled() => return,
                    }
                }
            };
            match looked {
                Ok(true) => failing = None,
                Ok(false) => failing = failing.or(Some(began)),
                Err(panic) => {
                    tracing::error!(%panic, "reading changed files panicked");
                    failing = failing.or(Some(began));
                }
            }
            let known = failing.is_none_or(|since| since.elapsed() < self.grace);
            self.set_known(known, &metrics, &tell);
        }
    }

    /// Has the files looked at now, and not when it is time.
    pub fn look_again(&self) {
        if self.book.is_none() && self.tls.is_none() {
            tracing::info!(
                "there are no files of keys or certificates to read again; other settings need a new start"
            );
            return;
        }
        tracing::info!(
            "reading the files of keys and certificates again; other settings need a new start"
        );
        self.again.notify_one();
    }

    /// Takes what is good of the files that have changed; what is not changes nothing. Gives whether those that take
    /// rights away could be read.
    fn look(&self, metrics: &Metrics) -> bool {
        let mut readable = true;
        if let Some(book) = &self.book {
            let look = book.look();
            readable &= count(book.name(), &look, metrics);
            if let Some(before) = look.before {
                let now = book.current();
                let keys = before.withdraw_all_but(&now);
                let certificates = self.certificates.withdraw_changed(&before, &now);
                if keys + certificates > 0 {
                    tracing::info!(
                        keys,
                        certificates,
                        "keys, or certificates of open connections, count no more, or for less; their calls end"
                    );
                }
            }
        }
        if let Some(tls) = &self.tls {
            let own = tls.own.look();
            count(tls.own.name(), &own, metrics);
            let clients = tls
                .clients
                .as_ref()
                .map(|clients| (clients, clients.look()));
            let changed = clients
                .as_ref()
                .is_some_and(|(_, look)| look.before.is_some());
            if changed || own.before.is_some() {
                tls.renew();
            }
            if let Some((clients, look)) = clients {
                readable &= count(clients.name(), &look, metrics);
                let revoked =
                    (self.certificates).check(&clients.current(), UnixTime::now(), changed);
                if revoked > 0 {
                    tracing::info!(
                        revoked,
                        "certificates of open connections are not good any more; their connections end"
                    );
                }
            }
        }
        self.tell_ends(metrics);
        readable
    }

    /// It is known, or not, who may call. Where not, what was begun ends, and nobody is let in until it is known again.
    fn set_known(&self, known: bool, metrics: &Metrics, tell: &impl Fn(bool)) {
        if self.known.swap(known, Ordering::AcqRel) == known {
            return;
        }
        metrics.access.callers_known(known);
        tell(known);
        if known {
            tracing::info!("the files that say who may call can be read again; calls are let in");
            return;
        }
        tracing::error!(
            grace = ?self.grace,
            "a file that says who may call cannot be read, so nobody can tell whose key counts: refusing all calls until it can"
        );
        if let Some(book) = &self.book {
            book.replace(|book| book.renewed()).lapse();
        }
        self.certificates.lapse();
    }

    fn tell_ends(&self, metrics: &Metrics) {
        if let Some(tls) = &self.tls {
            (metrics.access).certificate_ends(tls.own.current().not_after);
        }
        if let Some(clients) = self.clients() {
            metrics.access.revocations_end(clients.next_update);
        }
    }
}

/// Counts what came of a look at some files, and gives whether they could be read.
fn count<T>(name: &'static str, look: &Look<T>, metrics: &Metrics) -> bool {
    metrics.access.file_stale(name, look.stale);
    if let Some(good) = look.changed {
        metrics.access.reloaded(name, good);
    }
    look.readable
}
