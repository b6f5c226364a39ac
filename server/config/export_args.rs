//! The command line of `export`.

use std::path::PathBuf;

use clap::Args;
use code_explainer_engine::{DeviceSpec, Devices, Precision};

use super::ExportConfig;
use super::model_args::DEFAULT_MODEL;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Where the module goes; its description goes beside it, as MODULE.json
    #[arg(long, value_name = "MODULE")]
    pub(super) torchscript: PathBuf,

    /// A GGUF file, or a Hugging Face directory (config.json, safetensors, tokenizer.json)
    #[arg(long, env = "CODE_EXPLAINER_MODEL", value_name = "PATH")]
    #[arg(default_value = DEFAULT_MODEL)]
    pub(super) model: PathBuf,

    /// The device that traces it: auto (CUDA if there is a device), cpu, cuda or cuda:N
    #[arg(long, env = "CODE_EXPLAINER_DEVICE", default_value = "auto")]
    #[arg(value_parser = one_device)]
    pub(super) device: DeviceSpec,

    /// Precision of its weights and arithmetic: fp32, bf16, fp16, int8 or int4; by default fp32 on the CPU and bf16 on CUDA
    #[arg(long, env = "CODE_EXPLAINER_PRECISION")]
    pub(super) precision: Option<Precision>,
}

impl ExportArgs {
    pub(super) fn validate(self) -> ExportConfig {
        let Self {
            torchscript,
            model,
            device,
            precision,
        } = self;
        ExportConfig {
            torchscript,
            model,
            device,
            precision,
        }
    }
}

fn one_device(text: &str) -> Result<DeviceSpec, String> {
    match text.parse()? {
        Devices::Listed(devices) if devices.len() == 1 => Ok(devices[0]),
        devices => Err(format!("'{devices}' is not one device")),
    }
}
