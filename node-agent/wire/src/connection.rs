//! Connections: the one place that dials another program of ours, and the one that lets one in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use polyphony_protocol::frame::MAX_FRAME_BYTES;
use tokio::net::{TcpListener, TcpStream};

use crate::{FrameReader, FrameWriter, LinkError, Tally};

/// How this program meets others: what it takes from them, how long it waits, and who counts what it sends.
#[derive(Clone)]
pub struct Wire {
    bounds: Bounds,
    tally: Arc<dyn Tally>,
}

/// What one end of a connection takes, and how long it waits for its own bytes to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The longest frame of who has not said yet who it is.
    pub greeting_bytes: usize,
    /// The longest frame of everyone else.
    pub frame_bytes: usize,
    /// A write that takes longer means that the other end is gone.
    pub write_deadline: Duration,
}

/// A connection that carries frames.
pub struct Connection {
    pub reader: FrameReader,
    pub writer: FrameWriter,
    /// The other end.
    pub peer: SocketAddr,
}

/// Who has knocked and has not been spoken with.
pub struct Caller {
    pub from: SocketAddr,
    stream: TcpStream,
    wire: Wire,
}

/// Pause after a failed accept, such as when file descriptors have run out: some come back, and nothing spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self { greeting_bytes: 64 << 10, frame_bytes: MAX_FRAME_BYTES, write_deadline: Duration::from_secs(10) }
    }
}

// === impl Wire ===

impl Wire {
    pub fn new(bounds: Bounds, tally: Arc<dyn Tally>) -> Self {
        Self { bounds, tally }
    }

    /// Connects to `address`, `HOST:PORT`.
    ///
    /// # Errors
    /// When nobody answers there, or not within `deadline`.
    pub async fn dial(&self, address: &str, deadline: Duration) -> Result<Connection, LinkError> {
        let connecting = TcpStream::connect(address);
        let stream = tokio::time::timeout(deadline, connecting).await.map_err(|_| LinkError::Silent(deadline))??;
        let peer = stream.peer_addr()?;
        self.connection(stream, peer, FrameReader::new)
    }

    /// The next who knocks. Cancelling loses nobody.
    pub async fn accept(&self, listener: &TcpListener) -> Caller {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => return Caller { from, stream, wire: self.clone() },
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        reader: fn(tokio::net::tcp::OwnedReadHalf, Bounds) -> FrameReader,
    ) -> Result<Connection, LinkError> {
        // Frames are small and each is waited for.
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let writer = FrameWriter::new(write, self.bounds.write_deadline, self.tally.clone());
        Ok(Connection { reader: reader(read, self.bounds), writer, peer })
    }
}

// === impl Caller ===

impl Caller {
    /// Lets the caller in, as a stranger. To be called by the task that serves this one caller: it may be slow.
    ///
    /// # Errors
    /// When it has gone already.
    pub async fn meet(self) -> Result<Connection, LinkError> {
        self.wire.connection(self.stream, self.from, FrameReader::of_stranger)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::Frame;

    use super::*;
    use crate::Uncounted;

    #[tokio::test]
    async fn who_dials_is_met_as_a_stranger_and_heard() {
        let wire = Wire::new(Bounds::default(), Arc::new(Uncounted));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let written = address.to_string();
        let (dialled, caller) = tokio::join!(wire.dial(&written, Duration::from_secs(5)), wire.accept(&listener));
        let (mut dialled, mut met) = (dialled.unwrap(), caller.meet().await.unwrap());
        assert_eq!(dialled.peer, address);
        dialled.writer.write(&Frame::Ping { nonce: 7 }).await.unwrap();
        assert_eq!(met.reader.next().await.unwrap(), Frame::Ping { nonce: 7 });
        dialled.writer.write(&Frame::Filler(vec![0; 65 << 10].into())).await.unwrap();
        assert!(matches!(met.reader.next().await, Err(LinkError::Frame(_))), "a stranger sent more than a greeting");
    }
}
