//! Stream: a connection's bytes, in TLS or plain, watched for who is silent and who does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::hall::Guest;
use crate::tls::{Certificates, Tls};
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

/// What who speaks plain HTTP hears where TLS is spoken.
const PLAIN_REFUSED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 41\r\nconnection: close\r\n\r\n\
    this port speaks TLS alone: use https://\n";

/// Whatever was asked is not read: it may hold a secret that should not have been sent so.
async fn refuse_plain(mut stream: TcpStream) -> io::Error {
    // It hears this or not.
    let _ = stream.write_all(PLAIN_REFUSED).await;
    let _ = stream.shutdown().await;
    io::Error::new(io::ErrorKind::InvalidData, "plain HTTP where TLS is spoken")
}

// === impl Stream ===

impl Stream {
    /// Where there is an acceptor the first byte tells TLS from plain HTTP.
    ///
    /// # Errors
    /// When the handshake fails, or it speaks plain where that is not taken, which it is told.
    pub(crate) async fn enter(stream: TcpStream, tls: Option<&Tls>, guest: Arc<Guest>) -> io::Result<Self> {
        // Answers come in small pieces, and someone waits for each.
        stream.set_nodelay(true)?;
        let mut first = [0];
        stream.peek(&mut first).await?;
        let bytes = match tls {
            Some(tls) if first[0] == TLS_HANDSHAKE => Bytes::Tls(Box::new(tls.acceptor.accept(stream).await?)),
            Some(tls) if !tls.plain_from_loopback || !stream.peer_addr()?.ip().to_canonical().is_loopback() => {
                return Err(refuse_plain(stream).await);
            }
            _ => Bytes::Plain(stream),
        };
        guest.note(Visit::enter);
        Ok(Self { bytes, guest })
    }

    /// Those that the client showed; none in plain.
    pub(crate) fn certificates(&self) -> http::Extensions {
        let mut extensions = http::Extensions::new();
        if let Bytes::Tls(stream) = &self.bytes {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            extensions.insert(Certificates(shown.iter().map(|one| one.clone().into_owned()).collect()));
        }
        extensions
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
