//! Compiles the contract under `proto/` into Rust, without `protoc`.

use std::error::Error;
use std::path::Path;

/// Messages that the command line prints as JSON just as they came.
const PRINTED: &[&str] = &[
    "GetModelResponse",
    "Limits",
    "GetPerformanceReportResponse",
    "ModelSection",
    "MemorySection",
    "CacheSection",
    "RequestSection",
    "BatchSection",
    "GetCacheStatsResponse",
    "CacheLevelStats",
    "CacheEvictions",
    "Document",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../proto")
        .canonicalize()?;
    println!(
        "cargo::rerun-if-changed={}",
        root.join("codeexplainer").display()
    );

    let files = ["explain", "embed", "corpus", "model", "admin"]
        .map(|name| root.join(format!("codeexplainer/v1/{name}.proto")));
    let descriptors = protox::compile(files, [&root])?;

    // The server's side is generated too: the tests answer by it.
    let mut builder = tonic_prost_build::configure();
    for name in PRINTED {
        builder = builder.type_attribute(
            format!(".codeexplainer.v1.{name}"),
            "#[derive(serde::Serialize)]",
        );
    }
    // A point in time has no form of its own in JSON.
    builder = builder.field_attribute(
        ".codeexplainer.v1.Document.added",
        "#[serde(serialize_with = \"crate::corpus::seconds\")]",
    );
    builder.compile_fds(descriptors)?;
    Ok(())
}
