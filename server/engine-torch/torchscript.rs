//! The network as a TorchScript module: traced, saved, and served by libtorch's own interpreter with its fuser.
//!
//! One traced function serves prefill and decode, for any number of rows, sequences and blocks: the model takes every size
//! from its index tensors. A module has its weights in it, as constants, so there is nothing left to freeze. It lies beside a
//! description, `MODULE.json`: whose model it is, and the digest by which a cut or changed file is found before libtorch
//! reads it.

use std::fs;
use std::path::{Path, PathBuf};

use code_explainer_engine::{BlockId, EngineError, Precision, SequenceStep, StepPlan};
use code_explainer_weights::Checkpoint;
use code_explainer_weights::model_files;
use serde::{Deserialize, Serialize};
use tch::{CModule, Device, Tensor};

use super::batch::{Batch, Grouping, Indices, Outputs};
use super::kv_cache::{KvCache, KvShape};
use super::model::Model;
use crate::error::{Result, engine_error};

/// What a module's description says that it is.
const FORMAT: &str = "code-explainer torchscript";
/// Changes when the module's inputs or their meaning do.
const VERSION: u32 = 1;
const METHOD: &str = "forward";

/// A module on a device. Its inputs are the KV pool and the tensors of a batch with two groups; its output is the logits.
#[derive(Debug)]
pub(super) struct Script {
    module: CModule,
}

/// The description beside a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    format: String,
    version: u32,
    /// [`Checkpoint::digest`] of the model.
    model_digest: String,
    architecture: String,
    precision: String,
    layers: usize,
    hidden: usize,
    vocabulary: usize,
    context_length: usize,
    /// "cpu" or "cuda": weights in 4 bits are packed as the device wants them.
    pub(super) device: String,
    /// Bytes of the weights.
    pub(super) weights_bytes: u64,
    module_bytes: u64,
    /// BLAKE3 of the module's file, in hexadecimal.
    module_digest: String,
}

impl Script {
    /// Logits of the batch's outputs, `[outputs, vocabulary]`; writes to the cache.
    pub(super) fn forward(&self, batch: Batch, cache: &KvCache) -> Result<Tensor> {
        let mut inputs = vec![cache.pool.shallow_clone()];
        inputs.extend(batch.into_tensors());
        Ok(self.module.method_ts(METHOD, &inputs)?)
    }

    /// Checks a module against the model that it is to serve, and loads it.
    ///
    /// # Errors
    /// [`EngineError::Module`] if it is missing, not a module, cut or changed, another version's or another model's.
    pub(super) fn load(
        path: &Path,
        checkpoint: &Checkpoint,
        device: Device,
    ) -> Result<(Self, Description, Precision)> {
        let error = |reason: String| EngineError::Module {
            path: path.to_owned(),
            reason,
        };
        let description = Description::read(path).map_err(error)?;
        let precision = description.check(checkpoint, device).map_err(error)?;
        description.check_file(path).map_err(error)?;
        tch::jit::f_set_tensor_expr_fuser_enabled(true)?;
        tch::jit::f_set_graph_executor_optimize(true)?;
        let unreadable = |e| error(format!("libtorch cannot read it: {}", engine_error(e)));
        let module = CModule::load_on_device(path, device).map_err(unreadable)?;
        Ok((Self { module }, description, precision))
    }
}

/// The precision of the module at `path`, if there is one.
pub fn module_precision(path: &Path) -> Option<Precision> {
    Description::read(path).ok()?.precision.parse().ok()
}

/// Traces `model`, which is `checkpoint`'s in `precision` on `device`, and writes it to `path` and its description beside it.
///
/// Files are written under other names and renamed, so that what has the name is whole.
///
/// # Errors
/// [`EngineError::Module`] if the files cannot be written, [`EngineError::Torch`] if libtorch cannot trace the model.
pub(super) fn save(
    model: &Model,
    checkpoint: &Checkpoint,
    (precision, device): (Precision, Device),
    weights_bytes: u64,
    path: &Path,
) -> Result<()> {
    let error = |reason: String| EngineError::Module {
        path: path.to_owned(),
        reason,
    };
    let unfinished = beside(path, "unfinished");
    let module = trace(model, checkpoint, device)?;
    module
        .save(&unfinished)
        .map_err(|e| error(format!("it cannot be written: {}", engine_error(e))))?;
    let write = || -> std::io::Result<()> {
        let config = checkpoint.config();
        let (module_bytes, module_digest) = fingerprint(&unfinished)?;
        let description = Description {
            format: FORMAT.to_owned(),
            version: VERSION,
            model_digest: checkpoint.digest().to_owned(),
            architecture: config.architecture.to_string(),
            precision: precision.to_string(),
            layers: config.layers,
            hidden: config.hidden,
            vocabulary: config.vocabulary,
            context_length: config.context_length,
            device: kind_of(device).to_owned(),
            weights_bytes,
            module_bytes,
            module_digest,
        };
        let text = serde_json::to_string_pretty(&description)? + "\n";
        let new_description = beside(path, "json.unfinished");
        fs::write(&new_description, text)?;
        // A new module under an old description is found by its digest.
        fs::rename(&unfinished, path)?;
        fs::rename(new_description, beside(path, "json"))
    };
    Ok(write().map_err(|e| error(format!("it cannot be written: {e}")))?)
}

/// Runs the model once on a small batch of both groups, and keeps what libtorch was asked to do.
fn trace(model: &Model, checkpoint: &Checkpoint, device: Device) -> Result<CModule> {
    const BLOCK_TOKENS: usize = 16;
    let config = checkpoint.config();
    let tokens = [0; 20];
    let long = &tokens[..tokens.len().min(config.context_length)];
    let blocks: [BlockId; 6] = std::array::from_fn(|block| block as BlockId);
    let sequence = |tokens, blocks| SequenceStep {
        tokens,
        past: 0,
        blocks,
        sample: None,
    };
    let plan = [
        sequence(&tokens[..1], &blocks[..2]),
        sequence(&tokens[..1], &blocks[2..4]),
        sequence(long, &blocks[4..]),
    ];
    let plan = StepPlan { sequences: &plan };
    let batch = Indices::new(&plan, Outputs::Last, Grouping::Two, BLOCK_TOKENS).batch(device)?;
    let shape = KvShape {
        layers: config.layers,
        blocks: blocks.len(),
        block_tokens: BLOCK_TOKENS,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    };
    let mut inputs = vec![KvCache::new(shape, model.kind, device)?.pool];
    inputs.extend(batch.into_tensors());

    let mut failure = None;
    let mut run = |inputs: &[Tensor]| {
        forward(model, config.layers, inputs).map_or_else(
            |error| {
                failure = Some(error);
                Vec::new()
            },
            |logits| vec![logits],
        )
    };
    let module = CModule::create_by_tracing("CodeExplainer", METHOD, &inputs, &mut run)?;
    match failure {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

fn forward(model: &Model, layers: usize, inputs: &[Tensor]) -> Result<Tensor> {
    let wrong = || EngineError::Broken("a trace with other inputs");
    let (pool, batch) = inputs.split_first().ok_or_else(wrong)?;
    let batch = Batch::from_tensors(batch).ok_or_else(wrong)?;
    model.forward(&batch, &KvCache::of(pool.shallow_clone(), layers)?)
}

impl Description {
    /// The description of the module at `path`. Errors are sentences about the module.
    fn read(path: &Path) -> std::result::Result<Self, String> {
        if !path.is_file() {
            return Err("there is no such file".to_owned());
        }
        let own = beside(path, "json");
        let text = model_files::read_named(&own).map_err(|e| {
            format!(
                "its description {} cannot be read ({e}); `export --torchscript` writes both",
                own.display()
            )
        })?;
        serde_json::from_slice(&text)
            .map_err(|e| format!("its description {} is broken: {e}", own.display()))
    }

    /// Whether it is that of this model on such a device; its precision.
    fn check(
        &self,
        checkpoint: &Checkpoint,
        device: Device,
    ) -> std::result::Result<Precision, String> {
        if self.format != FORMAT || self.version != VERSION {
            return Err(format!(
                "it is '{}' version {}, expected '{FORMAT}' version {VERSION}: export it again",
                self.format, self.version
            ));
        }
        let config = checkpoint.config();
        let architecture = config.architecture.to_string();
        for (what, its, ours) in [
            ("architecture", &self.architecture, &architecture),
            (
                "model digest",
                &self.model_digest,
                &checkpoint.digest().to_owned(),
            ),
        ] {
            if its != ours {
                return Err(format!(
                    "it is a module of another model: its {what} is {its}, that of {} is {ours}",
                    checkpoint.name()
                ));
            }
        }
        for (what, its, ours) in [
            ("layers", self.layers, config.layers),
            ("hidden size", self.hidden, config.hidden),
            ("vocabulary", self.vocabulary, config.vocabulary),
            ("context length", self.context_length, config.context_length),
        ] {
            if its != ours {
                return Err(format!(
                    "it has another shape: its {what} is {its}, that of {} is {ours}",
                    checkpoint.name()
                ));
            }
        }
        let precision: Precision = self.precision.parse()?;
        let device = kind_of(device);
        if precision == Precision::Int4 && self.device != device {
            return Err(format!(
                "its weights are packed for {}, not for {device}: export it with --device {device}",
                self.device
            ));
        }
        Ok(precision)
    }

    fn check_file(&self, path: &Path) -> std::result::Result<(), String> {
        let (bytes, digest) = fingerprint(path).map_err(|e| format!("it cannot be read: {e}"))?;
        if bytes != self.module_bytes {
            return Err(format!(
                "it is cut or not a module: it has {bytes} bytes, its description says {}",
                self.module_bytes
            ));
        }
        if digest != self.module_digest {
            return Err("it was changed: its digest is not the one in its description".to_owned());
        }
        Ok(())
    }
}

/// A file's length, and the BLAKE3 of its contents in hexadecimal.
fn fingerprint(path: &Path) -> std::io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// `path` with an ending more.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn kind_of(device: Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}
