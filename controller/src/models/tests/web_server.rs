//! A web server of one file over TLS, on loopback, which breaks off as it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

pub struct WebServer {
    pub port: u16,
    pub certificate: CertificateDer<'static>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl WebServer {
    /// The heads of the requests that came, in small letters.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Answers each request with the file, or what is left of it; the answers break off after so many bytes.
pub fn start(file: Vec<u8>, mut breaks: VecDeque<Option<usize>>) -> WebServer {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let told = heads.clone();
    tokio::spawn(async move {
        let (listener, acceptor) =
            (tokio::net::TcpListener::from_std(listener).unwrap(), TlsAcceptor::from(Arc::new(config)));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let from =
                head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
            told.lock().unwrap().push(head);
            let (rest, status) = match from {
                Some(from) => (
                    &file[from..],
                    format!("206 Partial\r\ncontent-range: bytes {from}-{}/{}", file.len() - 1, file.len()),
                ),
                None => (&file[..], "200 OK".to_owned()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"tag\"\r\nconnection: close\r\n\r\n",
                rest.len()
            );
            let sent = breaks.pop_front().flatten().unwrap_or(rest.len()).min(rest.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.write_all(&rest[..sent]).await;
            let _ = stream.shutdown().await;
        }
    });
    WebServer { port, certificate, heads }
}
