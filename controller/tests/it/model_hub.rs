//! A hub of models on loopback, as small as can be: it speaks the routes that models are fetched by, keeps large files in a store at
//! another port, and fails as it is told to.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Entries of a page of a listing: few, so that every repository has several pages.
const PAGE: usize = 2;
/// What is sent at a time.
const CHUNK: usize = 4096;

/// A hub that runs until it is dropped.
pub struct ModelHub {
    /// Where it answers, and where its store does.
    pub url: String,
    pub store_url: String,
    world: Arc<World>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// What a test changes while it runs.
#[derive(Default)]
pub struct Faults {
    /// The store breaks its next answers off after so many bytes each.
    pub breaks: VecDeque<usize>,
    /// The next answers, of hub and store, are 429 and say this to wait, in seconds.
    pub busy: VecDeque<u64>,
    /// The store sends other bytes than the hub said.
    pub is_corrupt: bool,
    /// Where the hub leads to, in place of its store.
    pub leads_to: Option<String>,
    /// The store takes no ranges.
    pub no_ranges: bool,
    /// What the hub says of every file's digest.
    pub etag: Option<String>,
}

/// A repository.
#[derive(Clone, Default)]
pub struct Repository {
    /// What `main` stands for.
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Its size in listings, where that is a lie.
    pub said_size: Option<u64>,
    /// Who has this token sees it; gated: others see that it is there.
    pub token: Option<String>,
    pub is_gated: bool,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `hub` or `store`.
    pub of: &'static str,
    pub path: String,
    pub range: Option<String>,
    pub has_token: bool,
}

struct World {
    repositories: Mutex<BTreeMap<String, Repository>>,
    faults: Mutex<Faults>,
    asked: Mutex<Vec<Asked>>,
    store: Mutex<String>,
}

// === impl ModelHub ===

impl ModelHub {
    /// Starts it on a thread of its own.
    pub fn start() -> Self {
        let world = Arc::new(World {
            repositories: Mutex::default(),
            faults: Mutex::default(),
            asked: Mutex::default(),
            store: Mutex::default(),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let of_thread = world.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listen = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let (hub, store) = (listen().await, listen().await);
                let at = |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
                tell.send((at(&hub), at(&store))).unwrap();
                *of_thread.store.lock().unwrap() = at(&store);
                let of_hub = Router::new().fallback(hub_answer).with_state(of_thread.clone());
                let of_store = Router::new().fallback(store_answer).with_state(of_thread);
                tokio::select! {
                    _ = axum::serve(hub, of_hub) => {}
                    _ = axum::serve(store, of_store) => {}
                    _ = stopped => {}
                }
            });
        });
        let (url, store_url) = told.recv().unwrap();
        Self { url, store_url, world, _stop: stop }
    }

    /// Adds a repository, or puts another in its place.
    pub fn put(&self, name: &str, repository: Repository) {
        self.world.repositories.lock().unwrap().insert(name.to_owned(), repository);
    }

    pub fn fail(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.world.faults.lock().unwrap());
    }

    /// What came so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.world.asked.lock().unwrap().clone()
    }
}

// === impl Repository ===

impl Repository {
    pub fn new(commit: char, files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
        Self { commit: commit.to_string().repeat(40), files, ..Self::default() }
    }
}

/// Whether a file lies in the store.
fn is_stored(path: &str) -> bool {
    path.ends_with(".gguf") || path.ends_with(".safetensors")
}

fn git_hash(bytes: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(format!("blob {}\0", bytes.len()));
    digest.update(bytes);
    hex::encode(digest.finalize())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    (status, [("x-error-code", code.to_owned()), ("x-error-message", message.to_owned())], message.to_owned())
        .into_response()
}

impl World {
    fn note(&self, of: &'static str, request: &Request) -> Option<Response> {
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.asked.lock().unwrap().push(Asked {
            of,
            path: request.uri().to_string(),
            range: text("range"),
            has_token: text("authorization").is_some(),
        });
        let seconds = self.faults.lock().unwrap().busy.pop_front()?;
        Some((StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())], "slow down").into_response())
    }
}

async fn hub_answer(State(world): State<Arc<World>>, request: Request) -> Response {
    if let Some(busy) = world.note("hub", &request) {
        return busy;
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (name, rest) = match parts[..] {
        ["api", "resolve-cache", "models", owner, name, ref rest @ ..] => {
            (format!("{owner}/{name}"), [&["cached"], rest].concat())
        }
        ["api", "models", owner, name, ref rest @ ..] => (format!("{owner}/{name}"), rest.to_vec()),
        [owner, name, ref rest @ ..] => (format!("{owner}/{name}"), rest.to_vec()),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let Some(repository) = world.repositories.lock().unwrap().get(&name).cloned() else {
        return refused(StatusCode::UNAUTHORIZED, "RepoNotFound", "Repository not found");
    };
    let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let is_let = repository.token.as_ref().is_none_or(|token| shown == Some(&format!("Bearer {token}")));
    let is_of_file = matches!(rest.first(), Some(&"resolve" | &"cached"));
    if !is_let && (!repository.is_gated || is_of_file) {
        return match repository.is_gated {
            true => refused(StatusCode::FORBIDDEN, "GatedRepo", "Access to model is restricted"),
            false => refused(StatusCode::UNAUTHORIZED, "RepoNotFound", "Repository not found"),
        };
    }
    let query = request.uri().query().unwrap_or_default();
    match rest[..] {
        ["revision", revision] => {
            match revision == "main" || revision == repository.commit || revision == "refs%2Fpr%2F1" {
                true => axum::Json(json!({"id": name, "sha": repository.commit, "siblings": []})).into_response(),
                false => refused(StatusCode::NOT_FOUND, "RevisionNotFound", "Invalid rev id"),
            }
        }
        ["tree", commit] if commit == repository.commit => tree(&world, &repository, &path, query),
        ["resolve", commit, ref file @ ..] if commit == repository.commit => {
            file_answer(&world, &repository, &name, &file.join("/"), request.method())
        }
        ["cached", commit, ref file @ ..] if commit == repository.commit => match repository.files.get(&file.join("/"))
        {
            Some(bytes) => {
                let etag = format!("\"{}\"", git_hash(bytes));
                (StatusCode::OK, [("etag", etag), ("x-repo-commit", repository.commit)], bytes.clone()).into_response()
            }
            None => refused(StatusCode::NOT_FOUND, "EntryNotFound", "Entry not found"),
        },
        _ => refused(StatusCode::NOT_FOUND, "RevisionNotFound", "Invalid rev id"),
    }
}

fn tree(world: &World, repository: &Repository, path: &str, query: &str) -> Response {
    let from: usize = query.split('&').find_map(|one| one.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
    let entry = |(path, bytes): (&String, &Vec<u8>)| -> Value {
        let size = repository.said_size.unwrap_or(bytes.len() as u64);
        match is_stored(path) {
            true => json!({"type": "file", "oid": git_hash(b"a pointer"), "size": size, "path": path,
                "lfs": {"oid": sha256(bytes), "size": size, "pointerSize": 134}}),
            false => json!({"type": "file", "oid": git_hash(bytes), "size": bytes.len(), "path": path}),
        }
    };
    let page: Vec<Value> = repository.files.iter().skip(from).take(PAGE).map(entry).collect();
    let mut headers = HeaderMap::new();
    if from + PAGE < repository.files.len() {
        let link = format!("<{path}?recursive=true&cursor={}>; rel=\"next\"", from + PAGE);
        headers.insert("link", link.parse().unwrap());
    }
    let _ = world;
    (headers, axum::Json(page)).into_response()
}

fn file_answer(world: &World, repository: &Repository, name: &str, path: &str, method: &Method) -> Response {
    let Some(bytes) = repository.files.get(path) else {
        return refused(StatusCode::NOT_FOUND, "EntryNotFound", "Entry not found");
    };
    let faults = world.faults.lock().unwrap();
    let commit = ("x-repo-commit", repository.commit.clone());
    if !is_stored(path) {
        let to = format!("/api/resolve-cache/models/{name}/{}/{path}", repository.commit);
        return (StatusCode::TEMPORARY_REDIRECT, [commit, ("location", to)]).into_response();
    }
    let digest = sha256(bytes);
    let to =
        faults.leads_to.clone().unwrap_or_else(|| format!("{}/{digest}?Signature=s3cret", world.store.lock().unwrap()));
    let etag = faults.etag.clone().unwrap_or(digest);
    let size = repository.said_size.unwrap_or(bytes.len() as u64).to_string();
    let _ = method;
    let headers = [commit, ("location", to), ("x-linked-etag", format!("\"{etag}\"")), ("x-linked-size", size)];
    (StatusCode::FOUND, headers).into_response()
}

async fn store_answer(State(world): State<Arc<World>>, request: Request) -> Response {
    if let Some(busy) = world.note("store", &request) {
        return busy;
    }
    let digest = request.uri().path().trim_start_matches('/');
    let all = world.repositories.lock().unwrap();
    let found = all.values().flat_map(|repository| repository.files.values()).find(|bytes| sha256(bytes) == digest);
    let Some(mut bytes) = found.cloned() else { return StatusCode::NOT_FOUND.into_response() };
    drop(all);
    let mut faults = world.faults.lock().unwrap();
    if faults.is_corrupt {
        *bytes.last_mut().unwrap() ^= 1;
    }
    let whole = bytes.len();
    let range = request.headers().get("range").and_then(|value| value.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let mut headers = HeaderMap::new();
    let status = match from.filter(|_| !faults.no_ranges) {
        Some(from) if from >= whole => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Some(from) => {
            headers.insert("content-range", format!("bytes {from}-{}/{whole}", whole - 1).parse().unwrap());
            bytes.drain(..from);
            StatusCode::PARTIAL_CONTENT
        }
        None => StatusCode::OK,
    };
    headers.insert("content-length", bytes.len().to_string().parse().unwrap());
    let breaks_at = faults.breaks.pop_front();
    let chunks: Vec<Result<Bytes, std::io::Error>> = match breaks_at {
        Some(n) => bytes[..n.min(bytes.len())].chunks(CHUNK).map(|chunk| Ok(chunk.to_vec().into())).collect(),
        None => bytes.chunks(CHUNK).map(|chunk| Ok(chunk.to_vec().into())).collect(),
    };
    let chunks = futures::stream::iter(chunks);
    let broken = futures::stream::iter(breaks_at).then(|_| async {
        // What was sent before leaves first.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("broken off"))
    });
    (status, headers, Body::from_stream(chunks.chain(broken))).into_response()
}
