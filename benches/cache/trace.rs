//! Traces of requests, the same in each run.

use code_explainer_cache::Name;

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

/// How unevenly names are asked for.
pub(crate) const EXPONENT: f64 = 0.9;

/// Requests for `names` names. By kind:
/// - "uniform": each name as likely as any other;
/// - "zipf": by Zipf's law;
/// - "scanned": by Zipf's law, but every now and then somebody walks through a repository, and every other request is then for
///   a name that was never asked for before and will not be again.
pub(crate) fn requests(kind: &str, count: usize, names: usize) -> Vec<u32> {
    const EVERY: usize = 40_000;
    const SCAN: usize = 30_000;
    let (zipf, mut random) = (Zipf::new(names, EXPONENT), Random(0x9e37_79b9_7f4a_7c15));
    let mut fresh = names as u32;
    let request = |at: usize| match kind {
        "uniform" => (random.next() % names as u64) as u32,
        "scanned" if at % EVERY < SCAN && at % 2 == 1 => {
            fresh += 1;
            fresh
        }
        "zipf" | "scanned" => zipf.draw(&mut random),
        _ => panic!("there is no trace of kind {kind}"),
    };
    (0..count).map(request).collect()
}

/// A name as a key's hash would be.
pub(crate) fn name(n: u32) -> Name {
    Name(*blake3::hash(&n.to_le_bytes()).as_bytes())
}
