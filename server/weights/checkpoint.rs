//! A model on disk, opened: the room's door.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::config::ModelConfig;
use super::digest::digest;
use super::dtype::DType;
use super::error::WeightsError;
use super::file::{MappedFile, ModelMemory, read_small};
use super::gguf::{GgufModel, Metadata, read_model, without_tensors};
use super::huggingface::{Directory, SMALL_FILES};
use super::table::TensorTable;
use super::tensor::TensorView;
use super::validate::validate;

/// A model's files, mapped and checked. `Send + Sync`; views borrow from it.
///
/// Mapped files must not be written or cut in place while it lives: replace a model by renaming a new file over the old
/// one, as every downloader does, and `quantize`. Bytes that change change answers, and a file that is cut ends the process
/// (SIGBUS) when what is gone is read; no lock keeps others from it. [`ModelMemory::Copy`] is for where that can happen.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    name: String,
    config: ModelConfig,
    tensors: TensorTable,
    files: Vec<MappedFile>,
    source: Source,
    parameters: u64,
    digest: OnceLock<String>,
}

#[derive(Debug)]
enum Source {
    Gguf(Metadata),
    HuggingFace,
}

impl Checkpoint {
    /// Opens a GGUF file (told by its magic) or a Hugging Face directory and checks that every tensor its architecture
    /// needs is there in the right shape, and no other.
    ///
    /// Reads headers and tables only; the weights stay on disk until they are used.
    ///
    /// # Errors
    /// Whatever is wrong with the files, with the file, the key or the tensor named.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::open_with(path, ModelMemory::Map)
    }

    /// The same, with the weights held in this way. Copied ones take as much memory as the files have bytes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => WeightsError::NotFound {
                path: path.to_owned(),
            },
            _ => WeightsError::Io {
                path: path.to_owned(),
                source,
            },
        })?;
        if metadata.is_dir() {
            Self::open_directory(path, memory)
        } else {
            Self::open_gguf(path, memory)
        }
    }

    fn open_gguf(path: &Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        let file = MappedFile::open(path, memory)?;
        let GgufModel {
            config,
            tensors,
            metadata,
            parameters,
        } = read_model(file.bytes(), path)?;
        let name = metadata
            .get_str("general.name")
            .filter(|name| !name.trim().is_empty());
        Ok(Self {
            path: path.to_owned(),
            name: name.map_or_else(|| file_name(path, true), str::to_owned),
            config,
            tensors,
            files: vec![file],
            source: Source::Gguf(metadata),
            parameters,
            digest: OnceLock::new(),
        })
    }

    fn open_directory(path: &Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        let Directory {
            config,
            name,
            tensors,
            files,
        } = Directory::open(path, memory)?;
        let parameters = validate(&config, &tensors, path)?;
        Ok(Self {
            path: path.to_owned(),
            name: name.unwrap_or_else(|| file_name(path, false)),
            config,
            tensors,
            files,
            source: Source::HuggingFace,
            parameters,
            digest: OnceLock::new(),
        })
    }

    /// Architecture and sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's own name, else that of its file or directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file or directory that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hex BLAKE3 of all that the model's answers depend on: its weights, configuration and tokenizer. Computed once, at
    /// the first call, from whole files up to 1 GiB and from samples of larger ones.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            let mut small = Vec::new();
            if let Some(directory) = self.directory() {
                for name in SMALL_FILES {
                    // A file that cannot be read now counts as absent: whoever needs it reports it.
                    if let Ok(Some(contents)) = read_small(directory, name) {
                        small.push((name, contents));
                    }
                }
            }
            digest(&small, &self.files)
        })
    }

    /// Number of parameters; shared ones count once.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Bytes of all tensors as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.tensors
            .iter()
            .map(|(_, entry)| entry.range.len() as u64)
            .sum()
    }

    /// Whether most of the parameters are stored as Q4_0 or Q4_1.
    pub fn is_in_four_bits(&self) -> bool {
        let four_bits = (self.tensors.iter())
            .filter(|(_, entry)| matches!(entry.dtype, DType::Q4_0 | DType::Q4_1))
            .map(|(_, entry)| entry.elements() as u64);
        four_bits.sum::<u64>() * 2 > self.parameters
    }

    /// Whether there is a tensor of this canonical name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.get(name).is_some()
    }

    /// The tensor of this canonical name.
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`]; never for a tensor that the architecture needs, as `open` has checked.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, WeightsError> {
        let file = self
            .tensors
            .get(name)
            .and_then(|entry| self.files.get(entry.file));
        file.and_then(|file| self.tensors.view(name, file.bytes()))
            .ok_or_else(|| WeightsError::NoSuchTensor {
                path: self.path.clone(),
                tensor: name.to_owned(),
            })
    }

    /// Names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name)
    }

    /// The rotary inverse frequencies `[rotary_dim / 2]` with every scaling applied, be it from the configuration or from
    /// `rope_freqs.weight`. Empty for GPT-2.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let factors = self
            .tensor("rope_freqs.weight")
            .map(|tensor| tensor.to_f32())
            .ok();
        self.config.inverse_frequencies(factors.as_deref())
    }

    /// The metadata of a GGUF file.
    pub fn gguf_metadata(&self) -> Option<&Metadata> {
        match &self.source {
            Source::Gguf(metadata) => Some(metadata),
            Source::HuggingFace => None,
        }
    }

    /// What is in a GGUF file apart from tensors, as a GGUF file of its own.
    pub(super) fn gguf_without_tensors(&self) -> Result<Option<Vec<u8>>, WeightsError> {
        let (Source::Gguf(_), [file]) = (&self.source, self.files.as_slice()) else {
            return Ok(None);
        };
        let without = without_tensors(file.bytes()).map_err(|source| WeightsError::Gguf {
            path: self.path.clone(),
            source,
        })?;
        Ok(Some(without))
    }

    /// The directory of a Hugging Face checkpoint.
    pub fn directory(&self) -> Option<&Path> {
        match &self.source {
            Source::Gguf(_) => None,
            Source::HuggingFace => Some(&self.path),
        }
    }
}

/// The last part of a path, without its extension if it has one that should go; "model" where there is none.
fn file_name(path: &Path, without_extension: bool) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = if without_extension {
        path.file_stem()
    } else {
        path.file_name()
    };
    name.map_or_else(
        || "model".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
