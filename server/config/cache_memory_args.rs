//! What is kept of answers in memory.

use clap::Args;
use code_explainer_code::prompt::normal::Normalize;

use code_explainer_cache::Policy;

#[derive(Debug, Args)]
pub(super) struct CacheMemoryArgs {
    /// Bytes of the answers kept in memory
    #[arg(long, env = "CODE_EXPLAINER_CACHE_BYTES", value_name = "N")]
    #[arg(default_value_t = 256 << 20)]
    pub(super) cache_bytes: u64,

    /// Which answer makes room in memory for a new one. adaptive tries the others on a sample of the look-ups, and takes
    /// the one that has the most hits of late
    #[arg(long, env = "CODE_EXPLAINER_CACHE_POLICY", value_name = "POLICY")]
    #[arg(default_value = "lru")]
    pub(super) cache_policy: Policy,

    /// What two snippets may differ in and still get the same cached answer, where a grammar understands both. An answer may
    /// then quote the other snippet's comments or layout
    #[arg(long, env = "CODE_EXPLAINER_CACHE_NORMALIZE", value_name = "WHAT")]
    #[arg(default_value = "off")]
    pub(super) cache_normalize: Normalize,
}
