//! Manifests: which files and tensors a model has, where in the files the tensors lie, and the digests of all.
//!
//! The host builds a manifest from the files once and serves it as JSON. A phone checks it and then trusts no byte of a
//! tensor whose digest does not agree.

mod build;
mod digests;
mod finite;
mod tensor_reader;

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use build::{JUDGEMENT, ModelError};
pub use tensor_reader::TensorReader;

use crate::holds::Holds;
use crate::hyperparameters::{HyperparameterError, Hyperparameters};
use crate::role::Role;
use crate::tensor_source::{FileRange, Misfit, TensorSource};
use crate::tensor_type::TensorType;

/// A model as plain data: everything a phone has to know of it but the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    pub hyperparameters: Hyperparameters,
    /// Tokens that end an answer, ascending.
    pub end_tokens: Vec<u32>,
    /// By name; all lie in one folder.
    pub files: Vec<FileEntry>,
    /// By file and offset of their first bytes.
    pub tensors: Vec<TensorEntry>,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileEntry {
    /// Within the model's folder.
    pub name: String,
    pub n_bytes: u64,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// One tensor: its part in the model, its bytes, and where the host has them from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TensorEntry {
    pub name: String,
    pub role: Role,
    /// The layer it belongs to, counted from 0; `None` for tensors of the whole model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    #[serde(rename = "type")]
    pub tensor_type: TensorType,
    /// GGML order, the fastest dimension first: `[inputs, outputs]`.
    pub shape: Vec<u64>,
    pub n_bytes: u64,
    /// SHA-256 of the tensor's bytes, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The host's business: a phone gets the bytes that come of it.
    pub source: TensorSource,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error(transparent)]
    Hyperparameters(#[from] HyperparameterError),
    #[error("tensor `{tensor}` is missing; the model is incomplete, fetch it again or convert it anew")]
    MissingTensor { tensor: String },
    #[error(
        "tensor `{tensor}` is not part of a {architecture} model as it is supported; leaving it out would change the answers"
    )]
    UnknownTensor { tensor: String, architecture: String },
    #[error("tensor `{tensor}` stands in the manifest twice; build it anew")]
    DuplicateTensor { tensor: String },
    #[error("tensor `{tensor}` has the shape {found:?}, but the hyperparameters call for {expected:?}")]
    Shape { tensor: String, found: Vec<u64>, expected: Vec<u64> },
    #[error(
        "tensor `{tensor}` is of type {found}, but {expected}; convert the model anew, for example to Q4_K_M (`llama-quantize`)"
    )]
    Type { tensor: String, found: TensorType, expected: String },
    #[error("tensor `{tensor}` is said to have {found} bytes, but its type and shape make {expected}")]
    Size { tensor: String, found: u64, expected: u64 },
    #[error(
        "tensor `{tensor}` lies at bytes {from} to {to} of file {file}, which is outside of the file or over another tensor"
    )]
    Place { tensor: String, file: u32, from: u64, to: u64 },
    #[error("tensor `{tensor}` cannot come from where it is said to: {source}")]
    Source { tensor: String, source: Misfit },
    #[error("`{name}` is no name of a file of the model, or stands in the manifest twice")]
    FileName { name: String },
    #[error("the digest of {what} is no SHA-256 in lower-case hexadecimal: `{found}`")]
    Digest { what: String, found: String },
    #[error("end token {token} is outside of the vocabulary of {vocab_size}")]
    EndToken { token: u32, vocab_size: u32 },
}

// === impl Manifest ===

impl Manifest {
    /// SHA-256 of the manifest's canonical JSON (fields in the order of the type, no white space), in hexadecimal.
    ///
    /// Two manifests have the same digest exactly when they are equal.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("a manifest holds no map and no value that JSON lacks");
        hex::encode(Sha256::digest(json))
    }

    /// Whether the manifest is whole and free of contradictions; a phone asks this of what it was sent.
    ///
    /// # Errors
    /// The first tensor or number that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        let of = &self.hyperparameters;
        of.check()?;
        self.check_files()?;
        if let Some(&token) = self.end_tokens.iter().find(|&&token| token >= of.vocab_size) {
            return Err(ManifestError::EndToken { token, vocab_size: of.vocab_size });
        }
        let mut unclaimed = HashMap::new();
        for entry in &self.tensors {
            if unclaimed.insert(entry.name.as_str(), entry).is_some() {
                return Err(ManifestError::DuplicateTensor { tensor: entry.name.clone() });
            }
        }
        for (role, layer) in Role::expected(of) {
            let tensor = role.tensor_name(of, layer);
            match unclaimed.remove(tensor.as_str()) {
                Some(entry) if (entry.role, entry.layer) == (role, layer) => entry.check(of)?,
                _ => return Err(ManifestError::MissingTensor { tensor }),
            }
        }
        if let Some(&tensor) = unclaimed.keys().min() {
            let architecture = of.architecture.to_string();
            return Err(ManifestError::UnknownTensor { tensor: tensor.to_owned(), architecture });
        }
        self.check_places()
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.n_bytes))
    }

    /// SHA-256 of the model's one file; of several, of the list that `sha256sum` prints of them in the order of [`Manifest::files`].
    pub fn file_sha256(&self) -> String {
        if let [only] = self.files.as_slice() {
            return only.sha256.clone();
        }
        let lines = self.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.name));
        hex::encode(lines.fold(Sha256::new(), |digest, line| digest.chain_update(line)).finalize())
    }

    /// The tensors that a segment needs, in the order of the manifest: no more, no fewer.
    ///
    /// The embedding is `token_embd` with its norm and `position_embd` where the model has them; the head is `output_norm` with
    /// `output`, or `token_embd` where they are tied;
    /// any layer brings `rope_freqs` or what is in its place where the model has it. Of an encoder–decoder model any layer of a half brings that half's biases,
    /// the last of the encoder its norm, the first of the decoder the embedding.
    pub fn tensors_of(&self, holds: &Holds) -> Vec<&TensorEntry> {
        let of = &self.hyperparameters;
        let n_encoder_layers = of.encoder.map_or(0, |encoder| encoder.n_layers);
        let layers = holds.layers;
        let encodes = !layers.is_empty() && layers.from < n_encoder_layers;
        // The decoder's first layer embeds the tokens that it goes on from.
        let begins_to_decode = n_encoder_layers > 0 && layers.contains(n_encoder_layers);
        let is_needed = |entry: &&TensorEntry| match entry.role {
            Role::TokenEmbedding => holds.embedding || (holds.head && of.tied_embedding) || begins_to_decode,
            Role::TokenEmbeddingNorm | Role::TokenEmbeddingNormBias | Role::PositionEmbedding => holds.embedding,
            Role::OutputNorm | Role::OutputNormBias | Role::Output => holds.head,
            Role::RopeFrequencies | Role::RopeFactorsLong | Role::RopeFactorsShort => !layers.is_empty(),
            Role::EncoderRelativeBias => encodes,
            Role::EncoderOutputNorm => encodes && layers.to >= n_encoder_layers,
            Role::DecoderRelativeBias => !layers.is_empty() && layers.to > n_encoder_layers,
            _ => entry.layer.is_some_and(|layer| layers.contains(layer)),
        };
        self.tensors.iter().filter(is_needed).collect()
    }

    /// Bytes of the tensors that a segment needs; an embedding that serves as output too counts once.
    pub fn bytes_of(&self, holds: &Holds) -> u64 {
        self.tensors_of(holds).iter().map(|entry| entry.n_bytes).sum()
    }

    /// Bytes of the tensors of one layer; 0 for a layer that the model does not have.
    pub fn layer_bytes(&self, layer: u32) -> u64 {
        self.tensors.iter().filter(|entry| entry.layer == Some(layer)).map(|entry| entry.n_bytes).sum()
    }

    /// Bytes of all matrices of experts, of all layers together.
    pub fn expert_bytes(&self) -> u64 {
        self.tensors.iter().filter(|entry| entry.role.is_of_experts()).map(|entry| entry.n_bytes).sum()
    }

    /// The tensor of `role`, of `layer` where the role is of a layer.
    pub fn tensor(&self, role: Role, layer: Option<u32>) -> Option<&TensorEntry> {
        self.tensors.iter().find(|entry| (entry.role, entry.layer) == (role, layer))
    }

    /// Every type that some tensor has: what a backend must be able to compute with.
    pub fn tensor_types(&self) -> BTreeSet<TensorType> {
        self.tensors.iter().map(|entry| entry.tensor_type).collect()
    }

    fn check_files(&self) -> Result<(), ManifestError> {
        let mut names = BTreeSet::new();
        for file in &self.files {
            check_digest(&format!("file `{}`", file.name), &file.sha256)?;
            let is_plain =
                !file.name.is_empty() && file.name != ".." && file.name != "." && !file.name.contains(['/', '\0']);
            if !is_plain || !names.insert(file.name.as_str()) {
                return Err(ManifestError::FileName { name: file.name.clone() });
            }
        }
        Ok(())
    }

    fn check_places(&self) -> Result<(), ManifestError> {
        let mut ranges: Vec<(FileRange, &str)> = Vec::new();
        for entry in &self.tensors {
            ranges.extend(entry.source.ranges.iter().map(|range| (*range, entry.name.as_str())));
        }
        ranges.sort_by_key(|(range, _)| (range.file, range.offset));
        let mut free_from = (0, 0);
        for (range, tensor) in ranges {
            let FileRange { file, offset, n_bytes } = range;
            let to = offset.saturating_add(n_bytes);
            let is_inside = self.files.get(file as usize).is_some_and(|of| to <= of.n_bytes);
            if !is_inside || (file, offset) < free_from {
                return Err(ManifestError::Place { tensor: tensor.to_owned(), file, from: offset, to });
            }
            free_from = (file, to);
        }
        Ok(())
    }
}

// === impl TensorEntry ===

impl TensorEntry {
    /// Whether `bytes` are this tensor: as many as there should be, with the digest they should have.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.n_bytes && hex::encode(Sha256::digest(bytes)) == self.sha256
    }

    fn check(&self, of: &Hyperparameters) -> Result<(), ManifestError> {
        let tensor = || self.name.clone();
        let expected = self.role.shape(of);
        if self.shape != expected {
            return Err(ManifestError::Shape { tensor: tensor(), found: self.shape.clone(), expected });
        }
        if self.role.is_vector() && self.tensor_type != TensorType::F32 {
            let expected = "vectors have to be F32".to_owned();
            return Err(ManifestError::Type { tensor: tensor(), found: self.tensor_type, expected });
        }
        if !self.tensor_type.is_computed() {
            let known: Vec<&str> = TensorType::computed().map(TensorType::name).collect();
            let expected = format!("kernels read {} only", known.join(", "));
            return Err(ManifestError::Type { tensor: tensor(), found: self.tensor_type, expected });
        }
        let misfit = |source| ManifestError::Source { tensor: tensor(), source };
        self.source.check(self.tensor_type, &self.shape, self.n_bytes).map_err(misfit)?;
        match self.tensor_type.bytes(&self.shape) {
            Some(expected) if expected == self.n_bytes => {
                check_digest(&format!("tensor `{}`", self.name), &self.sha256)
            }
            Some(expected) => Err(ManifestError::Size { tensor: tensor(), found: self.n_bytes, expected }),
            None => {
                let expected = format!("rows of {} values are no whole number of its blocks", self.shape[0]);
                Err(ManifestError::Type { tensor: tensor(), found: self.tensor_type, expected })
            }
        }
    }
}

fn check_digest(what: &str, found: &str) -> Result<(), ManifestError> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if found.len() == 64 && found.bytes().all(is_hex) {
        Ok(())
    } else {
        Err(ManifestError::Digest { what: what.to_owned(), found: found.chars().take(80).collect() })
    }
}
