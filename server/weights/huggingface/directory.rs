//! A Hugging Face directory: which files it has and which tensor lies in which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::model_name;
use super::names::canonical_table;
use super::safetensors::SafetensorsTable;
use crate::config::ModelConfig;
use crate::error::WeightsError;
use crate::file::{MappedFile, ModelMemory, read_small};
use crate::model_json;
use crate::table::TensorTable;

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The small files beside the weights on which a model's answers depend.
pub(crate) const SMALL_FILES: [&str; 9] = [
    CONFIG,
    GENERATION_CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
];

/// An opened directory: configuration, tensors by canonical name, and the files they lie in.
pub(crate) struct Directory {
    pub(crate) config: ModelConfig,
    pub(crate) name: Option<String>,
    pub(crate) tensors: TensorTable,
    pub(crate) files: Vec<MappedFile>,
}

impl Directory {
    pub(crate) fn open(directory: &Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        let path = directory.join(CONFIG);
        let Some(json) = read_small(directory, CONFIG)? else {
            let hint = hint(directory, "gguf", "give the path of that GGUF file");
            return Err(WeightsError::NoConfig {
                path: directory.to_owned(),
                hint,
            });
        };
        if json.is_empty() {
            return Err(WeightsError::Empty { path });
        }
        let config = ModelConfig::from_hugging_face(&json);
        let mut config = config.map_err(|source| WeightsError::Config { path, source })?;
        let path = directory.join(GENERATION_CONFIG);
        if let Some(json) = read_small(directory, GENERATION_CONFIG)? {
            config = config
                .with_generation_config(&json)
                .map_err(|source| WeightsError::Config { path, source })?;
        }
        let Weights { files, tables, .. } = Weights::open(directory, memory)?;
        let tensors = canonical_table(&config, &tables)?;
        Ok(Self {
            config,
            name: model_name(&json),
            tensors,
            files,
        })
    }
}

/// The files that hold the tensors, and what each says it holds.
struct Weights<'a> {
    directory: &'a Path,
    memory: ModelMemory,
    files: Vec<MappedFile>,
    tables: Vec<(PathBuf, SafetensorsTable)>,
}

impl<'a> Weights<'a> {
    /// Takes `model.safetensors` if it is there, else what the index lists, else every `*.safetensors`.
    fn open(directory: &'a Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        let mut weights = Self {
            directory,
            memory,
            files: Vec::new(),
            tables: Vec::new(),
        };
        let index = directory.join(INDEX);
        if directory.join(WEIGHTS).exists() {
            weights.add(WEIGHTS)?;
        } else if let Some(json) = read_small(directory, INDEX)? {
            for (shard, expected) in parse_index(&index, &json)? {
                weights.add_shard(&index, &shard, &expected)?;
            }
        } else {
            let shards = files_with_extension(directory, "safetensors")?;
            if shards.is_empty() {
                let convert = "convert it with transformers' save_pretrained";
                let hint = hint(directory, "bin", convert);
                return Err(WeightsError::NoSafetensors {
                    path: directory.to_owned(),
                    hint,
                });
            }
            for shard in shards {
                // A name that is not UTF-8 was not made by any tool that writes models.
                let name = shard.file_name().unwrap_or_default().to_string_lossy();
                weights.add(&name)?;
            }
        }
        Ok(weights)
    }

    fn add_shard(
        &mut self,
        index: &Path,
        name: &str,
        expected: &[String],
    ) -> Result<(), WeightsError> {
        let index = index.to_owned();
        let shard = self.directory.join(name);
        if !shard.exists() {
            let tensor = expected.first().cloned().unwrap_or_default();
            return Err(WeightsError::MissingShard {
                index,
                shard,
                tensor,
            });
        }
        let table = self.add(name)?;
        match expected
            .iter()
            .find(|name| !table.tensors.contains_key(*name))
        {
            None => Ok(()),
            Some(tensor) => Err(WeightsError::NotInShard {
                index,
                shard,
                tensor: tensor.clone(),
            }),
        }
    }

    fn add(&mut self, name: &str) -> Result<&SafetensorsTable, WeightsError> {
        let path = self.directory.join(name);
        let file = MappedFile::open_in(self.directory, name, self.memory)?;
        let table = SafetensorsTable::parse(file.bytes()).map_err(|source| {
            let path = path.clone();
            WeightsError::Safetensors { path, source }
        })?;
        self.files.push(file);
        self.tables.push((path, table));
        Ok(&self.tables[self.tables.len() - 1].1)
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that an index names, each with the tensors it should hold.
fn parse_index(path: &Path, json: &[u8]) -> Result<BTreeMap<String, Vec<String>>, WeightsError> {
    let broken = |reason| WeightsError::Index {
        path: path.to_owned(),
        reason,
    };
    let Index { weight_map } = model_json::parse(json)
        .map_err(|e| broken(format!("not a valid index of tensors: {e}")))?;
    if weight_map.is_empty() {
        return Err(broken("the weight_map is empty".into()));
    }
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in weight_map {
        // A shard lies beside the index; a path could lead anywhere.
        if Path::new(&shard)
            .file_name()
            .is_none_or(|name| name != shard.as_str())
        {
            return Err(broken(format!(
                "tensor '{tensor}' lies in '{shard}', which is not the name of a file beside the index"
            )));
        }
        shards.entry(shard).or_default().push(tensor);
    }
    Ok(shards)
}

fn files_with_extension(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, WeightsError> {
    let io = |source| WeightsError::Io {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a directory has instead, and what to do about it.
fn hint(directory: &Path, extension: &str, advice: &str) -> String {
    let found = files_with_extension(directory, extension).unwrap_or_default();
    match found.first().and_then(|path| path.file_name()) {
        Some(name) => format!("it has {}: {advice}", name.display()),
        None => "a Hugging Face model directory has config.json and model.safetensors".to_owned(),
    }
}
