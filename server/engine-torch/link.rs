//! How programs that have libtorch in them are linked; for build scripts.

use std::env;
use std::path::PathBuf;

/// Has the program look for libtorch beside itself (`../lib`, as in the container image) and where it was built; with the
/// feature `cuda`, for the runtime of CUDA, too.
pub(crate) fn arguments() -> Result<(), String> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    let Some(lib) = libtorch().map(|libtorch| libtorch.join("lib")) else {
        return Ok(());
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // Nothing names a symbol of it: it registers its operators when it is loaded, so it must be linked all the same.
    let cuda = lib.join("libtorch_cuda.so");
    if cuda.exists() {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg={}", cuda.display());
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // By path: the wheel's runtime has no name that the linker would look for.
        for library in [lib.join("libc10_cuda.so"), Cuda::find()?.runtime] {
            println!("cargo:rustc-link-arg={}", library.display());
            if let Some(directory) = library.parent() {
                println!("cargo:rustc-link-arg=-Wl,-rpath,{}", directory.display());
            }
        }
    }
    Ok(())
}

/// Where libtorch is, if `LIBTORCH` says so.
pub(crate) fn libtorch() -> Option<PathBuf> {
    let libtorch = PathBuf::from(env::var_os("LIBTORCH")?);
    Some(libtorch.canonicalize().unwrap_or(libtorch))
}

/// What the feature `cuda` is built with.
pub(crate) struct Cuda {
    /// Headers, of libtorch and of CUDA.
    pub(crate) include: [PathBuf; 3],
    /// libcudart.
    pub(crate) runtime: PathBuf,
}

impl Cuda {
    /// Beside libtorch, or where CUDA is installed.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub(crate) fn find() -> Result<Self, String> {
        let libtorch = libtorch().ok_or("the cuda feature needs LIBTORCH to be set")?;
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
        let include = [
            libtorch.join("include"),
            libtorch.join("include/torch/csrc/api/include"),
            cuda.join("include"),
        ];
        Ok(Self { include, runtime })
    }
}
