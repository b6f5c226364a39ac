//! SmolLM2's tokenizer and chat template, loaded once for all tests.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use code_explainer_text::Text;
use code_explainer_weights::Checkpoint;

/// Where `make setup` puts the model, or the user has it.
pub(crate) fn model_path() -> PathBuf {
    let path = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::env::var_os("CODE_EXPLAINER_MODEL").map_or_else(default, PathBuf::from)
}

pub(crate) fn checkpoint() -> &'static Checkpoint {
    static CHECKPOINT: OnceLock<Checkpoint> = OnceLock::new();
    CHECKPOINT.get_or_init(|| {
        Checkpoint::open(&model_path()).unwrap_or_else(|e| panic!("{e} (`make setup` gets it)"))
    })
}

pub(crate) fn text() -> &'static Arc<Text> {
    static TEXT: OnceLock<Arc<Text>> = OnceLock::new();
    TEXT.get_or_init(|| Arc::new(Text::from_checkpoint(checkpoint()).expect("a usable tokenizer")))
}
