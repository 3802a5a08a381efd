//! Integration tests of the model crate: real and tiny files, and files made wrong on purpose.
#![allow(clippy::unwrap_used)]

#[path = "it/control_tokens.rs"]
mod control_tokens;
#[path = "it/files.rs"]
mod files;
#[path = "it/gguf_writer.rs"]
mod gguf_writer;
#[path = "it/golden_templates.rs"]
mod golden_templates;
#[path = "it/golden_tokenizers.rs"]
mod golden_tokenizers;
#[path = "it/graph.rs"]
mod graph;
#[path = "it/hostile_files.rs"]
mod hostile_files;
#[path = "it/hostile_templates.rs"]
mod hostile_templates;
#[path = "it/hugging_face.rs"]
mod hugging_face;
#[path = "it/hyperparameters.rs"]
mod hyperparameters;
#[path = "it/manifest.rs"]
mod manifest;
#[path = "it/smollm2.rs"]
mod smollm2;
#[path = "it/split_files.rs"]
mod split_files;
#[path = "it/tokenizer.rs"]
mod tokenizer;
#[path = "it/tokenizer_json.rs"]
mod tokenizer_json;
