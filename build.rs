//! Compiles the protos without `protoc`, lets the binaries find libtorch by themselves, and compiles the C++ shim of the
//! `cuda` feature.

use std::env;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    protos()?;
    libtorch();
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        cuda_shim()?;
    }
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

/// The binaries look for libtorch beside themselves (`../lib`, as in the container image) and where they were built.
fn libtorch() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    let Some(lib) = libtorch_directory().map(|libtorch| libtorch.join("lib")) else {
        return;
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // Nothing names a symbol of it: it registers its operators when it is loaded, so it must be linked all the same.
    let cuda = lib.join("libtorch_cuda.so");
    if cuda.exists() {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg={}", cuda.display());
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
}

fn libtorch_directory() -> Option<PathBuf> {
    let libtorch = PathBuf::from(env::var_os("LIBTORCH")?);
    Some(libtorch.canonicalize().unwrap_or(libtorch))
}

/// at::cuda::CUDAGraph, as C functions.
fn cuda_shim() -> Result<(), String> {
    const SHIM: &str = "server/engine/torch/graphs/shim.cpp";
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let libtorch = libtorch_directory().ok_or("the cuda feature needs LIBTORCH to be set")?;
    if !libtorch.join("lib/libtorch_cuda.so").exists() {
        return Err(format!(
            "{} is no CUDA build of libtorch: it has no lib/libtorch_cuda.so. Build without the cuda feature, or set \
             LIBTORCH to one (`make check-cuda` fetches one)",
            libtorch.display()
        ));
    }
    // Where CUDA is installed, or the wheels beside torch's that have its headers and runtime.
    let cuda = env::var_os("CUDA_HOME")
        .map(PathBuf::from)
        .into_iter()
        .chain(libtorch.parent().map(|wheels| wheels.join("nvidia/cu13")))
        .chain([PathBuf::from("/usr/local/cuda")])
        .find(|cuda| cuda.join("include/cuda_runtime.h").exists())
        .ok_or("cuda_runtime.h is not found: set CUDA_HOME to where CUDA is installed")?;
    let runtime = [
        "lib64/libcudart.so",
        "lib/libcudart.so",
        "lib/libcudart.so.13",
    ]
    .map(|library| cuda.join(library))
    .into_iter()
    .find(|library| library.exists())
    .ok_or(format!("{} has no libcudart.so", cuda.display()))?;
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .file(SHIM)
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .include(cuda.join("include"))
        .flag("-Wno-unused-parameter")
        .try_compile("code_explainer_cuda")
        .map_err(|error| error.to_string())?;
    // By path: the wheel's runtime has no name that the linker would look for.
    for library in [libtorch.join("lib/libc10_cuda.so"), runtime] {
        println!("cargo:rustc-link-arg={}", library.display());
        if let Some(directory) = library.parent() {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{}", directory.display());
        }
    }
    Ok(())
}
