//! Track: how far a fetch is, told by the thread that fetches to whoever looks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::readings::Pace;
use super::error::FetchError;

/// How often figures are told: each telling is a write of a status.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What a fetch is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FetchStep {
    /// It asks what the source stands for.
    #[default]
    Resolving,
    Downloading {
        bytes: Bytes,
        /// What is told of a choice that nobody made.
        note: Option<String>,
    },
    /// It asks again in a while.
    Waiting {
        /// For machines.
        reason: &'static str,
        why: String,
        pause: Duration,
        bytes: Option<Bytes>,
    },
}

/// How much of a model is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    pub file: String,
    pub n_bytes: u64,
    /// Of all files, where the source says.
    pub n_total: Option<u64>,
}

/// The step as others see it.
#[derive(Default)]
pub(in crate::models) struct Track(Mutex<FetchStep>);

/// Counts what comes, for one fetch.
pub(super) struct Meter<'a> {
    track: &'a Track,
    pace: &'a Pace,
    note: Option<String>,
    bytes: Bytes,
    told_at: Option<Instant>,
    /// Bytes of files that are whole.
    n_before: u64,
}

// === impl Track ===

impl Track {
    pub(in crate::models) fn step(&self) -> FetchStep {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, step: FetchStep) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }
}

// === impl FetchStep ===

impl FetchStep {
    /// How much is there, once that is known.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Resolving => None,
            Self::Downloading { bytes, .. } => Some(bytes),
            Self::Waiting { bytes, .. } => bytes.as_ref(),
        }
    }
}

// === impl Meter ===

impl<'a> Meter<'a> {
    pub(super) fn new(track: &'a Track, pace: &'a Pace) -> Self {
        Self { track, pace, note: None, bytes: Bytes::default(), told_at: None, n_before: 0 }
    }

    /// Files were chosen, of so many bytes in all.
    pub(super) fn begin(&mut self, n_total: Option<u64>, note: Option<String>) {
        (self.bytes.n_total, self.note) = (n_total, note);
    }

    /// A file is begun, or gone on with.
    pub(super) fn file(&mut self, name: &str) {
        name.clone_into(&mut self.bytes.file);
    }

    /// So many bytes of the present file are there.
    pub(super) fn note(&mut self, n_bytes: u64) {
        self.bytes.n_bytes = self.n_before.saturating_add(n_bytes);
        self.pace.note(self.bytes.n_bytes);
        let now = Instant::now();
        if self.told_at.is_none_or(|told_at| now.saturating_duration_since(told_at) >= TELL_EVERY) {
            self.told_at = Some(now);
            self.tell();
        }
    }

    /// The present file is whole.
    pub(super) fn end(&mut self, n_bytes: u64) {
        self.n_before = self.n_before.saturating_add(n_bytes);
        self.bytes.n_bytes = self.n_before;
        self.tell();
    }

    /// It is asked again after `pause`.
    pub(super) fn wait(&mut self, error: &FetchError, pause: Duration) {
        let bytes = Some(self.bytes.clone()).filter(|bytes| !bytes.file.is_empty());
        self.track.set(FetchStep::Waiting { reason: error.waits_as(), why: error.to_string(), pause, bytes });
    }

    /// And the wait is over.
    pub(super) fn go_on(&mut self) {
        self.tell();
    }

    /// The length of a model whose source said it only now.
    pub(super) fn learn_total(&mut self, n_total: u64) {
        self.bytes.n_total.get_or_insert(n_total);
    }

    fn tell(&self) {
        self.track.set(match self.bytes.file.is_empty() {
            true => FetchStep::Resolving,
            false => FetchStep::Downloading { bytes: self.bytes.clone(), note: self.note.clone() },
        });
    }
}
