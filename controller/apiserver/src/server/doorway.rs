//! The doorway: one port that speaks TLS and plain HTTP, told apart by a connection's first byte.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Connections that have not yet shown what they speak, or are in their handshake.
const MAX_ENTERING: usize = 64;
/// Connections that are open at the same time; the next one waits.
const MAX_CONNECTIONS: usize = 4096;
/// How long that may take.
const ENTER_WITHIN: Duration = Duration::from_secs(10);
/// After the system had no connection to give: out of descriptors, say.
const PAUSE: Duration = Duration::from_millis(200);
/// The first byte of every TLS connection: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection, whichever it speaks.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

type Entered = (Placed, SocketAddr);

/// A connection with its place among those that may be open.
pub struct Placed {
    connection: Box<dyn Connection>,
    _place: OwnedSemaphorePermit,
}

/// Connections that are ready for HTTP. A slow handshake holds up nobody else.
pub struct Doorway {
    entered: mpsc::Receiver<Entered>,
    address: SocketAddr,
    porter: JoinHandle<()>,
}

// === impl Doorway ===

impl Doorway {
    pub fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (send, entered) = mpsc::channel(MAX_ENTERING);
        let porter = tokio::spawn(admit(listener, acceptor, send));
        Ok(Doorway { entered, address, porter })
    }
}

impl Drop for Doorway {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

impl Listener for Doorway {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Entered {
        match self.entered.recv().await {
            Some(entered) => entered,
            // The porter ended, so nobody will come.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn admit(listener: TcpListener, acceptor: TlsAcceptor, entered: mpsc::Sender<Entered>) {
    let (entering, open) = (Arc::new(Semaphore::new(MAX_ENTERING)), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let (Ok(entering), Ok(place)) = (entering.clone().acquire_owned().await, open.clone().acquire_owned().await)
        else {
            return;
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, entered) = (acceptor.clone(), entered.clone());
        tokio::spawn(async move {
            let _entering = entering;
            // Who is too slow, or speaks neither, is hung up on: it has no way to read an answer.
            if let Ok(Ok(connection)) = tokio::time::timeout(ENTER_WITHIN, enter(stream, &acceptor)).await {
                let _ = entered.send((Placed { connection, _place: place }, address)).await;
            }
        });
    }
}

async fn enter(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<Box<dyn Connection>> {
    // Answers are small and someone waits for each.
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0] == TLS_HANDSHAKE { Ok(Box::new(acceptor.accept(stream).await?)) } else { Ok(Box::new(stream)) }
}

// === impl Placed ===

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}
