//! Frames as bytes. Every length is checked before it is believed; nothing a peer can send makes this panic.
//!
//! ```text
//!  0 u32 length of what follows    16 u64 session
//!  4 u8  kind                      24 u32 generation
//!  5 u8  minor version             28 u32 epoch
//!  6 u8  flags                     32 u32 position
//!  7 u8  activation type           36 u32 count (tokens, rows, steps)
//!  8 u64 ring                      40 …   body
//! ```

mod header;
mod numbers;
mod read;
mod write;

use crate::frame::HEADER_BYTES;
use crate::ids::{Epoch, PlanGeneration};
use crate::session::SessionOptions;

pub use read::decode;
pub use write::encode;

/// Why bytes are not a frame. The connection that sent them is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {len} bytes is over the limit of {limit}")]
    TooLarge { len: u64, limit: u64 },
    #[error("frame of {len} bytes is shorter than its header of {HEADER_BYTES}")]
    TooShort { len: u64 },
    #[error("frame kind {0} is unknown: the sender may be newer than this program")]
    UnknownKind(u8),
    #[error(
        "frame speaks protocol minor version {theirs}, this program {ours}: they may differ by one, update the older"
    )]
    Version { theirs: u8, ours: u8 },
    #[error("frame of kind {kind} holds {actual} body bytes, {expected} expected")]
    BodySize { kind: u8, actual: usize, expected: usize },
    #[error("frame of kind {kind} has an unknown value {value} in its {field}")]
    UnknownValue { kind: u8, field: &'static str, value: u8 },
    #[error("body of frame kind {kind} is not valid JSON: {source}")]
    Json { kind: u8, source: serde_json::Error },
    #[error("text in frame kind {kind} is not UTF-8")]
    Text { kind: u8 },
}

/// What of a resume its header has no room for.
#[derive(serde::Serialize, serde::Deserialize)]
struct ResumeBody {
    options: SessionOptions,
    from: PlanGeneration,
    from_epoch: Epoch,
}

#[cfg(test)]
mod tests;
