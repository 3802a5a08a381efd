//! Weights: manifests and the bytes of single tensors over HTTPS, for phones that are known by their certificates.
//!
//! A phone is given the manifest and the tensors of what it is to hold, and no others, for as long as that is so; a range continues a fetch that broke
//! off.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures::Stream;
use polyphony_doorway::Certificates;
use polyphony_identity::{Clock, Digest, Proven, Role};
use polyphony_model::{Holds, LayerRange, TensorReader};
use polyphony_protocol::hub::{self, Assignment};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;

use super::assignments::Assigned;
use super::keys::{Keys, is_recorded};
use crate::models::ModelStore;

/// Tensors that are read at a time, in all and by one phone, which reads one after another; more wait.
const MAX_READS: usize = 256;
const MAX_READS_OF_PHONE: usize = 4;
/// Bytes of a tensor read at a time.
const CHUNK: u64 = 256 << 10;

#[derive(Clone)]
struct Shelf {
    models: Arc<ModelStore>,
    readers: Readers,
    places: Places,
}

/// Room for reads. Who reads slowly takes that of nobody else.
#[derive(Clone)]
struct Places {
    all: Arc<Semaphore>,
    of_phone: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// Room for one read, until it is dropped.
struct Place {
    _of_phone: (OwnedSemaphorePermit, Arc<Semaphore>),
    _of_all: OwnedSemaphorePermit,
}

/// Who may read what.
#[derive(Clone)]
pub struct Readers {
    /// Which device each name belongs to.
    pub keys: watch::Receiver<Option<Keys>>,
    /// What each phone is to hold.
    pub assigned: watch::Receiver<Option<Arc<Assigned>>>,
    /// Whether connections show nothing, as in benches: then all read all.
    pub are_plain: bool,
}

/// The phone that asks; none where connections show nothing.
#[derive(Clone)]
struct Reader(Option<(String, Digest)>);

/// The HTTP surface: `/v1alpha1/manifests/{digest}` and `/v1alpha1/tensors/{digest}/{index}`.
pub fn router(models: Arc<ModelStore>, readers: Readers) -> Router {
    let shelf = Shelf { models, readers, places: Places::new() };
    Router::new()
        .route("/v1alpha1/manifests/{digest}", get(manifest))
        .route("/v1alpha1/tensors/{digest}/{index}", get(tensor))
        .layer(axum::middleware::from_fn_with_state(shelf.clone(), check_phone))
        .with_state(shelf)
}

async fn check_phone(State(shelf): State<Shelf>, mut request: Request, next: Next) -> Response {
    match shelf.readers.reader(request.extensions().get::<Certificates>()) {
        Ok(reader) => {
            request.extensions_mut().insert(reader);
            next.run(request).await
        }
        Err(why) => {
            tracing::warn!(%why, path = %request.uri().path(), "a request for weights was refused");
            refusal(StatusCode::FORBIDDEN, &why)
        }
    }
}

async fn manifest(
    State(shelf): State<Shelf>,
    Extension(reader): Extension<Reader>,
    Path(digest): Path<String>,
) -> Response {
    if !shelf.readers.holds(&reader, &digest, |_| true) {
        return not_yours(&reader, &digest);
    }
    match shelf.models.by_digest(&digest) {
        Some(model) => ([(header::CONTENT_TYPE, "application/json")], model.manifest_json.clone()).into_response(),
        None => unknown_model(),
    }
}

async fn tensor(
    State(shelf): State<Shelf>,
    Extension(reader): Extension<Reader>,
    Path((digest, index)): Path<(String, usize)>,
    headers: HeaderMap,
) -> Response {
    let Some(model) = shelf.models.by_digest(&digest) else {
        return unknown_model();
    };
    let Some(entry) = model.manifest.tensors.get(index) else {
        let n_tensors = model.manifest.tensors.len();
        return refusal(
            StatusCode::NOT_FOUND,
            &format!("the model has tensors 0 to {}, not {index}", n_tensors.saturating_sub(1)),
        );
    };
    let is_of = |assignment: &Assignment| {
        model.manifest.tensors_of(&kept(assignment)).iter().any(|tensor| tensor.name == entry.name)
    };
    if !shelf.readers.holds(&reader, &digest, is_of) {
        return not_yours(&reader, &format!("{digest}, {}", entry.name));
    }
    let whole = entry.n_bytes;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).map(|text| range_of(text, whole));
    let (from, to) = match range {
        None | Some(Asked::Whole) => (0, whole),
        Some(Asked::Part(from, to)) => (from, to),
        Some(Asked::Outside) => {
            let mut response = refusal(StatusCode::RANGE_NOT_SATISFIABLE, &format!("the tensor has {whole} bytes"));
            set(&mut response, header::CONTENT_RANGE, format!("bytes */{whole}"));
            return response;
        }
    };
    let place = shelf.places.take(reader.name()).await;
    let opening = {
        let model = model.clone();
        spawn_blocking(move || TensorReader::open(&model.path, &model.manifest, &model.manifest.tensors[index]))
    };
    let file = match opening.await.map_err(io::Error::other).flatten() {
        Ok(reader) => reader,
        Err(error) => {
            tracing::error!(path = %model.path.display(), %error, "cannot read a model file that was resolved");
            return refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("the host cannot read the model file any more: {error}"),
            );
        }
    };
    let (readers, name) = (shelf.readers.clone(), entry.name.clone());
    let may_read = move || {
        // The place is given back when the stream, and this closure with it, is dropped.
        let _ = &place;
        let is_of = |assignment: &Assignment| {
            model.manifest.tensors_of(&kept(assignment)).iter().any(|tensor| tensor.name == name)
        };
        readers.knows(&reader) && readers.holds(&reader, &digest, is_of)
    };
    let held = chunks(Arc::new(file), from, to, may_read);
    let mut response = Response::new(Body::from_stream(held));
    set(&mut response, header::CONTENT_TYPE, "application/octet-stream".to_owned());
    set(&mut response, header::CONTENT_LENGTH, (to - from).to_string());
    set(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    if (from, to) != (0, whole) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, header::CONTENT_RANGE, format!("bytes {from}-{}/{whole}", to - 1));
    }
    response
}

/// Bytes `from` to `to` of a tensor; each chunk is read when the one before has gone out, and as long as it may be. No thread waits for a slow phone.
fn chunks(
    reader: Arc<TensorReader>,
    from: u64,
    to: u64,
    may_read: impl Fn() -> bool,
) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::try_unfold(from, move |from| {
        let (reader, may_read) = (reader.clone(), may_read());
        async move {
            if from == to {
                return Ok::<_, io::Error>(None);
            }
            if !may_read {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "no segment of this phone has that any more",
                ));
            }
            let reading = spawn_blocking(move || {
                let mut chunk = vec![0; (to - from).min(CHUNK) as usize];
                reader.read_at(from, &mut chunk)?;
                Ok::<_, io::Error>(chunk)
            });
            let chunk = reading.await.map_err(io::Error::other)??;
            let next = from + chunk.len() as u64;
            Ok(Some((Bytes::from(chunk), next)))
        }
    })
}

fn set(response: &mut Response, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(name, value);
    }
}

/// What an assignment has its phone keep in memory.
fn kept(assignment: &Assignment) -> Holds {
    let hub::Holds { embedding, mut from, mut to, head } = assignment.holds;
    if let Some(standby) = &assignment.standby {
        (from, to) = (from.min(standby.from), to.max(standby.to));
    }
    Holds { embedding, layers: LayerRange { from, to }, head }
}

fn not_yours(reader: &Reader, what: &str) -> Response {
    let phone = reader.name();
    tracing::warn!(%phone, %what, "a phone asked for weights that are not of its segments");
    refusal(StatusCode::FORBIDDEN, "no segment of this phone has that: it may be too early or too late, so try again")
}

// === impl Reader ===

impl Reader {
    fn name(&self) -> &str {
        self.0.as_ref().map_or("", |(name, _)| name)
    }
}

// === impl Places ===

impl Places {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_READS)), of_phone: Arc::default() }
    }

    async fn take(&self, phone: &str) -> Place {
        const OPEN: &str = "the semaphore is never closed";
        let own = {
            let mut of_phone = self.of_phone.lock().unwrap_or_else(PoisonError::into_inner);
            let known = of_phone.get(phone).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                of_phone.retain(|_, one| one.strong_count() > 0);
                let own = Arc::new(Semaphore::new(MAX_READS_OF_PHONE));
                of_phone.insert(phone.to_owned(), Arc::downgrade(&own));
                own
            })
        };
        let of_phone = own.clone().acquire_owned().await.expect(OPEN);
        Place { _of_phone: (of_phone, own), _of_all: self.all.clone().acquire_owned().await.expect(OPEN) }
    }
}

// === impl Readers ===

impl Readers {
    /// Who shows these certificates: a phone whose key is recorded now.
    fn reader(&self, certificates: Option<&Certificates>) -> Result<Reader, String> {
        if self.are_plain {
            return Ok(Reader(None));
        }
        let shown = certificates.and_then(|shown| Proven::of_connection(Some(&shown.0)));
        let Some(shown) = shown else { return Err("show a phone's certificate".to_owned()) };
        if shown.name.role != Role::Phone {
            return Err(format!("the certificate is of {}, and weights are for phones", shown.name));
        }
        if shown.is_expired(Clock::system().now()) {
            return Err(format!("the certificate of {} has run out", shown.name));
        }
        let reader = Reader(Some((shown.name.name, shown.key)));
        match self.knows(&reader) {
            true => Ok(reader),
            false => Err(format!("no Phone {} records this device's key", reader.name())),
        }
    }

    /// Whether the Phone of the reader records its key.
    fn knows(&self, reader: &Reader) -> bool {
        let Some((name, key)) = &reader.0 else { return true };
        is_recorded(self.keys.borrow().as_ref(), name, key)
    }

    /// Whether a segment that the reader is to hold is of the model and `is_of` it.
    fn holds(&self, reader: &Reader, digest: &str, is_of: impl Fn(&Assignment) -> bool) -> bool {
        let Some((phone, _)) = &reader.0 else { return true };
        let assigned = self.assigned.borrow();
        let own = assigned.as_ref().and_then(|assigned| assigned.get(phone));
        own.is_some_and(|own| own.iter().any(|assignment| assignment.manifest_digest == digest && is_of(assignment)))
    }
}

fn unknown_model() -> Response {
    refusal(StatusCode::NOT_FOUND, "no resolved model has this manifest digest: fetch the assignments again")
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

/// What a Range header asks for (RFC 9110, section 14).
#[derive(Debug, PartialEq)]
enum Asked {
    /// The header is of a form that a server may ignore.
    Whole,
    /// From the first byte up to, but without, the second.
    Part(u64, u64),
    Outside,
}

fn range_of(text: &str, whole: u64) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (number(first), number(last), first.trim().is_empty(), last.trim().is_empty()) {
        (Some(first), _, _, true) if first < whole => Asked::Part(first, whole),
        (Some(first), Some(last), _, _) if first <= last && first < whole => {
            Asked::Part(first, whole.min(last.saturating_add(1)))
        }
        (Some(first), Some(last), _, _) if last < first => Asked::Whole,
        (Some(_), Some(_), _, _) | (Some(_), None, _, true) => Asked::Outside,
        (None, Some(n_last), true, _) if n_last > 0 && whole > 0 => Asked::Part(whole.saturating_sub(n_last), whole),
        (None, Some(_), true, _) => Asked::Outside,
        _ => Asked::Whole,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_is_being_read_ends_when_it_may_be_read_no_more() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/llama_q8_0.gguf");
        let manifest = polyphony_model::Manifest::build(&path).unwrap();
        let tensor = manifest.tensors.iter().max_by_key(|tensor| tensor.n_bytes).unwrap();
        let reader = Arc::new(TensorReader::open(&path, &manifest, tensor).unwrap());
        let may = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let looked = may.clone();
        let may_read = move || looked.load(std::sync::atomic::Ordering::SeqCst);
        let (n_bytes, part) = (tensor.n_bytes, tensor.n_bytes / 2);
        let mut reading = Box::pin(chunks(reader.clone(), 0, part, may_read.clone()));
        let first = futures::StreamExt::next(&mut reading).await.unwrap().unwrap();
        assert_eq!(first.len() as u64, part.min(CHUNK));
        let mut rest = Box::pin(chunks(reader, part, n_bytes, may_read));
        may.store(false, std::sync::atomic::Ordering::SeqCst);
        let cut = futures::StreamExt::next(&mut rest).await.unwrap();
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn a_phone_that_reads_slowly_takes_no_place_of_another() {
        let places = Places::new();
        let mut held = Vec::new();
        for _ in 0..MAX_READS_OF_PHONE {
            held.push(places.take("a").await);
        }
        assert!(futures::FutureExt::now_or_never(places.take("a")).is_none(), "it has all that one may have");
        held.push(places.take("b").await);
        held.clear();
        let _again = places.take("a").await;
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let table = [
            ("bytes=0-9", Asked::Part(0, 10)),
            ("bytes=90-", Asked::Part(90, 100)),
            ("bytes=90-500", Asked::Part(90, 100)),
            ("bytes=-10", Asked::Part(90, 100)),
            ("bytes=-500", Asked::Part(0, 100)),
            ("bytes=100-", Asked::Outside),
            ("bytes=100-200", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=9-3", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("lines=1-2", Asked::Whole),
        ];
        for (text, expected) in table {
            assert_eq!(range_of(text, 100), expected, "{text}");
        }
    }
}
