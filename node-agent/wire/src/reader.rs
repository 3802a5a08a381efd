//! Reads frames off a stream: none longer than its bound, and from a stranger none longer than a greeting.

use std::time::Duration;

use bytes::BytesMut;
use polyphony_protocol::{Frame, decode};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::tcp::OwnedReadHalf;

use crate::LinkError;
use crate::connection::Bounds;

/// The reading half of a connection.
pub struct FrameReader<R = OwnedReadHalf> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
    bounds: Bounds,
}

// === impl FrameReader ===

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader for whoever has not yet said who it is: no frame over a greeting's bytes until it is [trusted](Self::trust).
    pub fn of_stranger(stream: R, bounds: Bounds) -> Self {
        Self { stream, buffer: BytesMut::new(), limit: bounds.greeting_bytes, bounds }
    }

    /// A reader for whom this end has chosen to talk to.
    pub fn new(stream: R, bounds: Bounds) -> Self {
        Self { limit: bounds.frame_bytes, ..Self::of_stranger(stream, bounds) }
    }

    /// Takes frames of every size that the bounds allow from now on.
    pub fn trust(&mut self) {
        self.limit = self.bounds.frame_bytes;
    }

    /// The next frame. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the stream ends, breaks, or carries something that is no frame.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = decode(&mut self.buffer, self.limit)? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
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

/// Room for one read at least.
const READ_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::encode;

    use super::*;

    #[tokio::test]
    async fn a_stranger_is_read_a_greeting_of_and_no_more() {
        let bounds = Bounds::default();
        let mut bytes = BytesMut::new();
        encode(&Frame::Filler(vec![0; bounds.greeting_bytes].into()), &mut bytes);
        let mut reader = FrameReader::of_stranger(&bytes[..], bounds);
        assert!(matches!(reader.next().await, Err(LinkError::Frame(_))));
        let mut reader = FrameReader::of_stranger(&bytes[..], bounds);
        reader.trust();
        assert!(matches!(reader.next().await, Ok(Frame::Filler(_))));
    }

    #[tokio::test]
    async fn frames_are_read_whole_however_the_stream_is_cut() {
        let frames = [Frame::Ping { nonce: 1 }, Frame::Filler(vec![7; 100].into()), Frame::Pong { nonce: 2 }];
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| encode(frame, &mut bytes));
        for cut in 0..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let mut reader = FrameReader::new(head.chain(tail), Bounds::default());
            for frame in &frames {
                assert_eq!(reader.next().await.unwrap(), *frame, "cut at {cut}");
            }
            assert!(matches!(reader.next().await, Err(LinkError::Closed)));
        }
    }
}
