//! The libtorch engine: the same eager code on the CPU and on CUDA, in every precision.
//!
//! The only crate that names `tch`. Reading order: [`load`](mod@load) turns a checkpoint into tensors,
//! `device` says where they live, `linear` how matrices are stored and multiplied by, `batch` turns a plan into index tensors,
//! `model` is the network, `kv_cache` the pool that its attention reads and writes, `torchscript` the same network as a module
//! in a file, `graphs` its steps recorded for CUDA, `encoder` the network that turns texts into vectors, `error` what becomes of an exception in libtorch.
//!
//! # Exactness
//! libtorch picks a matrix multiplication by its shape, so the last bits of a logit can depend on how many rows a step has
//! and on how a prompt was cut into chunks. Where two logits are equal to about 1e-4 that can change a greedy token. The
//! native engine does not have this; this one is for devices and precisions that only libtorch has.

mod backend;
mod batch;
mod device;
mod encoder;
mod error;
mod graphs;
mod kv_cache;
mod linear;
mod load;
mod model;
mod torchscript;

pub use backend::TorchBackend;
pub use encoder::{TorchEncoder, load_encoder};
pub use load::{export_torchscript, load};
pub use torchscript::module_precision;

/// How many CUDA devices libtorch sees.
pub fn cuda_devices() -> usize {
    usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
}
