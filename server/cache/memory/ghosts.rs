//! How often entries were used that are not there any more.

/// Places for each entry that there was at the first eviction: so few take another's place.
const PLACES_PER_ENTRY: usize = 4;
const LEAST_PLACES: usize = 64;
const MOST_PLACES: usize = 1 << 20;

/// Counts of uses by hash, in a table that forgets: a later entry takes the place of an earlier one. Without it, an entry
/// that is used often, but not often enough to stay, would start from nothing each time.
#[derive(Debug, Default)]
pub(super) struct Ghosts(Vec<Ghost>);

#[derive(Debug, Clone, Copy, Default)]
struct Ghost {
    /// Of the bits of the hash that do not pick the place.
    print: u32,
    times: u32,
}

impl Ghosts {
    /// An entry of this hash left, of so many.
    pub(super) fn remember(&mut self, hash: u64, times: u32, entries: usize) {
        if self.0.is_empty() {
            let places = (entries * PLACES_PER_ENTRY).next_power_of_two();
            self.0 = vec![Ghost::default(); places.clamp(LEAST_PLACES, MOST_PLACES)];
        }
        let print = print(hash);
        *self.place(hash) = Ghost { print, times };
    }

    /// How often an entry of this hash was used before it left; 0 if that is not known.
    pub(super) fn recall(&mut self, hash: u64) -> u32 {
        if self.0.is_empty() {
            return 0;
        }
        let ghost = std::mem::take(self.place(hash));
        if ghost.print == print(hash) {
            ghost.times
        } else {
            0
        }
    }

    /// Halves the counts.
    pub(super) fn fade(&mut self) {
        self.0.iter_mut().for_each(|ghost| ghost.times /= 2);
    }

    fn place(&mut self, hash: u64) -> &mut Ghost {
        let mask = self.0.len() - 1;
        &mut self.0[hash as usize & mask]
    }
}

fn print(hash: u64) -> u32 {
    (hash >> 32) as u32
}
