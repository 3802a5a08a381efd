//! Model files as plain data: tensors, hyperparameters, manifest, tokenizer, chat template. No network, no clock.
//!
//! The host reads a model's files once ([`SourceFiles`], [`Manifest::build`]) and turns text into tokens ([`Tokenizer`],
//! [`ChatTemplate`]). A phone never parses a model file: it gets the [`Manifest`] as JSON, checks it
//! ([`Manifest::check`]) and fetches exactly the tensors that its segment [`Holds`].

mod card;
mod chat;
mod chat_template;
pub mod family;
mod footprint;
mod gguf;
mod graph;
mod holds;
mod hyperparameters;
mod json;
mod kv_type;
mod manifest;
pub mod model_file;
mod names;
mod prompt;
mod role;
mod source_files;
mod tensor_source;
mod tensor_type;
mod text_side;
mod tokenizer;
mod tokenizer_config;

pub use card::Card;
pub use chat::{Chat, ChatMessage};
pub use chat_template::{ChatTemplate, TemplateError, Unsupported};
pub use family::Family;
pub use footprint::{
    CACHE_PIECE_BYTES, CACHE_PIECES, EngineForm, ExpertWidths, Footprint, MAX_CHUNKS, PromptRows, Room, STEP_ROWS,
    StepWidths, Uses, VALUE_BYTES,
};
pub use gguf::{Array, Gguf, GgufError, GgufTensor, Metadata, Numbers, Value};
pub use graph::{Edge, EdgeKind};
pub use holds::{Holds, LayerRange};
pub use hyperparameters::{
    Architecture, Convolutions, Encoder, Experts, HyperparameterError, Hyperparameters, LayerTurn, MAX_CHOSEN,
    MAX_HEAD_SIZE, Rope, Scales, Window, WindowedLayers, Yarn,
};
pub use json::{Json, Object};
pub use kv_type::KvType;
pub use manifest::{FileEntry, JUDGEMENT, Manifest, ManifestError, ModelError, TensorEntry, TensorReader};
pub use prompt::{Prompt, PromptPart};
pub use role::Role;
pub use source_files::{
    ConfigError, FilesError, FolderError, PartsError, SafetensorsError, SourceFile, SourceFiles, TextFiles,
};
pub use tensor_source::{FileRange, Form, Misfit, TensorSource};
pub use tensor_type::{TensorType, UnknownTensorType};
pub use text_side::{TextError, TextSide};
pub use tokenizer::{Flaw, LineError, TextStream, Tokenized, Tokenizer, TokenizerError, text_of_line};
