//! Compiles the C++ shim of the `cuda` feature: at::cuda::CUDAGraph, as C functions.

use std::env;

mod link;

fn main() -> Result<(), String> {
    link::arguments()?;
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    const SHIM: &str = "graphs/shim.cpp";
    println!("cargo:rerun-if-changed={SHIM}");
    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++20").file(SHIM);
    shim.includes(link::Cuda::find()?.include);
    shim.flag("-Wno-unused-parameter");
    (shim.try_compile("code_explainer_cuda")).map_err(|error| error.to_string())
}
