//! Connections: the one place that dials another program of ours, and the one that lets one in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use polyphony_identity::{Proven, Whom};
use polyphony_protocol::frame::MAX_FRAME_BYTES;
use tokio::net::{TcpListener, TcpStream};

use crate::security::{Proof, Security};
use crate::stream::{Meter, Metered, Stream};
use crate::transport::{Relayed, Transport};
use crate::{FrameReader, FrameWriter, LinkError, Tally};

/// How this program meets others: what it takes from them, how long it waits, who counts what it sends, and how each knows the other.
#[derive(Clone)]
pub struct Wire {
    bounds: Bounds,
    tally: Arc<dyn Tally>,
    security: Security,
}

/// What one end of a connection takes, and how long it waits for its own bytes to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The longest frame of who has not said yet who it is.
    pub greeting_bytes: usize,
    /// The longest frame of everyone else.
    pub frame_bytes: usize,
    /// An end that takes no byte of a write for this long is gone.
    pub write_deadline: Duration,
}

/// A connection that carries frames.
pub struct Connection {
    pub reader: FrameReader,
    pub writer: FrameWriter,
    pub peer: Peer,
    /// Of all bytes on the wire, those of TLS included; over a hub, of those that it passes on.
    pub meter: Arc<Meter>,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    pub proof: Proof,
}

/// Who has knocked and has not been spoken with.
pub struct Caller {
    pub from: SocketAddr,
    transport: Transport,
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
    pub fn new(bounds: Bounds, tally: Arc<dyn Tally>, security: Security) -> Self {
        Self { bounds, tally, security }
    }

    /// Connects to `address`, `HOST:PORT`, where `whom` is to be.
    ///
    /// # Errors
    /// When nobody answers there, not within `deadline`, or somebody else does.
    pub async fn dial(&self, address: &str, whom: &Whom, deadline: Duration) -> Result<Connection, LinkError> {
        let dialling = async { self.greet(Transport::Socket(TcpStream::connect(address).await?), whom).await };
        tokio::time::timeout(deadline, dialling).await.map_err(|_| LinkError::Silent(deadline))?
    }

    /// Connects over a hub, where `whom` is to be at the other end of the way.
    ///
    /// # Errors
    /// When nobody answers there, not within `deadline`, or somebody else does.
    pub async fn dial_over(&self, way: Relayed, whom: &Whom, deadline: Duration) -> Result<Connection, LinkError> {
        let dialling = self.greet(Transport::Relayed(Box::new(way)), whom);
        tokio::time::timeout(deadline, dialling).await.map_err(|_| LinkError::Silent(deadline))?
    }

    async fn greet(&self, transport: Transport, whom: &Whom) -> Result<Connection, LinkError> {
        let address = transport.address()?;
        transport.hurry()?;
        let (stream, meter) = Metered::new(transport);
        let stream = self.security.dial(stream, whom).await?;
        Ok(self.connection(stream, meter, address, FrameReader::new))
    }

    /// Whoever is at the other end of a way over a hub.
    pub fn caller_over(&self, way: Relayed) -> Caller {
        Caller { from: way.address(), transport: Transport::Relayed(Box::new(way)), wire: self.clone() }
    }

    /// The next who knocks. Cancelling loses nobody.
    pub async fn accept(&self, listener: &TcpListener) -> Caller {
        loop {
            match listener.accept().await {
                Ok((socket, from)) => {
                    return Caller { from, transport: Transport::Socket(socket), wire: self.clone() };
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: Stream, meter: Arc<Meter>, address: SocketAddr, reader: NewReader) -> Connection {
        let proof = self.security.proof(&stream);
        let (read, write) = tokio::io::split(stream);
        let reader = reader(read, self.bounds, meter.clone());
        let writer = FrameWriter::new(write, self.bounds.write_deadline, self.tally.clone(), meter.clone());
        Connection { reader, writer, peer: Peer { address, proof }, meter }
    }
}

type NewReader = fn(tokio::io::ReadHalf<Stream>, Bounds, Arc<Meter>) -> FrameReader;

// === impl Connection ===

impl Connection {
    /// Who the other end has shown to be.
    pub fn proven(&self) -> Option<&Proven> {
        self.peer.proof.proven()
    }

    /// Ends the frames: what follows is of others. To be called when both ends have agreed on that, and nothing that was written waits.
    pub fn into_relayed(self) -> Relayed {
        let (read, early) = self.reader.into_parts();
        Relayed::new(early, read.unsplit(self.writer.into_stream()), self.peer.address)
    }
}

// === impl Caller ===

impl Caller {
    /// Lets the caller in, as a stranger as far as frames go. To be called by the task that serves this one caller: it may be slow.
    ///
    /// # Errors
    /// When it has gone already, or has not shown within `deadline` who it is.
    pub async fn meet(self, deadline: Duration) -> Result<Connection, LinkError> {
        let Self { from, transport, wire } = self;
        let meeting = async {
            transport.hurry()?;
            let (stream, meter) = Metered::new(transport);
            let stream = wire.security.let_in(stream).await?;
            Ok(wire.connection(stream, meter, from, FrameReader::of_stranger))
        };
        tokio::time::timeout(deadline, meeting).await.map_err(|_| LinkError::Silent(deadline))?
    }
}

#[cfg(test)]
mod tests;
