//! The machine's limits, by the same threads and instructions that the engine uses.

use std::time::Instant;

use code_explainer_engine_native::buffer::Buffer;
use code_explainer_engine_native::kernels::isa::Isa;
use code_explainer_engine_native::kernels::{Compute, limits};
use code_explainer_engine_native::pool::Pool;

/// Larger than any cache.
const READ_FLOATS: usize = 64 << 20;
const ROUNDS: usize = 8;

/// The fastest that was seen. Measured before and after the engine, so that a machine that slows down shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes a second by streaming reads.
    pub(crate) bandwidth: f64,
    /// fp32 operations a second.
    pub(crate) fma: f64,
    /// Operations on bytes a second.
    pub(crate) vnni: Option<f64>,
}

/// What limits are measured with.
pub(crate) struct Meter {
    compute: Compute,
    data: Buffer,
}

impl Meter {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let mut data = Buffer::zeroed(READ_FLOATS, "a stream to read")?;
        // Pages that were never written to are all the same one.
        data.as_mut_slice().fill(1.0);
        let compute = Compute {
            pool: Pool::new(0)?,
            isa: Isa::detect(),
        };
        Ok(Self { compute, data })
    }

    pub(crate) fn threads(&self) -> usize {
        self.compute.pool.threads()
    }

    pub(crate) fn isa(&self) -> String {
        self.compute.isa.to_string()
    }

    pub(crate) fn measure(&self) -> Limits {
        let rate = |work: &dyn Fn() -> u64| {
            let once = |_| {
                let began = Instant::now();
                let done = work();
                done as f64 / began.elapsed().as_secs_f64()
            };
            (0..ROUNDS).map(once).fold(0.0, f64::max)
        };
        let bytes = || {
            limits::read(&self.compute, self.data.as_slice());
            self.data.bytes()
        };
        let products = || limits::byte_products(&self.compute, 100_000).unwrap_or(0);
        let vnni = rate(&products);
        Limits {
            bandwidth: rate(&bytes),
            fma: rate(&|| limits::multiply_add(&self.compute, 100_000)),
            vnni: (vnni > 0.0).then_some(vnni),
        }
    }
}

impl Limits {
    /// The faster of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            bandwidth: self.bandwidth.max(other.bandwidth),
            fma: self.fma.max(other.fma),
            vnni: (self.vnni.zip(other.vnni)).map(|(a, b)| a.max(b)),
        }
    }
}
