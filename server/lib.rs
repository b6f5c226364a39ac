//! Code Explainer: a gRPC streaming inference server that explains code with a language model.
//!
//! In reading order, the way an item goes:
//!
//! - [`config`]: what an operator can set.
//! - [`api`]: gRPC and HTTP; the wire's types end there. [`access`]: who may call.
//! - [`request`]: a request that is known to be good. [`identity`]: who it is for.
//! - [`session`]: what is behind a stream of items.
//! - [`explain`]: one item from its request to its last event.
//! - [`code_explainer_code`]: secrets in code, and from a snippet to a prompt. [`code_explainer_text`]: from a prompt to tokens,
//!   and from tokens back to text.
//! - [`embed`]: texts to vectors, by a model and a cache of their own. [`disk`]: databases in files.
//! - [`retrieval`]: what is known of code that is near.
//! - [`code_explainer_cache`]: answers that were given before, replayed as streams.
//! - [`code_explainer_scheduler`]: the queue, continuous batching, and the engine thread.
//! - [`code_explainer_engine`]: the one trait between the scheduler and a device's model; [`code_explainer_engine_native`] and
//!   [`code_explainer_engine_torch`] implement it.
//! - [`code_explainer_weights`]: model files. [`model`]: from files to a tokenizer and a backend. [`quantize`]: from files to files that
//!   a server maps.
//! - [`code_explainer_host`]: what engines and long computations run on, and how long they may take.
//! - [`status`], [`heartbeat`]: the server's life. [`metrics`], [`telemetry`]: what it tells about itself.
//! - [`descriptors`]: how many files and connections may be open.
//! - [`error`]: every way an item can fail.

pub mod access;
pub mod api;
pub mod config;
pub mod descriptors;
pub mod disk;
pub mod embed;
pub mod error;
pub mod explain;
pub mod heartbeat;
pub mod identity;
pub mod metrics;
pub mod model;
pub mod optimize;
pub mod quantize;
pub mod request;
pub mod retrieval;
pub mod run;
pub mod session;
pub mod status;
pub mod telemetry;

/// The wire's types, generated from `proto/`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    tonic::include_proto!("codeexplainer.v1");

    /// The Open Inference Protocol's.
    pub mod inference {
        tonic::include_proto!("inference");
    }

    /// The descriptors of all protos, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use run::{Listeners, ServerIo, run, run_on};
