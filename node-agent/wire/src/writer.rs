//! Writes frames to a stream that has to take bytes now and then; frames that wait together go out in one.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use polyphony_protocol::{Frame, encode};
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;

use crate::stream::{Meter, Stream};
use crate::{Lanes, LinkError, Tally};

/// The writing half of a connection. A write that is cancelled, or fails, leaves a frame cut in two: nothing more goes out then.
pub struct FrameWriter<W = WriteHalf<Stream>> {
    stream: W,
    bytes: BytesMut,
    is_cut: bool,
    deadline: Duration,
    tally: Arc<dyn Tally>,
    meter: Arc<Meter>,
}

/// How much is gathered into one write.
const BATCH_BYTES: usize = 64 << 10;
/// A buffer that one long frame has stretched beyond this is given back.
const KEPT_BYTES: usize = 4 * BATCH_BYTES;
/// Looks at what the system has taken within the deadline.
const LOOKS: u32 = 8;

// === impl FrameWriter ===

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer whose stream takes some bytes within each `deadline`: a slow one is not gone.
    pub fn new(stream: W, deadline: Duration, tally: Arc<dyn Tally>, meter: Arc<Meter>) -> Self {
        Self { stream, bytes: BytesMut::new(), is_cut: false, deadline, tally, meter }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// When the stream breaks, or takes nothing of it for as long as the deadline.
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

    /// Writes what waits in lanes until they are closed.
    ///
    /// # Errors
    /// As [`FrameWriter::write`].
    pub async fn write_lanes(&mut self, lanes: &mut Lanes) -> Result<(), LinkError> {
        while let Some(first) = lanes.next().await {
            self.append(&first);
            while self.bytes.len() < BATCH_BYTES {
                let Some(frame) = lanes.try_next() else { break };
                self.append(&frame);
            }
            self.flush().await?;
        }
        Ok(())
    }

    pub(crate) fn into_stream(self) -> W {
        self.stream
    }

    fn append(&mut self, frame: &Frame) {
        let before = self.bytes.len();
        encode(frame, &mut self.bytes);
        self.tally.sent(frame, self.bytes.len() - before);
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        // For as long as it is not whole, whoever gives it up.
        if std::mem::replace(&mut self.is_cut, true) {
            return Err(LinkError::Closed);
        }
        let written = self.write_out().await;
        self.is_cut = written.is_err();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = BytesMut::new();
        }
        self.bytes.clear();
        written
    }

    async fn write_out(&mut self) -> Result<(), LinkError> {
        let mut rest = &self.bytes[..];
        let (mut n_written, mut since) = (self.meter.n_written(), Instant::now());
        loop {
            // What TLS holds back is out when it is flushed.
            let part = async {
                match rest {
                    [] => self.stream.flush().await.map(|()| None),
                    rest => self.stream.write(rest).await.map(Some),
                }
            };
            match tokio::time::timeout(self.deadline / LOOKS, part).await {
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(0))) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(Ok(Some(n_bytes))) => (rest, since) = (&rest[n_bytes..], Instant::now()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if self.meter.n_written() > n_written => {
                    (n_written, since) = (self.meter.n_written(), Instant::now());
                }
                Err(_) if since.elapsed() >= self.deadline => return Err(LinkError::SlowWrite(self.deadline)),
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt;

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
        FrameWriter::new(&mut stream, Duration::from_secs(5), counted.clone(), Arc::default())
            .write_queue(&mut queue)
            .await
            .unwrap();
        assert_eq!(counted.0.load(Ordering::Relaxed), stream.len());
        let mut reader = FrameReader::new(&stream[..], Bounds::default(), Arc::default());
        for nonce in 0..5 {
            assert_eq!(reader.next().await.unwrap(), Frame::Ping { nonce });
        }
    }

    #[tokio::test]
    async fn a_write_that_is_not_taken_ends() {
        let (stream, _never_read) = tokio::io::duplex(64);
        let mut writer = FrameWriter::new(stream, Duration::from_millis(1), Arc::new(Uncounted), Arc::default());
        let end = writer.write(&Frame::Filler(vec![0; 4096].into())).await;
        assert!(matches!(end, Err(LinkError::SlowWrite(_))), "{end:?}");
    }

    #[tokio::test]
    async fn nothing_follows_a_frame_that_was_cut_in_two() {
        let (stream, mut reader) = tokio::io::duplex(64);
        let mut writer = FrameWriter::new(stream, Duration::from_secs(60), Arc::new(Uncounted), Arc::default());
        let long = Frame::Filler(vec![0; 4096].into());
        tokio::select! {
            biased;
            end = writer.write(&long) => panic!("{end:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert!(matches!(writer.write(&Frame::Ping { nonce: 1 }).await, Err(LinkError::Closed)));
        drop(writer);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 64, "what had gone out before, and no more");
    }

    #[tokio::test]
    async fn a_write_that_is_taken_slowly_goes_on() {
        let (stream, mut reader) = tokio::io::duplex(32);
        let deadline = Duration::from_millis(1500);
        let mut writer = FrameWriter::new(stream, deadline, Arc::new(Uncounted), Arc::default());
        let frame = Frame::Filler(vec![7; 2600].into());
        // Longer in all than the deadline: 83 pieces, each a moment after the one before.
        let reading = async {
            let (mut all, mut piece) = (BytesMut::new(), [0; 32]);
            while all.len() < 2640 {
                tokio::time::sleep(deadline / 60).await;
                let n_bytes = reader.read(&mut piece).await.unwrap();
                all.extend_from_slice(&piece[..n_bytes]);
            }
            all
        };
        let (written, read) = tokio::join!(writer.write(&frame), reading);
        written.unwrap();
        assert_eq!(FrameReader::new(&read[..], Bounds::default(), Arc::default()).next().await.unwrap(), frame);
    }
}
