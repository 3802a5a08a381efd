//! Writes frames to a stream, each write within a deadline; frames that wait together go out in one.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use polyphony_protocol::{Frame, encode};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::{LinkError, Tally};

/// The writing half of a connection. A write that is cancelled leaves a frame cut in two: the connection is then to be dropped.
pub struct FrameWriter<W = OwnedWriteHalf> {
    stream: W,
    bytes: BytesMut,
    deadline: Duration,
    tally: Arc<dyn Tally>,
}

/// How much is gathered into one write.
const BATCH_BYTES: usize = 64 << 10;
/// A buffer that one long frame has stretched beyond this is given back.
const KEPT_BYTES: usize = 4 * BATCH_BYTES;

// === impl FrameWriter ===

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer whose every write must be taken within `deadline`.
    pub fn new(stream: W, deadline: Duration, tally: Arc<dyn Tally>) -> Self {
        Self { stream, bytes: BytesMut::new(), deadline, tally }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// When the stream breaks, or does not take it within the deadline.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), LinkError> {
        self.append(frame);
        self.flush().await
    }

    /// Writes a frame and, with it, what waits in `queue`.
    ///
    /// # Errors
    /// As [`FrameWriter::write`].
    pub async fn write_with(&mut self, first: &Frame, queue: &mut mpsc::Receiver<Frame>) -> Result<(), LinkError> {
        self.append(first);
        while self.bytes.len() < BATCH_BYTES {
            let Ok(frame) = queue.try_recv() else { break };
            self.append(&frame);
        }
        self.flush().await
    }

    /// Writes the frames of a queue until the queue is closed.
    ///
    /// # Errors
    /// As [`FrameWriter::write`].
    pub async fn write_queue(&mut self, queue: &mut mpsc::Receiver<Frame>) -> Result<(), LinkError> {
        while let Some(frame) = queue.recv().await {
            self.write_with(&frame, queue).await?;
        }
        Ok(())
    }

    fn append(&mut self, frame: &Frame) {
        let before = self.bytes.len();
        encode(frame, &mut self.bytes);
        self.tally.sent(frame, self.bytes.len() - before);
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        let written = tokio::time::timeout(self.deadline, self.stream.write_all(&self.bytes)).await;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = BytesMut::new();
        }
        self.bytes.clear();
        Ok(written.map_err(|_| LinkError::SlowWrite(self.deadline))??)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::connection::Bounds;
    use crate::{FrameReader, Uncounted};

    #[derive(Default)]
    struct Bytes(AtomicUsize);

    impl Tally for Bytes {
        fn sent(&self, _frame: &Frame, n_bytes: usize) {
            self.0.fetch_add(n_bytes, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn frames_that_wait_go_out_in_their_order_and_every_byte_is_counted() {
        let (counted, (sender, mut queue)) = (Arc::new(Bytes::default()), mpsc::channel(8));
        for nonce in 0..5 {
            sender.try_send(Frame::Ping { nonce }).unwrap();
        }
        drop(sender);
        let mut stream = Vec::new();
        FrameWriter::new(&mut stream, Duration::from_secs(5), counted.clone()).write_queue(&mut queue).await.unwrap();
        assert_eq!(counted.0.load(Ordering::Relaxed), stream.len());
        let mut reader = FrameReader::new(&stream[..], Bounds::default());
        for nonce in 0..5 {
            assert_eq!(reader.next().await.unwrap(), Frame::Ping { nonce });
        }
    }

    #[tokio::test]
    async fn a_write_that_is_not_taken_ends() {
        let (stream, _never_read) = tokio::io::duplex(64);
        let mut writer = FrameWriter::new(stream, Duration::from_millis(1), Arc::new(Uncounted));
        let end = writer.write(&Frame::Filler(vec![0; 4096].into())).await;
        assert!(matches!(end, Err(LinkError::SlowWrite(_))), "{end:?}");
    }
}
