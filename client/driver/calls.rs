//! The driver's calls: which takes the next job, what they say of themselves, and how a lost one is gone on with.

use tokio::time::Instant;

use super::Driver;
use crate::call::Notice;
use crate::credit::{Amount, Credit};
use crate::job::{Call, Job};
use crate::proto::{GoAwayReason, Open};

impl Driver {
    /// Of the calls that have credit for so much code, the one with the fewest jobs; another one where there are too few.
    pub(super) fn call_for_more(&mut self, code_bytes: usize) -> Option<&mut Call> {
        let streams = usize::from(self.window.streams.unwrap_or(1).max(1));
        let staying = self.calls.iter().filter(|call| !call.leaving).count();
        if staying < streams {
            let open = Open {
                resumable: true,
                ..Open::default()
            };
            self.open(open, self.assumed);
        }
        // Where nothing is in flight no credit comes back that could be waited for.
        let takes =
            |call: &&mut Call| !call.leaving && (call.jobs == 0 || call.credit.covers(code_bytes));
        let calls = self.calls.iter_mut().filter(takes);
        calls.min_by_key(|call| call.jobs)
    }

    fn open(&mut self, open: Open, credit: Amount) -> &mut Call {
        // Room for every job and a cancellation of each: sending never waits for the server to read,
        // while this task, which must read what the server writes, stands still.
        let (sender, receiver) = self.client.stream_with_backlog(2 * self.size + 2);
        sender.open(open);
        let at = self.calls.len();
        let credit = Credit::assumed(credit);
        self.calls
            .push(Call::new(self.next_call, sender, receiver, credit));
        self.next_call += 1;
        &mut self.calls[at]
    }

    /// Goes on with the streams that were lost.
    pub(super) fn go_on(&mut self) {
        for (token, jobs) in std::mem::take(&mut self.lost) {
            let open = Open {
                resumable: true,
                resume_token: token.clone(),
                have: jobs.iter().map(Job::have).collect(),
                ..Open::default()
            };
            // What is in flight may be all that it holds.
            let call = self.open(open, Amount::default());
            call.jobs = jobs.len();
            // Until it has another: the call may break before the server has said a word.
            call.token = Some(token);
            let key = call.key;
            for mut job in jobs {
                job.call = key;
                self.flight.insert(job.item.id.clone(), job);
            }
        }
    }

    pub(super) fn call(&mut self, key: u64) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.key == key)
    }

    /// Takes what a stream says of itself.
    pub(super) async fn note(&mut self, key: u64, notice: Notice) {
        match notice {
            // Nothing has come of the call yet: whether it breaks again is counted on.
            Notice::Session(session) => {
                let Some(call) = self.calls.iter_mut().find(|call| call.key == key) else {
                    return;
                };
                call.token = Some(session.resume_token).filter(|token| !token.is_empty());
                call.credit.told(session.credit);
                for id in session.unknown {
                    if let Some(job) = self.flight.get_mut(&id).filter(|job| job.call == key) {
                        job.begin(key);
                        call.credit.spend(job.item.code.len());
                        // As in `send`.
                        let _ = call.sender.explain(job.item.clone()).await;
                    }
                }
            }
            Notice::GoAway(go_away) => {
                let after = go_away.reconnect_after.and_then(crate::retry::time);
                let after = after.unwrap_or_default();
                let at = Instant::now() + after.min(self.window.retry.max_server_delay);
                if !after.is_zero() {
                    self.pause = self.pause.max(Some(at));
                }
                for id in go_away.not_started {
                    if let Some(mut job) = self.flight.remove(&id) {
                        if let Some(call) = self.call(key) {
                            call.jobs -= 1;
                            call.handed_back.insert(id);
                        }
                        // The server did not try it.
                        job.tried -= 1;
                        self.waiting.push((at, job));
                    }
                }
                let drains = go_away.reason == i32::from(GoAwayReason::Drain);
                if let Some(call) = self.call(key) {
                    call.leaving = true;
                    call.draining |= drains;
                }
                self.leave_if_empty(key);
            }
            Notice::Credit(credit) => {
                if let Some(call) = self.call(key) {
                    call.credit.comes(credit);
                }
            }
            Notice::Progress => {}
        }
    }

    /// Lets go of a call that takes no more, once it has answered what it took.
    pub(super) fn leave_if_empty(&mut self, key: u64) {
        let empty = |call: &Call| call.key == key && call.leaving && call.jobs == 0;
        if let Some(at) = self.calls.iter().position(empty) {
            self.calls.remove(at).retire();
        }
    }
}
