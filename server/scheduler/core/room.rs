//! Who is in an engine's hands, and who makes room for whom.

use crate::core::Core;
use crate::sequence::Sequence;
use crate::turns::{Claim, Standing, who_gives_way, who_goes_last};
use crate::waiting::{Rank, Tenant};

impl Core {
    /// Tokens that may be left to run; `None` if there is no room for more sequences.
    pub(crate) fn load(&self) -> Option<usize> {
        let all = self.running.iter().chain(&self.paused);
        self.has_slot().then(|| all.map(Sequence::load).sum())
    }

    fn has_slot(&self) -> bool {
        let most = self.rules.step.sequences.min(self.budget.tokens(true));
        self.running.len() < most
    }

    /// Whether the sequence could run now: its known tokens fit, beside what the running ones still need for theirs, and a
    /// block more for each of those.
    fn fits(&self, sequence: &Sequence) -> bool {
        let promised: usize = (self.running.iter())
            .map(|s| s.missing_blocks(&self.pool) + 1)
            .sum();
        let needed = promised + sequence.missing_blocks(&self.pool);
        // Alone it always fits: it has been made sure that no sequence is longer than the pool.
        self.running.is_empty() || needed <= self.pool.available()
    }

    /// Makes room for a sequence, if there is or others have to give way to it. It is the first of all that wait here.
    pub(crate) fn make_room(&mut self, sequence: &mut Sequence) -> bool {
        sequence.reuse_prefix(&self.pool, self.rules.prefix_cache);
        loop {
            let slot = self.has_slot();
            if slot && self.fits(sequence) {
                return true;
            }
            if slot && self.release_paused() {
                continue;
            }
            let running: Vec<Claim<'_>> = self.running.iter().map(Sequence::claim).collect();
            let Some(victim) = who_gives_way(&running, &sequence.claim()) else {
                return false;
            };
            self.pause(victim);
        }
    }

    /// Works on it from the next step on.
    pub(crate) fn admit(&mut self, mut sequence: Sequence) {
        sequence.leave_queue();
        self.running.push(sequence);
    }

    fn pause(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        sequence.drop_drafts();
        self.paused.push(sequence);
        self.paused_since += 1;
    }

    /// Takes the blocks of one that is paused, of the one that goes last. False if none has any.
    fn release_paused(&mut self) -> bool {
        let mut holders: Vec<&mut Sequence> = (self.paused.iter_mut())
            .filter(|s| s.has_blocks())
            .collect();
        let claims: Vec<Claim<'_>> = holders.iter().map(|s| s.claim()).collect();
        let Some(last) = who_goes_last(&claims) else {
            return false;
        };
        holders[last].preempt();
        self.preempted_since += 1;
        true
    }

    /// The next of a tenant's that are paused.
    pub(crate) fn first_paused(&self, tenant: &str) -> Option<Rank> {
        let own = self.paused.iter().filter(|s| **s.tenant() == *tenant);
        own.map(Sequence::rank).min()
    }

    /// Goes on with the one of this rank, if there is room for it.
    pub(crate) fn resume(&mut self, rank: Rank) -> bool {
        let Some(index) = self.paused.iter().position(|s| s.rank() == rank) else {
            return false;
        };
        let mut sequence = self.paused.remove(index);
        let had_blocks = sequence.has_blocks();
        let goes_on = self.make_room(&mut sequence);
        if goes_on {
            self.running.push(sequence);
        } else {
            if !had_blocks {
                // What it found of its beginning is for others to use until its turn comes.
                sequence.preempt();
            }
            self.paused.push(sequence);
        }
        goes_on
    }

    /// Forgets those that were cancelled.
    pub(crate) fn retire_cancelled(&mut self) {
        self.running.retain(|s| !s.is_cancelled());
        self.paused.retain(|s| !s.is_cancelled());
    }

    /// The tenants of those in hand, each once for every sequence.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.running
            .iter()
            .chain(&self.paused)
            .map(Sequence::tenant)
    }

    /// The tenants of those that are paused.
    pub(crate) fn paused_tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.paused.iter().map(Sequence::tenant)
    }

    /// Has every sequence know what its tenant can claim.
    pub(crate) fn set_standings(&mut self, of: impl Fn(&Tenant) -> Standing) {
        for sequence in self.running.iter_mut().chain(&mut self.paused) {
            sequence.standing = of(sequence.tenant());
        }
    }

    /// Tokens that were served since it was asked last, by tenant; one may come several times.
    pub(crate) fn take_served(&mut self) -> Vec<(Tenant, usize)> {
        std::mem::take(&mut self.served)
    }

    /// Gets the blocks for the shares. If there are too few, drafts are given up, then what paused sequences hold, then
    /// those pay who go last.
    pub(super) fn get_blocks(&mut self, shares: &mut Vec<usize>) {
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &mut self.running[index];
            if sequence.grow(shares[index]) {
                index += 1;
            } else if sequence.pending().drafts > 0 {
                sequence.drop_drafts();
                shares[index] = shares[index].min(sequence.pending().tokens);
            } else if !self.release_paused() {
                let running: Vec<Claim<'_>> = self.running.iter().map(Sequence::claim).collect();
                // There is at least the one that wants more.
                let last = who_goes_last(&running).unwrap_or(index);
                shares.remove(last);
                self.pause(last);
                self.release_paused();
                index -= usize::from(last < index);
            }
        }
    }
}
