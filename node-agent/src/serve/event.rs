//! Events: what a stage hears, and from where. Plain data.

use std::ops::Range;

use polyphony_protocol::frame::KvRows;
use polyphony_protocol::{Frame, RouteKey};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host link: the gateway.
    Host,
    /// The ring link of the stage before, in the order of layers.
    Previous,
    /// The ring link of the last stage, where decoding begins.
    Tail,
    /// The ring link of the stage with the encoder's last layer, where that is not the one before.
    Encoder,
}

/// What a stage hears.
#[derive(Debug)]
pub enum Event {
    Frame {
        frame: Frame,
        source: Source,
    },
    PeerLost {
        phone: String,
        why: String,
    },
    /// The link to the host has ended.
    HostLost,
    /// Far too many sessions were to end while the thread hung: none goes on.
    AllOver,
    /// Another phone asks for a part of a session's KV cache.
    ReadKv {
        key: RouteKey,
        n_positions: u32,
        /// One layer, and the positions wanted of it; as many of them come as make a piece.
        layer: u32,
        positions: Range<u32>,
        answer: oneshot::Sender<Result<KvRows, String>>,
    },
    /// Rows that were pulled for a session that moves here.
    WriteKv {
        key: RouteKey,
        rows: KvRows,
        /// Their place among the pieces that may wait here.
        place: OwnedSemaphorePermit,
    },
    /// All of them have come, or why they cannot.
    Pulled {
        key: RouteKey,
        end: Result<(), String>,
    },
}

/// The session of a frame that a gateway sends.
pub(crate) fn key_of(frame: &Frame) -> Option<RouteKey> {
    match frame {
        Frame::Open { key, .. } | Frame::Credit { key, .. } | Frame::Close { key } | Frame::Pause { key } => Some(*key),
        Frame::Prompt(prompt) => Some(prompt.key),
        Frame::Resume(resume) => Some(resume.key),
        _ => None,
    }
}
