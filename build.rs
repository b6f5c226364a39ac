//! Compiles the protos without `protoc`, and lets the binaries find libtorch by themselves.

use std::env;
use std::path::PathBuf;

use prost::Message;

// How a program is linked is no matter of the library that needs it: Cargo does not hand such arguments on.
#[allow(
    dead_code,
    reason = "the build script of the engine on libtorch needs more of it"
)]
#[path = "server/engine-torch/link.rs"]
mod link;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    protos()?;
    link::arguments()?;
    Ok(())
}

fn protos() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let ours = ["explain", "embed", "corpus", "model", "admin"]
        .map(|n| format!("codeexplainer/v1/{n}.proto"));
    let open = "inference/grpc_service.proto".to_owned();
    let set = protox::compile(ours.into_iter().chain([open]), ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // gRPC reflection answers from this.
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        // Which counts what a message repeats before it makes anything of it.
        .codec_path("crate::api::codec::BoundedCodec")
        .compile_fds(set)?;
    Ok(())
}
