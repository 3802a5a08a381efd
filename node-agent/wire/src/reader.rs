//! Reads frames off a stream: none longer than its bound, and from a stranger none longer than a greeting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use polyphony_protocol::{Frame, decode};
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};

use crate::LinkError;
use crate::connection::Bounds;
use crate::stream::{Meter, Metered, Stream};

/// The reading half of a connection.
pub struct FrameReader<R = ReadHalf<Stream>> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
    bounds: Bounds,
    meter: Arc<Meter>,
}

// === impl FrameReader ===

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader for whoever has not yet said who it is: no frame over a greeting's bytes until it is [trusted](Self::trust).
    pub fn of_stranger(stream: R, bounds: Bounds, meter: Arc<Meter>) -> Self {
        Self { stream, buffer: BytesMut::new(), limit: bounds.greeting_bytes, bounds, meter }
    }

    /// A reader for whom this end has chosen to talk to.
    pub fn new(stream: R, bounds: Bounds, meter: Arc<Meter>) -> Self {
        Self { limit: bounds.frame_bytes, ..Self::of_stranger(stream, bounds, meter) }
    }

    /// Takes frames of every size that the bounds allow from now on.
    pub fn trust(&mut self) {
        self.limit = self.bounds.frame_bytes;
    }

    /// Bytes that have come so far, of whole frames or not: where they become more, the other end is there.
    pub fn n_bytes_read(&self) -> u64 {
        self.meter.n_read()
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
            self.read().await?;
        }
    }

    /// The next frame, or an error when none comes within `deadline`.
    ///
    /// # Errors
    /// As [`FrameReader::next`], and [`LinkError::Silent`].
    pub async fn next_within(&mut self, deadline: Duration) -> Result<Frame, LinkError> {
        tokio::time::timeout(deadline, self.next()).await.map_err(|_| LinkError::Silent(deadline))?
    }

    /// The next frame, or an error when no byte comes for as long as `silence`. A frame may take its time: slow is not silent.
    ///
    /// # Errors
    /// As [`FrameReader::next`], and [`LinkError::Silent`].
    pub async fn next_unless_silent(&mut self, silence: Duration) -> Result<Frame, LinkError> {
        let mut heard = (self.n_bytes_read(), Instant::now());
        loop {
            if let Some(frame) = decode(&mut self.buffer, self.limit)? {
                return Ok(frame);
            }
            // Looked at more often than that: bytes of a record that is not whole wake nobody.
            if let Ok(read) = tokio::time::timeout(silence / LOOKS, self.read()).await {
                read?;
            }
            let n_bytes = self.n_bytes_read();
            if n_bytes > heard.0 {
                heard = (n_bytes, Instant::now());
            } else if heard.1.elapsed() >= silence {
                return Err(LinkError::Silent(silence));
            }
        }
    }

    /// The stream, and what has come of it behind the last frame.
    pub(crate) fn into_parts(self) -> (R, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    async fn read(&mut self) -> Result<(), LinkError> {
        self.buffer.reserve(READ_BYTES);
        let n_bytes = self.stream.read_buf(&mut self.buffer).await?;
        if n_bytes == 0 { Err(LinkError::Closed) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> FrameReader<Metered<S>> {
    /// A reader that counts what comes out of `stream` itself.
    pub fn metered(stream: S, bounds: Bounds) -> Self {
        let (stream, meter) = Metered::new(stream);
        Self::new(stream, bounds, meter)
    }
}

/// Room for one read at least.
const READ_BYTES: usize = 16 << 10;
/// Looks at what has come within the silence that is allowed.
const LOOKS: u32 = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::encode;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_stranger_is_read_a_greeting_of_and_no_more() {
        let bounds = Bounds::default();
        let mut bytes = BytesMut::new();
        encode(&Frame::Filler(vec![0; bounds.greeting_bytes].into()), &mut bytes);
        let mut reader = FrameReader::of_stranger(&bytes[..], bounds, Arc::default());
        assert!(matches!(reader.next().await, Err(LinkError::Frame(_))));
        let mut reader = FrameReader::of_stranger(&bytes[..], bounds, Arc::default());
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
            let mut reader = FrameReader::new(head.chain(tail), Bounds::default(), Arc::default());
            for frame in &frames {
                assert_eq!(reader.next().await.unwrap(), *frame, "cut at {cut}");
            }
            assert!(matches!(reader.next().await, Err(LinkError::Closed)));
        }
    }

    #[tokio::test]
    async fn a_frame_that_comes_slowly_is_no_silence() {
        let silence = Duration::from_millis(1500);
        let mut bytes = BytesMut::new();
        encode(&Frame::Filler(vec![7; 40].into()), &mut bytes);
        let (stream, mut writer) = tokio::io::duplex(1);
        let mut reader = FrameReader::metered(stream, Bounds::default());
        let writing = async {
            // Longer in all than the silence that is allowed.
            for byte in bytes.chunks(1) {
                tokio::time::sleep(silence / 60).await;
                writer.write_all(byte).await.unwrap();
            }
            writer
        };
        let (frame, _writer) = tokio::join!(reader.next_unless_silent(silence), writing);
        assert!(matches!(frame, Ok(Frame::Filler(_))), "{frame:?}");
        assert_eq!(reader.n_bytes_read(), 80);
        let silent = reader.next_unless_silent(Duration::from_millis(1)).await;
        assert!(matches!(silent, Err(LinkError::Silent(_))), "{silent:?}");
    }
}
