//! Frames over a byte stream, with deadlines. The same reader and writer serve ring links and the host link.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use polyphony_protocol::{Frame, FrameError, decode, encode, frame::MAX_FRAME_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::metrics::Traffic;

/// A write that takes longer means that the peer is gone.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// The longest first frame of a connection.
const GREETING_BYTES: usize = 64 << 10;
/// How much is gathered into one write.
const COALESCE_BYTES: usize = 64 << 10;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the connection was closed by the other end")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the other end sent what is no frame: {0}")]
    Frame(#[from] FrameError),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("a write took longer than {WRITE_DEADLINE:?}")]
    SlowWrite,
    #[error("the other end refused: {0}")]
    Refused(String),
    #[error("{found} came where {expected} was expected")]
    Unexpected { found: &'static str, expected: &'static str },
}

/// Reads frames off a stream.
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    max_bytes: usize,
}

// === impl FrameReader ===

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(64 << 10), max_bytes: MAX_FRAME_BYTES }
    }

    /// A reader for whoever has not yet said who it is: no frame over 64 KiB until it is [trusted](Self::trust).
    pub fn of_stranger(stream: R) -> Self {
        Self { max_bytes: GREETING_BYTES, ..Self::new(stream) }
    }

    /// Takes frames of every size from now on.
    pub fn trust(&mut self) {
        self.max_bytes = MAX_FRAME_BYTES;
    }

    /// The next frame. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the stream ends, breaks, or carries something that is no frame.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = decode(&mut self.buffer, self.max_bytes)? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }

    /// The next frame, or an error when none comes within `deadline`.
    ///
    /// # Errors
    /// As [`FrameReader::next`], and [`LinkError::Silent`].
    pub async fn next_within(&mut self, deadline: Duration) -> Result<Frame, LinkError> {
        tokio::time::timeout(deadline, self.next()).await.map_err(|_| LinkError::Silent(deadline))?
    }
}

/// Writes one frame and counts it.
///
/// # Errors
/// When the stream breaks or does not take it within [`WRITE_DEADLINE`].
pub async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
    traffic: &Traffic,
) -> Result<(), LinkError> {
    let mut bytes = BytesMut::new();
    append(frame, &mut bytes, traffic);
    write_bytes(stream, &bytes).await
}

/// Writes the frames of a queue until the queue is closed, and counts them; frames that wait together go out in one write.
///
/// # Errors
/// As [`write_frame`].
pub async fn write_queue(
    stream: &mut (impl AsyncWrite + Unpin),
    queue: &mut mpsc::Receiver<Frame>,
    traffic: &Traffic,
) -> Result<(), LinkError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        append(&frame, &mut bytes, traffic);
        while bytes.len() < COALESCE_BYTES {
            let Ok(frame) = queue.try_recv() else { break };
            append(&frame, &mut bytes, traffic);
        }
        write_bytes(stream, &bytes).await?;
        bytes.clear();
    }
    Ok(())
}

fn append(frame: &Frame, bytes: &mut BytesMut, traffic: &Traffic) {
    let before = bytes.len();
    encode(frame, bytes);
    traffic.note(frame, bytes.len() - before);
}

async fn write_bytes(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), LinkError> {
    tokio::time::timeout(WRITE_DEADLINE, stream.write_all(bytes)).await.map_err(|_| LinkError::SlowWrite)??;
    Ok(())
}

/// A frame's kind in words, for errors.
pub fn kind_of(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "a hello",
        Frame::Accepted => "an acceptance",
        Frame::Refused(_) => "a refusal",
        Frame::Open { .. } => "an opening",
        Frame::Prompt(_) => "a prompt",
        Frame::Hidden(_) => "a hidden state",
        Frame::Token(_) => "a token",
        Frame::Ack { .. } => "an acknowledgement",
        Frame::Credit { .. } => "a credit",
        Frame::Close { .. } => "a closing",
        Frame::Pause { .. } => "a pause",
        Frame::Paused { .. } => "an answer to a pause",
        Frame::Resume(_) => "a resumption",
        Frame::Resumed { .. } => "an answer to a resumption",
        Frame::KvRequest(_) => "a request for a KV cache",
        Frame::KvRows(_) => "rows of a KV cache",
        Frame::Failed(_) => "a failure",
        Frame::Ping { .. } => "a ping",
        Frame::Pong { .. } => "a pong",
        Frame::Filler(_) => "filler",
        Frame::ToHub(_) => "a message to the hub",
        Frame::ToAgent(_) => "a message to an agent",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_stranger_is_read_a_greeting_of_and_no_more() {
        let mut bytes = BytesMut::new();
        encode(&Frame::Filler(vec![0; GREETING_BYTES].into()), &mut bytes);
        let mut reader = FrameReader::of_stranger(&bytes[..]);
        assert!(matches!(reader.next().await, Err(LinkError::Frame(_))));
        let mut reader = FrameReader::of_stranger(&bytes[..]);
        reader.trust();
        assert!(matches!(reader.next().await, Ok(Frame::Filler(_))));
    }
}
