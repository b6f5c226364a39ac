//! The native CPU engine: packed weights (fp32, int8 or int4), own kernels, own threads.
//!
//! A step is exact in this sense: a sequence's logits have the same bits alone and in any batch, in any chunks, with any
//! number of threads and any instruction set, because every number is computed in an order that only its own row fixes.
//!
//! Reading order: [`load`](mod@load) makes a model out of files; [`shapes`] says which matrices it has, [`source`] where
//! they come from, [`quantize`] makes weights small, [`pack`](mod@pack) writes them to be mapped; [`backend`] turns plans
//! into batches, [`batch`] is a pass's rows, [`model`] is the pass, [`linear`] a layer's weights, [`kernels`] the
//! operators, [`pool`] the threads, [`cores`] where they run, [`buffer`] the memory,
//! [`profile`] where the time goes.

pub mod backend;
pub mod batch;
pub mod buffer;
pub mod cores;
pub mod kernels;
pub mod linear;
pub mod load;
pub mod model;
pub mod pack;
pub mod pool;
pub mod profile;
pub mod quantize;
pub mod shapes;
pub mod source;

pub use backend::NativeBackend;
pub use load::{load, load_for};
pub use pack::{open_packed, open_packed_with, pack};
pub use shapes::lacks;
