//! Who is let in, and what needs no key.

use axum::body::Body;
use http::Request;
use polyphony_apiserver::{ApiServer, ApiServerConfig, ApiServerError};

use crate::harness::{Server, WIDGETS, open};

#[tokio::test]
async fn health_needs_no_token_and_all_else_does() {
    let server = Server::start();
    for path in ["/healthz", "/readyz", "/livez"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(server.send(request).await.is(200), "ok");
    }
    for path in ["/version", "/api", "/openapi/v3", "/backup", WIDGETS] {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        server.send(request).await.fails(401, "Unauthorized");
        let foreign = Request::get(path).header("host", "evil.example").header("authorization", "Bearer token");
        server.send(foreign.body(Body::empty()).unwrap()).await.fails(403, "Forbidden");
    }
    assert_eq!(server.get("/version").await.is(200)["major"], "1");
    server.get("/openapi/v1").await.fails(404, "NotFound");
}

#[tokio::test]
async fn a_viewer_reads_all_but_secrets_and_changes_nothing() {
    let server = Server::start();
    let ask = async |method: &str, path: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("authorization", "Bearer look").header("content-type", "application/json");
        server.send(request.body(Body::from(body.to_owned())).unwrap()).await
    };
    ask("GET", WIDGETS, "").await.is(200);
    let namespace = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}"#;
    ask("POST", "/api/v1/namespaces", namespace).await.fails(403, "Forbidden");
    ask("DELETE", "/api/v1/namespaces/default", "").await.fails(403, "Forbidden");
    for path in [
        "/backup",
        "/api/v1/secrets",
        "/api/v1/namespaces/default/secrets/a",
        "/api/v1/namespaces/default/secrets?watch=true",
    ] {
        ask("GET", path, "").await.fails(403, "Forbidden");
    }
    server.get("/api/v1/namespaces/x").await.fails(404, "NotFound");
}

#[tokio::test]
async fn nobody_is_answered_as_somebody_else() {
    let server = Server::start();
    let request = Request::get(WIDGETS).header("host", "localhost").header("authorization", "Bearer token");
    let request = request.header("Impersonate-User", "looker");
    server.send(request.body(Body::empty()).unwrap()).await.fails(403, "Forbidden");
}

#[tokio::test]
async fn an_empty_token_and_a_store_in_use_are_refused() {
    let server = Server::start();
    let config = ApiServerConfig {
        store_path: server.directory.path().join("store.redb"),
        token: String::new(),
        bearers: Vec::new(),
        by_certificate: None,
        crds: Vec::new(),
        allowed_hosts: Vec::new(),
    };
    assert!(matches!(ApiServer::open(config.clone()), Err(ApiServerError::NoToken)));
    let error = ApiServer::open(ApiServerConfig { token: "t".to_owned(), ..config }).err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[tokio::test]
async fn one_port_speaks_tls_and_plain_http_and_closes_its_watches_at_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let server = open(directory.path(), "store.redb");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(server.serve(listener, Some(acceptor()), shutdown.clone()));

    polyphony_wire::take_ring();
    let client = reqwest::Client::new();
    let watch = format!("http://{address}{WIDGETS}?watch=true&resourceVersion=0");
    let response = client.get(&watch).bearer_auth("token").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let unknown = client.get(&watch).send().await.unwrap();
    assert_eq!(unknown.status().as_u16(), 401);

    let handshake = tls_hello(address).await;
    // A record of the handshake, in version 3.3 as TLS 1.2 and 1.3 both write it: a ServerHello.
    assert_eq!(handshake, [0x16, 3, 3]);

    shutdown.cancel();
    assert_eq!(response.text().await.unwrap(), "");
    serving.await.unwrap();
    // The file is free again.
    drop(open(directory.path(), "store.redb"));
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(open(directory.path(), "store.redb").serve(listener, None, shutdown.clone()));
    let silent: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    // Before the first of the silent ones is shown out.
    polyphony_wire::take_ring();
    let answered =
        reqwest::Client::new().get(format!("http://{address}/healthz")).timeout(std::time::Duration::from_secs(4));
    assert_eq!(answered.send().await.unwrap().status().as_u16(), 200);
    shutdown.cancel();
    serving.await.unwrap();
    drop(silent);
}

/// Speaks TLS as the API of some installation.
fn acceptor() -> tokio_rustls::TlsAcceptor {
    use polyphony_identity::{Audience, Authority, Clock, Credentials, DEFAULT_DOMAIN, Key, Lifetimes, Name, Role};

    let now = Clock::system().now();
    let (authority, key) =
        (Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now).unwrap(), Key::generate().unwrap());
    let name = Name::of_controller(Role::Api, DEFAULT_DOMAIN);
    let papers = authority.certify_server(&key, &name, &["127.0.0.1".into()], now).unwrap();
    let credentials = Credentials::new(&key, &papers, Clock::system()).unwrap();
    std::sync::Arc::new(credentials.server(Audience::Anybody, b"http/1.1").unwrap()).into()
}

/// Sends a ClientHello, and returns the first bytes of the answer.
async fn tls_hello(address: std::net::SocketAddr) -> [u8; 3] {
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};

    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut first = [0; 3];
    stream.read_exact(&mut first).await.unwrap();
    first
}
