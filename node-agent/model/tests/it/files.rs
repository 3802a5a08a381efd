//! Where the tests find model files.

use std::path::{Path, PathBuf};

/// The tiny models of the golden data.
pub const TINY: [&str; 29] = [
    "llama",
    "llama_f16",
    "llama_q8_0",
    "llama_q4_0",
    "llama_q4_1",
    "llama_freqs",
    "llama_linear",
    "qwen2",
    "qwen3",
    "gpt2",
    "bloom",
    "t5",
    "llama_bf16",
    "llama256_mixed",
    "gemma2",
    "gemma3",
    "gemma3_scaled",
    "phi3",
    "phi3_long",
    "phi3_short",
    "olmo2",
    "olmo3",
    "cohere2",
    "falcon",
    "granite",
    "lfm2",
    "llama_yarn",
    "smollm3",
    "starcoder2",
];

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/golden").join(name)
}

pub fn tiny(name: &str) -> PathBuf {
    golden(&format!("tiny/{name}.gguf"))
}

/// The real model in the cache that `make setup` fills; says so and gives `None` where it is absent.
pub fn smollm2() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("POLYPHONY_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("polyphony")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/polyphony")));
    let path = cache?.join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.exists() {
        return Some(path);
    }
    polyphony_skip::skipped(format_args!("{} is absent; `make setup` fetches it", path.display()));
    None
}
