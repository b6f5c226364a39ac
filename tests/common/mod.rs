//! What the tests share.

pub(crate) mod awkward_shapes;
pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod certificates;
pub(crate) mod divergence;
pub(crate) mod envoy;
pub(crate) mod frames;
pub(crate) mod http2;
pub(crate) mod keys;
pub(crate) mod minilm;
pub(crate) mod model_files;
pub(crate) mod packed;
pub(crate) mod programs;
pub(crate) mod random;
pub(crate) mod redis;
pub(crate) mod redis_cluster;
pub(crate) mod redis_load;
pub(crate) mod sequences;
pub(crate) mod server;
pub(crate) mod smollm;
pub(crate) mod sockets;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod token_ids;
pub(crate) mod wire;
