//! A scripted host: takes agents in, serves them a model, and gives them what they are to hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use bytes::BytesMut;
use clap::Parser;
use polyphony_agent::agent::{self, Terms};
use polyphony_agent::flags::Flags;
use polyphony_agent::identity::Identity;
use polyphony_agent::told::Told;
use polyphony_doorway::{Doorway, Limits};
use polyphony_identity::{
    Audience, Authority, Clock, Credentials, DEFAULT_DOMAIN, Digest, Key, Lifetimes, Name, Papers, Role, Signed, Whom,
};
use polyphony_model::{Manifest, TensorReader};
use polyphony_protocol::hub::{Assignment, Join, SegmentPhase, ToAgent, ToHub, Welcome};
use polyphony_protocol::version::{self, ProtocolVersion};
use polyphony_protocol::{Frame, encode};
use polyphony_wire::{Bounds, FrameReader, Metered, PROTOCOL, Security, Uncounted, Wire};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Whatever a test waits for comes within this on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A model as the host serves it.
pub struct Served {
    pub manifest: Manifest,
    pub digest: String,
    json: Vec<u8>,
    path: PathBuf,
    /// Whether who asks for a tensor waits for ever.
    pub keeps_tensors: AtomicBool,
}

/// The host of a test.
pub struct Hub {
    listener: TcpListener,
    weights_url: String,
    pub model: Arc<Served>,
    authority: Authority,
    acceptor: TlsAcceptor,
    stop: CancellationToken,
    folder: tempfile::TempDir,
}

/// An agent that has joined.
pub struct Joined {
    pub join: Join,
    pub reader: FrameReader<Metered<ReadHalf<TlsStream<TcpStream>>>>,
    pub writer: Writer,
}

/// The way to an agent.
pub struct Writer {
    stream: WriteHalf<TlsStream<TcpStream>>,
    /// The minor version that its frames are written in.
    minor: u8,
}

// === impl Hub ===

impl Hub {
    pub async fn open(model: &Path) -> Self {
        let manifest = Manifest::build(model).unwrap();
        let json = serde_json::to_vec(&manifest).unwrap();
        let (digest, path) = (manifest.digest(), model.to_owned());
        let model = Arc::new(Served { manifest, digest, json, path, keeps_tensors: AtomicBool::new(false) });
        let weights = Router::new()
            .route("/v1alpha1/manifests/{digest}", get(async |State(model): State<Arc<Served>>| model.json.clone()))
            .route("/v1alpha1/tensors/{digest}/{index}", get(tensor))
            .with_state(model.clone());
        let weights_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let weights_url = format!("https://{}", weights_listener.local_addr().unwrap());
        let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now()).unwrap();
        let acceptor = |role, protocol| {
            let name = Name::of_controller(role, DEFAULT_DOMAIN);
            let server = credentials(&authority, &name).server(Audience::Certified, protocol).unwrap();
            TlsAcceptor::from(Arc::new(server))
        };
        let doorway = Doorway::new(weights_listener, Limits::default()).with_tls(acceptor(Role::Weights, b"http/1.1"));
        let acceptor = acceptor(Role::Hub, PROTOCOL);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, folder) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        tokio::spawn(doorway.serve(weights, stop.clone()));
        Self { listener, weights_url, model, authority, acceptor, stop, folder }
    }

    /// Starts an agent in this process and takes it in.
    pub async fn join(&self, name: &str) -> Joined {
        self.start(name);
        self.take_in(version::CURRENT).await
    }

    /// Where an agent of that name keeps its data.
    pub fn folder_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What agents dial.
    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Of the root that its papers come from.
    pub fn ca_hash(&self) -> Digest {
        self.authority.ca_hash()
    }

    /// What plans name an agent by.
    pub fn key_of(&self, name: &str) -> String {
        Identity::open(&self.folder_of(name)).unwrap().key().digest().to_string()
    }

    /// Papers for the agent of that folder, as a hub gives them that it has enrolled at.
    pub fn certify(&self, name: &str) {
        let mut identity = Identity::open(&self.folder_of(name)).unwrap();
        let papers = certified(&self.authority, identity.key(), &Name::phone(name, DEFAULT_DOMAIN));
        identity.keep(name, papers, now(), None).unwrap();
    }

    /// Connections as the phone of that name makes them.
    pub fn wire_of(&self, name: &str) -> Wire {
        self.certify(name);
        let credentials = Identity::open(&self.folder_of(name)).unwrap().credentials(name, None).unwrap().unwrap();
        let security = Security::mutual(&credentials, Audience::Certified).unwrap();
        Wire::new(Bounds::default(), Arc::new(Uncounted), security)
    }

    /// Starts an agent in this process, which dials this host.
    pub fn start(&self, name: &str) {
        self.start_with(name, &["--backend", "cpu"]);
    }

    /// The same with these flags of its own.
    pub fn start_with(&self, name: &str, more: &[&str]) {
        self.start_on(name, more, Terms::until(self.stop.clone()));
    }

    /// Starts an agent of which an app says what comes of `told`.
    pub fn start_told(&self, name: &str, told: watch::Receiver<Told>) {
        self.start_on(name, &["--backend", "cpu"], Terms { told: Some(told), ..Terms::until(self.stop.clone()) });
    }

    fn start_on(&self, name: &str, more: &[&str], terms: Terms) {
        let hub = self.address();
        let folder = self.folder_of(name);
        self.certify(name);
        let arguments = ["polyphony-agent", "--name", name, "--hub", &hub, "--memory", "64Mi", "--data-dir", "."];
        let mut flags = Flags::parse_from(arguments.into_iter().chain(more.iter().copied()));
        flags.data_dir = folder;
        tokio::spawn(agent::run(flags, terms));
    }

    /// Takes in an agent that was started by what it remembers: it looks first whether anybody is there, and hangs up.
    pub async fn take_in_again(&self) -> Joined {
        drop(tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap());
        self.take_in(version::CURRENT).await
    }

    /// Takes in an agent that has lost its link.
    pub async fn rejoin(&self) -> Joined {
        self.take_in(version::CURRENT).await
    }

    /// Takes in the next agent that dials, as a host that speaks `version`.
    pub async fn take_in(&self, version: ProtocolVersion) -> Joined {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        self.welcome(stream, version).await
    }

    async fn welcome(&self, stream: TcpStream, version: ProtocolVersion) -> Joined {
        let mut joined = self.hear_join(stream, version).await;
        self.send_welcome(&mut joined, version).await;
        joined
    }

    /// Takes in the next agent that dials, and does not welcome it yet.
    pub async fn hear(&self) -> Joined {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        self.hear_join(stream, version::CURRENT).await
    }

    async fn hear_join(&self, stream: TcpStream, version: ProtocolVersion) -> Joined {
        let stream = self.acceptor.accept(stream).await.unwrap();
        let (read, writer) = tokio::io::split(stream);
        let mut reader = FrameReader::metered(read, Bounds::default());
        let Frame::ToHub(ToHub::Join(join)) = reader.next_within(PATIENCE).await.unwrap() else { panic!("no join") };
        Joined { join: *join, reader, writer: Writer { stream: writer, minor: version.minor } }
    }

    pub async fn send_welcome(&self, joined: &mut Joined, version: ProtocolVersion) {
        let weights_url = self.weights_url.clone();
        let welcome = Welcome { version, weights_url, heartbeat_seconds: 0.1, time_seconds: now() };
        joined.send(Frame::ToAgent(ToAgent::Welcome(welcome))).await;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === impl Writer ===

impl Writer {
    pub async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes);
        bytes[5] = self.minor;
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn shut_down(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub async fn assign(&mut self, segments: Vec<Assignment>) {
        self.send(Frame::ToAgent(ToAgent::Assignments { segments })).await;
    }
}

// === impl Joined ===

impl Joined {
    pub async fn send(&mut self, frame: Frame) {
        self.writer.send(frame).await;
    }

    pub async fn assign(&mut self, segments: Vec<Assignment>) {
        self.writer.assign(segments).await;
    }

    /// The next frame for which `pick` gives something.
    pub async fn until<T>(&mut self, pick: impl Fn(Frame) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.reader.next_within(PATIENCE).await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    /// Waits until a heartbeat says that all `n` segments are ready.
    pub async fn until_ready(&mut self, n: usize) {
        self.until(|frame| match frame {
            Frame::ToHub(ToHub::Heartbeat(heartbeat)) => {
                let segments = heartbeat.segments;
                assert!(segments.iter().all(|segment| segment.phase != SegmentPhase::Failed), "{segments:?}");
                let is_ready = segments.iter().all(|segment| segment.phase == SegmentPhase::Ready);
                (segments.len() == n && is_ready).then_some(())
            }
            _ => None,
        })
        .await;
    }

    pub async fn scrape(&self) -> String {
        let url = format!("http://{}/metrics", self.join.metrics_address);
        polyphony_wire::take_ring();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.get(url).send().await.unwrap().error_for_status().unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
        response.text().await.unwrap()
    }

    /// Scrapes until `is_so`; the text that it was.
    pub async fn scrape_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = self.scrape().await;
            if is_so(&text) {
                return text;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?} in\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whom a connection to a phone is to lead to.
pub fn phone(name: &str) -> Whom {
    Whom::Named(Name::phone(name, DEFAULT_DOMAIN))
}

fn now() -> u64 {
    Clock::system().now()
}

/// Of a new key.
fn credentials(authority: &Authority, name: &Name) -> Credentials {
    let key = Key::generate().unwrap();
    let papers = authority.certify_server(&key, name, &[], now()).unwrap();
    Credentials::new(&key, &papers, Clock::system()).unwrap()
}

fn certified(authority: &Authority, key: &Key, name: &Name) -> Papers {
    authority.certify(&Signed::read(&key.request().unwrap()).unwrap(), name, now()).unwrap()
}

async fn tensor(
    State(model): State<Arc<Served>>,
    UrlPath((_, index)): UrlPath<(String, usize)>,
) -> Result<Vec<u8>, StatusCode> {
    if model.keeps_tensors.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let tensor = model.manifest.tensors.get(index).ok_or(StatusCode::NOT_FOUND)?;
    Ok(TensorReader::open(&model.path, &model.manifest, tensor).unwrap().read_all().unwrap())
}
