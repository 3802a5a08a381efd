//! Transports: what the bytes of a connection are carried by. A socket, or a way over a hub, in which both ends are sealed once more.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What carries the bytes of a connection.
pub enum Transport {
    Socket(TcpStream),
    Relayed(Box<Relayed>),
}

/// A connection on which no more frames are said: it carries the bytes of others, as they are.
pub struct Relayed {
    /// What has come already behind the last frame.
    early: Bytes,
    stream: Box<dyn BothWays>,
    /// The other end of the connection: of a phone's, the hub.
    address: SocketAddr,
}

/// Bytes there and back.
trait BothWays: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> BothWays for S {}

// === impl Relayed ===

impl Relayed {
    pub(crate) fn new(
        early: Bytes,
        stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        address: SocketAddr,
    ) -> Self {
        Self { early, stream: Box::new(stream), address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl AsyncRead for Relayed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let n_bytes = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..n_bytes]);
        self.early.advance(n_bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Relayed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Transport ===

impl Transport {
    /// The other end of what it runs over.
    ///
    /// # Errors
    /// When a socket has none any more.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Socket(socket) => socket.peer_addr(),
            Self::Relayed(relayed) => Ok(relayed.address),
        }
    }

    /// Frames are small and each is waited for.
    pub(crate) fn hurry(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.set_nodelay(true),
            Self::Relayed(_) => Ok(()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Relayed(relayed) => Pin::new(relayed).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Relayed(relayed) => Pin::new(relayed).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
            Self::Relayed(relayed) => Pin::new(relayed).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Socket(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_flush(cx),
            Self::Relayed(relayed) => Pin::new(relayed).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Relayed(relayed) => Pin::new(relayed).poll_shutdown(cx),
        }
    }
}
