//! Watches: one client follows the history of one resource, as lines of JSON.
//!
//! A watch holds a revision, not a queue: it reads on in the history when its client has taken what it had. Who falls
//! behind the oldest remembered change gets an ERROR event of code 410 and lists again; no writer waits for anyone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer;
use super::failure::Failure;
use super::form::served;
use super::list;
use super::places::Place;
use super::request::{Form, Params, Target, storage_resource};
use crate::schema::FieldErrorKind;
use crate::store::{Change, Event, Expired, Reader};

/// How often a quiet watch tells its client the revision that it has reached.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);
/// Events that are read from the history, and lie as text in memory, at a time.
const BATCH: usize = 64;

struct Watch {
    reader: Reader,
    changed: watch::Receiver<u64>,
    closing: CancellationToken,
    target: Target,
    params: Params,
    form: Form,
    /// The last revision that the client knows, or that does not concern it.
    revision: u64,
    lines: VecDeque<Bytes>,
    /// Initial objects that are not yet sent.
    initial: VecDeque<Arc<Value>>,
    /// A bookmark that ends the initial objects is still owed.
    owes_initial_end: bool,
    ends: Instant,
    next_bookmark: Instant,
    over: bool,
    _place: Place,
}

/// Starts a watch; the response streams until the client goes, the time is over or the server closes.
pub fn start(
    reader: &Reader,
    target: Target,
    mut params: Params,
    form: Form,
    closing: CancellationToken,
    place: Place,
) -> Result<Response<Body>, Failure> {
    list::check_fields(&target.kind, &params.fields)?;
    check_initial_events(&target, &params)?;
    if let Some(name) = &target.name {
        params.fields = params.fields.named(name);
    }
    // Subscribed before anything is read: no change falls in between.
    let changed = reader.changed();
    let from = params.resource_version.unwrap_or(0);
    let wants_initial = params.send_initial_events.unwrap_or(from == 0);
    let mut watch = Watch {
        reader: reader.clone(),
        changed,
        closing,
        form,
        revision: from,
        lines: VecDeque::new(),
        initial: VecDeque::new(),
        owes_initial_end: params.send_initial_events == Some(true) && params.bookmarks,
        ends: Instant::now() + params.timeout_seconds.map_or(LONGEST, Duration::from_secs).min(LONGEST),
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        over: false,
        target,
        params,
        _place: place,
    };
    let newest = watch.reader.revision();
    if from > newest {
        // From another life of this store, perhaps: the client has to list again.
        watch.fail(Expired { revision: from, oldest: newest });
    } else if wants_initial {
        let resource = storage_resource(&watch.target.kind);
        let snapshot = watch.reader.list(&resource, watch.target.namespace.as_deref());
        watch.revision = snapshot.revision;
        watch.initial = snapshot.objects.into_iter().map(|(_, object)| object).collect();
    } else if from == 0 {
        watch.revision = newest;
    }
    let body = Body::from_stream(stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(line), watch))
    }));
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

fn check_initial_events(target: &Target, params: &Params) -> Result<(), Failure> {
    let matched = params.resource_version_match.as_deref();
    let detail = match (params.send_initial_events, matched) {
        (None, Some(_)) => {
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        }
        (Some(_), None) => "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        (Some(_), Some(matched)) if matched != "NotOlderThan" => {
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        }
        _ => return Ok(()),
    };
    Err(Failure::invalid_field(&target.kind, "", "resourceVersionMatch", FieldErrorKind::Forbidden, detail))
}

// === impl Watch ===

impl Watch {
    /// The next line, or none when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.over || self.closing.is_cancelled() {
                return None;
            }
            if self.read() {
                continue;
            }
            let wake = self.ends.min(self.next_bookmark);
            tokio::select! {
                () = self.closing.cancelled() => return None,
                changed = self.changed.changed() => if changed.is_err() {
                    return None;
                },
                () = tokio::time::sleep_until(if self.params.bookmarks { wake } else { self.ends }) => self.tell_time(),
            }
        }
    }

    /// Turns what is there into lines; false when all is told.
    fn read(&mut self) -> bool {
        if !self.initial.is_empty() {
            for _ in 0..BATCH {
                let Some(object) = self.initial.pop_front() else {
                    break;
                };
                if list::selects(&self.target.kind, &self.params, &object) {
                    self.tell("ADDED", served(&self.target.kind, &object));
                }
            }
            return true;
        }
        if std::mem::take(&mut self.owes_initial_end) {
            self.bookmark(json!({"k8s.io/initial-events-end": "true"}));
            return true;
        }
        self.changed.borrow_and_update();
        match self.reader.after(self.revision, BATCH) {
            Ok(events) if events.is_empty() => false,
            Ok(events) => {
                events.iter().for_each(|event| self.follow(event));
                true
            }
            Err(expired) => {
                self.fail(expired);
                true
            }
        }
    }

    fn follow(&mut self, event: &Event) {
        self.revision = event.revision;
        let key = &event.key;
        let here = self.target.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        if !here || key.resource != storage_resource(&self.target.kind) {
            return;
        }
        let kind = &self.target.kind;
        let selects = |object: &Arc<Value>| list::selects(kind, &self.params, object);
        let before = event.previous.as_ref().filter(|previous| selects(previous));
        let after = event.change != Change::Deleted && selects(&event.object);
        match (before, after) {
            (None, true) => self.tell("ADDED", served(kind, &event.object)),
            (Some(_), true) => self.tell("MODIFIED", served(kind, &event.object)),
            // It went, or is no longer selected: as it last was, at the revision of the change.
            (Some(before), false) => {
                let deleted = event.change == Change::Deleted;
                let mut last = served(kind, if deleted { &event.object } else { before });
                last["metadata"]["resourceVersion"] = json!(event.revision.to_string());
                self.tell("DELETED", last);
            }
            (None, false) => {}
        }
    }

    fn tell_time(&mut self) {
        if self.params.bookmarks {
            self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
            self.bookmark(Value::Null);
        }
        self.over = Instant::now() >= self.ends;
    }

    fn bookmark(&mut self, annotations: Value) {
        let kind = &self.target.kind;
        let mut metadata = json!({"resourceVersion": self.revision.to_string(), "creationTimestamp": null});
        if !annotations.is_null() {
            metadata["annotations"] = annotations;
        }
        let object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata});
        self.tell("BOOKMARK", object);
    }

    fn fail(&mut self, expired: Expired) {
        self.over = true;
        self.line("ERROR", &Failure::expired(expired).to_status());
    }

    fn tell(&mut self, r#type: &str, object: Value) {
        let object = answer::object(&self.target.kind, self.form, &self.params, object);
        self.line(r#type, &object);
    }

    fn line(&mut self, r#type: &str, object: &Value) {
        let mut line = json!({"type": r#type, "object": object}).to_string();
        line.push('\n');
        self.lines.push_back(line.into());
    }
}
