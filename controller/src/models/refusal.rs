//! Refusals: why a model is not served, as a reason for machines and a sentence for people.

use std::fmt;
use std::path::Path;

use polyphony_model::{
    ConfigError, FilesError, FolderError, HyperparameterError, ManifestError, ModelError, PartsError, TextError,
    TokenizerError, model_file,
};

use super::fetch::FetchError;
use super::source::SourceError;

/// Why a model is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

/// The kinds of refusals, as conditions and events name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    InvalidSource,
    FileNotFound,
    NotAFile,
    FileUnreadable,
    FileChanged,
    /// It is damaged, or contradicts itself.
    InvalidFile,
    /// It is sound, and yet some gateway or phone would have to refuse it.
    Unsupported,
    DigestMismatch,
    RepoNotFound,
    RevisionNotFound,
    EntryNotFound,
    /// The hub shows it to those alone whom its owner lets.
    GatedRepo,
    /// Of what the source names there are several.
    Ambiguous,
    TokenMissing,
    TokenRefused,
    /// Nobody is sent there.
    NotAllowed,
    InsufficientSpace,
    CacheUnwritable,
    /// What was asked is not as it should be.
    UnusableSource,
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::InvalidSource => "InvalidSource",
            Reason::FileNotFound => "FileNotFound",
            Reason::NotAFile => "NotAFile",
            Reason::FileUnreadable => "FileUnreadable",
            Reason::FileChanged => "FileChanged",
            Reason::InvalidFile => "InvalidFile",
            Reason::Unsupported => "Unsupported",
            Reason::DigestMismatch => "DigestMismatch",
            Reason::RepoNotFound => "RepoNotFound",
            Reason::RevisionNotFound => "RevisionNotFound",
            Reason::EntryNotFound => "EntryNotFound",
            Reason::GatedRepo => "GatedRepo",
            Reason::Ambiguous => "Ambiguous",
            Reason::TokenMissing => "TokenMissing",
            Reason::TokenRefused => "TokenRefused",
            Reason::NotAllowed => "NotAllowed",
            Reason::InsufficientSpace => "InsufficientSpace",
            Reason::CacheUnwritable => "CacheUnwritable",
            Reason::UnusableSource => "UnusableSource",
        })
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn of_source(error: &SourceError) -> Self {
        Self { reason: Reason::InvalidSource, message: error.to_string() }
    }

    pub(super) fn of_fetch(error: &FetchError) -> Self {
        use FetchError as E;
        let reason = match error {
            E::Source(_) => Reason::InvalidSource,
            E::RepoNotFound { .. } => Reason::RepoNotFound,
            E::RevisionNotFound { .. } => Reason::RevisionNotFound,
            E::EntryNotFound { .. } | E::NoSuchQuantisation { .. } => Reason::EntryNotFound,
            E::NotFound { .. } => Reason::FileNotFound,
            E::Gated { .. } => Reason::GatedRepo,
            E::Ambiguous { .. } => Reason::Ambiguous,
            E::NoModel { .. } => Reason::Unsupported,
            E::TokenMissing { .. } => Reason::TokenMissing,
            E::TokenRefused { .. } => Reason::TokenRefused,
            E::HostNotAllowed { .. } | E::PrivateAddress { .. } | E::Downgrade { .. } => Reason::NotAllowed,
            E::Space { .. } => Reason::InsufficientSpace,
            E::Disk { .. } => Reason::CacheUnwritable,
            E::Digest { .. } | E::Contradiction { .. } => Reason::DigestMismatch,
            E::Client { .. } | E::Answer { .. } | E::NoHub { .. } | E::TooManyRedirects { .. } => {
                Reason::UnusableSource
            }
            // They pass, and are waited for.
            E::Unreachable { .. } | E::Busy { .. } | E::BrokeOff { .. } | E::InUse { .. } => Reason::UnusableSource,
        };
        Self { reason, message: error.to_string() }
    }

    /// Of a token that a Model names and nobody has.
    pub fn of_token(secret: &str, key: &str, why: &str) -> Self {
        let message = format!("spec.tokenSecretRef names {key:?} of the Secret {secret}, {why}");
        Self { reason: Reason::TokenMissing, message }
    }

    pub(super) fn of_files(error: &ModelError) -> Self {
        let reason = match error {
            ModelError::Io { path, source } | ModelError::Files(FilesError::Io { path, source })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                let there = path.display();
                let message =
                    format!("there is no file {there}: put the model there, or create a Model with another source");
                return Self { reason: Reason::FileNotFound, message };
            }
            ModelError::Files(
                FilesError::Nothing { .. } | FilesError::Parts { source: PartsError::Missing { .. }, .. },
            ) => Reason::FileNotFound,
            ModelError::Io { source, .. } | ModelError::Files(FilesError::Io { source, .. })
                if model_file::is_no_file(source) =>
            {
                Reason::NotAFile
            }
            ModelError::Io { .. } | ModelError::Files(FilesError::Io { .. }) | ModelError::CalledOff { .. } => {
                let message = format!("{error}; let the user of the controller read it");
                return Self { reason: Reason::FileUnreadable, message };
            }
            ModelError::Changed { .. } => Reason::FileChanged,
            ModelError::Files(
                FilesError::Config { source: ConfigError::Unsupported { .. }, .. }
                | FilesError::Folder {
                    source: FolderError::UnknownTensor { .. } | FolderError::TensorType { .. }, ..
                },
            )
            | ModelError::Hyperparameters { source: HyperparameterError::Architecture { .. }, .. }
            | ModelError::Manifest {
                source: ManifestError::UnknownTensor { .. } | ManifestError::Type { .. }, ..
            } => Reason::Unsupported,
            ModelError::Text { source, .. } if is_of_another_kind(source) => Reason::Unsupported,
            ModelError::Files(_)
            | ModelError::Hyperparameters { .. }
            | ModelError::Manifest { .. }
            | ModelError::Text { .. }
            | ModelError::NotFinite { .. }
            | ModelError::Divisor { .. } => Reason::InvalidFile,
        };
        Self { reason, message: error.to_string() }
    }

    pub(super) fn of_digest(path: &Path, found: &str, expected: &str) -> Self {
        let path = path.display();
        let message = format!(
            "{path} has the SHA-256 {found}, but spec.sha256 says {expected}: fetch the model again, or create a Model with the digest of this one"
        );
        Self { reason: Reason::DigestMismatch, message }
    }

    pub(super) fn of_panic(source: &str) -> Self {
        let message = format!("the reader of model files broke on {source}: report this as a bug, with the file");
        Self { reason: Reason::InvalidFile, message }
    }

    pub(super) fn of_thread(error: &std::io::Error) -> Self {
        let message = format!("no thread could be started to read the file: {error}; give the controller more");
        Self { reason: Reason::FileUnreadable, message }
    }
}

/// Whether a tokenizer or a template is well made, and none of those that are read here.
fn is_of_another_kind(error: &TextError) -> bool {
    matches!(
        error,
        TextError::Template(_)
            | TextError::Tokenizer(
                TokenizerError::Model { .. } | TokenizerError::PreTokenizer { .. } | TokenizerError::Unsupported { .. },
            )
    )
}
