//! Traces of requests, the same in each run.

use code_explainer::cache::Name;

/// xorshift64 (G. Marsaglia, 2003): enough for traces, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks by Zipf's law: the chance of rank r is proportional to 1/r^s.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(names: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let mut chances: Vec<f64> = (1..=names)
            .map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            })
            .collect();
        chances.iter_mut().for_each(|chance| *chance /= sum);
        Self(chances)
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let unit = random.unit();
        self.0.partition_point(|chance| *chance < unit) as u32
    }
}

/// Requests for `names` names, by Zipf's law.
pub(crate) fn zipf(requests: usize, names: usize, s: f64) -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(names, s), Random(0x9e37_79b9_7f4a_7c15));
    (0..requests).map(|_| zipf.draw(&mut random)).collect()
}

/// Requests for `names` names, each as likely as any other.
#[allow(dead_code, reason = "one of two programs uses it")]
pub(crate) fn uniform(requests: usize, names: usize) -> Vec<u32> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let draw = |_| (random.next() % names as u64) as u32;
    (0..requests).map(draw).collect()
}

/// As `zipf`, but every now and then somebody walks through a repository: every other request is then for a name that was
/// never asked for before and will not be again.
#[allow(dead_code, reason = "one of two programs uses it")]
pub(crate) fn scanned(requests: usize, names: usize, s: f64) -> Vec<u32> {
    const EVERY: usize = 40_000;
    const SCAN: usize = 30_000;
    let (zipf, mut random) = (Zipf::new(names, s), Random(0x9e37_79b9_7f4a_7c15));
    let mut fresh = names as u32;
    (0..requests)
        .map(|at| {
            if at % EVERY < SCAN && at % 2 == 1 {
                fresh += 1;
                return fresh;
            }
            zipf.draw(&mut random)
        })
        .collect()
}

/// A name as a key's hash would be.
pub(crate) fn name(n: u32) -> Name {
    Name(*blake3::hash(&n.to_le_bytes()).as_bytes())
}
