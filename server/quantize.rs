//! The command `quantize`: from a model's files to a packed model, which is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use code_explainer_engine::{EngineError, Precision};
use code_explainer_engine_native as native;
use code_explainer_text::Text;
use code_explainer_weights::packed::write::sync_directory;
use code_explainer_weights::{Checkpoint, PackedModel};

use crate::config::QuantizeConfig;
use crate::model::{Model, ModelError};

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The model's name.
    pub model: String,
    /// Its family.
    pub architecture: &'static str,
    /// What its weights are now.
    pub precision: Precision,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// Bytes of all files.
    pub files_bytes: u64,
    /// How long it took.
    pub time: Duration,
    /// What the operator should know about the model.
    pub notes: Vec<String>,
}

/// Why there is no packed model now.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// Where it should go.
    #[error("{path}: {problem}")]
    Output {
        /// As asked for.
        path: PathBuf,
        /// What is wrong with that.
        problem: String,
    },
    /// What should be quantized.
    #[error(transparent)]
    Input(#[from] ModelError),
    /// It is a packed model already.
    #[error("{path}: is quantized already; give the model that it was made from")]
    Packed {
        /// As asked for.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("{0}")]
    Write(EngineError),
}

/// Quantizes a model. `progress` gets the number of blocks that are done, and of all.
///
/// The directory is written beside its place under a hidden name, opened again with all its checksums, and renamed last.
///
/// # Errors
/// [`QuantizeError`]; then nothing is at the output that was not there before.
pub fn quantize(
    config: &QuantizeConfig,
    mut progress: impl FnMut(usize, usize),
) -> Result<Summary, QuantizeError> {
    let start = Instant::now();
    let QuantizeConfig {
        bits,
        input,
        output,
    } = config;
    let parent = check_output(output)?;
    if PackedModel::is_at(input) {
        return Err(QuantizeError::Packed {
            path: input.clone(),
        });
    }
    let checkpoint = Checkpoint::open(input).map_err(ModelError::from)?;
    // A model that could not be served is not worth the time.
    let text = Text::from_checkpoint(&checkpoint).map_err(ModelError::from)?;
    Model::check_vocabulary(input, &text, checkpoint.config())?;

    let partial = Partial::create(&parent, output)?;
    let layers = checkpoint.config().layers;
    let size = native::pack(&checkpoint, *bits, &partial.0, |done| {
        progress(done, layers)
    })
    .map_err(failed)?;
    let written = native::open_packed(&partial.0).map_err(|e| QuantizeError::Write(e.into()))?;
    fs::rename(&partial.0, output).map_err(|e| QuantizeError::Output {
        path: output.clone(),
        problem: format!("cannot be put in place: {e}"),
    })?;
    sync_directory(&parent).map_err(|e| QuantizeError::Write(e.into()))?;
    Ok(Summary {
        model: written.name().to_owned(),
        architecture: written.config().architecture.as_str(),
        precision: match bits {
            4 => Precision::Int4,
            _ => Precision::Int8,
        },
        parameters: written.parameters(),
        weights_bytes: size.weights,
        files_bytes: size.files,
        time: start.elapsed(),
        notes: written.config().notes.clone(),
    })
}

/// Weights that cannot be quantized are the input's fault, everything else is the disk's.
fn failed(error: EngineError) -> QuantizeError {
    match error {
        EngineError::Unrepresentable { .. } => QuantizeError::Input(error.into()),
        other => QuantizeError::Write(other),
    }
}

/// The directory that the output will be in, if the output can be put there.
fn check_output(output: &Path) -> Result<PathBuf, QuantizeError> {
    let wrong = |problem: &str| QuantizeError::Output {
        path: output.to_owned(),
        problem: problem.to_owned(),
    };
    match fs::read_dir(output).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(wrong("exists and is not empty; give a new directory")),
        Err(_) if output.symlink_metadata().is_ok() => {
            return Err(wrong("exists and is no directory; give a new one"));
        }
        Err(_) => {}
    }
    if output.file_name().is_none() {
        return Err(wrong("has no name that a directory can be made under"));
    }
    let parent = match output.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match parent.is_dir() {
        true => Ok(parent.to_owned()),
        false => Err(wrong(
            "the directory that it should be made in does not exist",
        )),
    }
}

/// A directory under a name that nobody takes for a model; gone with its contents when dropped, unless it was renamed.
struct Partial(PathBuf);

impl Partial {
    fn create(parent: &Path, output: &Path) -> Result<Self, QuantizeError> {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let path = parent.join(format!(".{name}.partial-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(e) => Err(QuantizeError::Output {
                problem: format!("cannot be made: {e}"),
                path,
            }),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename it is not there.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let fp32 = 4 * self.parameters;
        let share = 100.0 * self.weights_bytes as f64 / fp32 as f64;
        writeln!(
            f,
            "{} ({}, {:.1} million parameters) in {}",
            self.model,
            self.architecture,
            self.parameters as f64 / 1e6,
            self.precision
        )?;
        writeln!(
            f,
            "  weights  {:>9.1} MB, {share:.1} % of fp32 ({:.1} MB)",
            mb(self.weights_bytes),
            mb(fp32)
        )?;
        writeln!(f, "  files    {:>9.1} MB", mb(self.files_bytes))?;
        write!(f, "  time     {:>9.1} s", self.time.as_secs_f64())
    }
}
