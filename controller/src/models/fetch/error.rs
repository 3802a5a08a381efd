//! What can go wrong while a model is fetched, as data: what passes by itself, and what somebody has to mend.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::super::source::SourceError;

/// Why a model is not fetched, or not yet.
#[derive(Debug, thiserror::Error)]
pub(in crate::models) enum FetchError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(
        "no HTTPS client can be made: {why}; install the machine's certificates (ca-certificates), or name a file of them in SSL_CERT_FILE"
    )]
    Client { why: String },

    // What passes.
    #[error("{url} cannot be reached: {why}")]
    Unreachable { url: String, why: String },
    #[error("{url} is busy: {status}")]
    Busy { url: String, status: String, retry_after: Option<Duration> },
    #[error("{url} broke off after {n_bytes} bytes: {why}")]
    BrokeOff { url: String, n_bytes: u64, why: String },
    #[error("another Model is downloaded into {}", folder.display())]
    InUse { folder: PathBuf },

    // What somebody has to mend.
    #[error(
        "{endpoint} has no repository {repository}, or none that is shown without a token: correct spec.source, or name a Secret with a token in spec.tokenSecretRef"
    )]
    RepoNotFound { endpoint: String, repository: String },
    #[error(
        "{repository} is gated{}: ask for access on the page of the model, and name a Secret with the token of who has it in spec.tokenSecretRef",
        said(message)
    )]
    Gated { repository: String, message: Option<String> },
    #[error("{repository} has no revision {revision:?}: correct what stands after @ in spec.source")]
    RevisionNotFound { repository: String, revision: String },
    #[error("{repository} has no file {file:?}{}: correct what stands after the colon in spec.source", others(found))]
    EntryNotFound { repository: String, file: String, found: Vec<String> },
    #[error(
        "{repository} has no GGUF file of {quantisation:?}{}: write one of these after the colon in spec.source",
        candidates(found)
    )]
    NoSuchQuantisation { repository: String, quantisation: String, found: Vec<String> },
    #[error(
        "{repository} has several models of {quantisation:?}{}: write the file's name after the colon in spec.source",
        candidates(found)
    )]
    Ambiguous { repository: String, quantisation: String, found: Vec<String> },
    #[error(
        "{repository} has no model that is read here: {lacks}; choose a repository with GGUF files, or with safetensors"
    )]
    NoModel { repository: String, lacks: String },
    #[error("{url} is not there ({status}): correct spec.source")]
    NotFound { url: String, status: String },
    #[error("{url} refuses the token ({status}){}: renew it in the Secret of spec.tokenSecretRef", said(message))]
    TokenRefused { url: String, status: String, message: Option<String> },
    #[error("{url} asks for a token ({status}): name a Secret with one in spec.tokenSecretRef")]
    TokenMissing { url: String, status: String },
    #[error(
        "{url} answers {status}{}: this is not what a model's source says; look whether the address is right",
        said(message)
    )]
    Answer { url: String, status: String, message: Option<String> },
    #[error("{url} is not as a hub answers: {why}; look whether the endpoint is one (HF_ENDPOINT, --model-endpoint)")]
    NoHub { url: String, why: String },

    #[error(
        "host {host} is not among those that models may be fetched from{}: use another source, or add it with --model-host",
        through(from)
    )]
    HostNotAllowed { host: String, from: Option<String> },
    #[error(
        "{host} leads into this machine or its network ({address}){}: use another source, or start the controller with --model-private-addresses",
        through(from)
    )]
    PrivateAddress { host: String, address: String, from: Option<String> },
    #[error("{from} leads on to {to}, which is not encrypted: use another source")]
    Downgrade { from: String, to: String },
    #[error("{url} leads on and on, over {limit} times: look at the source with a browser")]
    TooManyRedirects { url: String, limit: usize },

    #[error("{} needs {needed} more bytes, and its disk has {free}: free some, such as by `polyctl model rm NAME --file`; it is looked at again every minute", folder.display())]
    Space { folder: PathBuf, needed: u64, free: u64 },
    #[error(
        "{file} has the {kind} {found}, but {url} says {expected}: what was fetched is removed; it is tried again in some minutes"
    )]
    Digest { url: String, file: String, kind: &'static str, expected: String, found: String },
    #[error(
        "{url} says of {file} once {first} and once {second}: the hub contradicts itself, and nothing is fetched; it is tried again in some minutes"
    )]
    Contradiction { url: String, file: String, first: String, second: String },
    #[error("cannot write {}: {source}; make it writable for the user of the controller, or set POLYPHONY_CACHE", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

fn said(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default()
}

fn through(from: &Option<String>) -> String {
    from.as_ref().map(|from| format!(", where {from} leads")).unwrap_or_default()
}

fn others(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { candidates(found) }
}

fn candidates(found: &[String]) -> String {
    const SHOWN: usize = 12;
    if found.is_empty() {
        return ", and none at all".to_owned();
    }
    let shown: Vec<&str> = found.iter().take(SHOWN).map(String::as_str).collect();
    let more = found.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("; there are {}{rest}", shown.join(", "))
}

/// How long what somebody has to mend is left alone.
const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(300);

// === impl FetchError ===

impl FetchError {
    /// Whether it may be over by itself, so that the same is tried again.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::BrokeOff { .. } | Self::InUse { .. })
    }

    /// Why it is waited, as a condition names it.
    pub(super) fn waits_as(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "SourceBusy",
            Self::BrokeOff { .. } => "Interrupted",
            Self::InUse { .. } => "WaitingForAnother",
            _ => "SourceUnreachable",
        }
    }

    /// How long the source itself asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// When to look whether it is mended; `None` for what no other time makes right.
    pub(in crate::models) fn ask_again_after(&self) -> Option<Duration> {
        match self {
            Self::Source(SourceError::Text(_)) => None,
            Self::Space { .. } | Self::Disk { .. } | Self::Client { .. } => Some(SOON),
            _ => Some(LATER),
        }
    }

    /// As [`FetchError::Disk`], but that a full disk is said to be full.
    pub(super) fn disk(path: &std::path::Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Space { folder: path.to_owned(), needed: 1, free: 0 }
            }
            _ => Self::Disk { path: path.to_owned(), source },
        }
    }
}
