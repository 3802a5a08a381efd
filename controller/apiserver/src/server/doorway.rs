//! The doorway: one port that speaks TLS and plain HTTP, told apart by a connection's first byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Connections that have not yet shown what they speak, or are in their handshake.
const MAX_ENTERING: usize = 64;
/// How long that may take.
const ENTER_WITHIN: Duration = Duration::from_secs(10);
/// After the system had no connection to give: out of descriptors, say.
const PAUSE: Duration = Duration::from_millis(200);
/// The first byte of every TLS connection: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection, whichever it speaks.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

type Entered = (Box<dyn Connection>, SocketAddr);

/// Connections that are ready for HTTP. A slow handshake holds up nobody else.
pub struct Doorway {
    entered: mpsc::Receiver<Entered>,
    address: SocketAddr,
    porter: JoinHandle<()>,
}

// === impl Doorway ===

impl Doorway {
    pub fn new(listener: TcpListener, acceptor: TlsAcceptor) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (send, entered) = mpsc::channel(MAX_ENTERING);
        let porter = tokio::spawn(admit(listener, acceptor, send));
        Ok(Doorway {
            entered,
            address,
            porter,
        })
    }
}

impl Drop for Doorway {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

impl Listener for Doorway {
    type Io = Box<dyn Connection>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Entered {
        match self.entered.recv().await {
            Some(entered) => entered,
            // The porter ended, so nobody will come.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn admit(listener: TcpListener, acceptor: TlsAcceptor, entered: mpsc::Sender<Entered>) {
    let places = Arc::new(Semaphore::new(MAX_ENTERING));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
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
            let _place = place;
            // Who is too slow, or speaks neither, is hung up on: it has no way to read an answer.
            if let Ok(Ok(connection)) =
                tokio::time::timeout(ENTER_WITHIN, enter(stream, &acceptor)).await
            {
                let _ = entered.send((connection, address)).await;
            }
        });
    }
}

async fn enter(stream: TcpStream, acceptor: &TlsAcceptor) -> std::io::Result<Box<dyn Connection>> {
    // Answers are small and someone waits for each.
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0] == TLS_HANDSHAKE {
        Ok(Box::new(acceptor.accept(stream).await?))
    } else {
        Ok(Box::new(stream))
    }
}
