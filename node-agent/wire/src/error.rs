//! Why a link ended.

use std::io;
use std::time::Duration;

use polyphony_protocol::{Frame, FrameError};

/// Why a link ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the connection was closed by the other end")]
    Closed,
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The two ends do not know each other.
    #[error("{0}")]
    Tls(String),
    #[error("the other end sent what is no frame: {0}")]
    Frame(#[from] FrameError),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("nothing of a write was taken for {0:?}")]
    SlowWrite(Duration),
    #[error("more frames waited than may, so the link is given up")]
    Overrun,
    #[error("the other end refused: {0}")]
    Refused(String),
    /// The hub passes nothing on to whom it was to lead.
    #[error("no way over the host: {0}")]
    NoWay(String),
    #[error("this end gave it up: {0}")]
    GivenUp(String),
    #[error("{found} came where {expected} was expected")]
    Unexpected { found: &'static str, expected: &'static str },
}

// === impl LinkError ===

impl LinkError {
    /// A frame of another kind came than the one that was due.
    pub fn unexpected(found: &Frame, expected: &'static str) -> Self {
        Self::Unexpected { found: found.noun(), expected }
    }

    /// Whether it says that the way to the other end leads nowhere, or to somebody else: another way may be better.
    pub fn leads_nowhere(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Io(_) | Self::SlowWrite(_) | Self::Tls(_) | Self::NoWay(_))
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match polyphony_identity::explain(&error) {
            Some(why) => Self::Tls(why),
            // Of TLS that ended without a word: no frame is cut by it unseen.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Io(error),
        }
    }
}
