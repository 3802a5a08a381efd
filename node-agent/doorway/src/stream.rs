//! Stream: a connection's bytes, in TLS or plain, watched for who is silent and who does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::hall::Guest;
use crate::visit::Visit;

/// The first byte of every TLS connection: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that has shown what it speaks.
pub(crate) struct Stream {
    bytes: Bytes,
    guest: Arc<Guest>,
}

enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Stream ===

impl Stream {
    /// Where there is an acceptor the first byte tells TLS from plain HTTP.
    pub(crate) async fn enter(stream: TcpStream, tls: Option<&TlsAcceptor>, guest: Arc<Guest>) -> io::Result<Self> {
        // Answers come in small pieces, and someone waits for each.
        stream.set_nodelay(true)?;
        let mut first = [0];
        stream.peek(&mut first).await?;
        let bytes = match tls.filter(|_| first[0] == TLS_HANDSHAKE) {
            Some(acceptor) => Bytes::Tls(Box::new(acceptor.accept(stream).await?)),
            None => Bytes::Plain(stream),
        };
        guest.note(Visit::enter);
        Ok(Self { bytes, guest })
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Bytes::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if buffer.filled().len() > before {
            self.guest.note(Visit::hear);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Bytes::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.guest.note(|visit, now| visit.write(polled.is_ready(), now));
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Bytes::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.guest.note(|visit, now| visit.write(polled.is_ready(), now));
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Bytes::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
