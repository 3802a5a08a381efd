//! Resources: one request to one path becomes reads, or one transaction.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::{self, Body, Encoding};
use super::delete::{DeleteOptions, Deleted, Propagation, delete};
use super::failure::Failure;
use super::form::served;
use super::list;
use super::patch::Change;
use super::request::{Form, Params, Subresource, Target};
use super::special::DEFINITIONS;
use super::write::{Ownership, Write, Written, create, update};
use super::{Inner, User, answer, apply, reviews, scale, watch};
use crate::registry::Kind;
use crate::store::Transaction;

/// How long a client may take to send its body.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// One request with its body and what it names.
struct Call {
    user: User,
    target: Target,
    params: Params,
    form: Form,
    headers: HeaderMap,
    bytes: Bytes,
}

/// Answers a request about resources.
pub async fn answer(inner: Arc<Inner>, request: Request) -> Result<Response, Failure> {
    let (Parts { method, uri, headers, extensions, .. }, body) = request.into_parts();
    let bytes = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, body::LIMIT)).await;
    let bytes = bytes.map_err(|_| Failure::slow())?.map_err(|_| Failure::too_large(body::LIMIT))?;
    let user = extensions.get::<User>().cloned().ok_or_else(|| Failure::unauthorized(None))?;
    if method == Method::POST
        && let Some(kind) = reviews::kind_at(uri.path())
    {
        let asked = body::decode(&bytes, Encoding::of_object(&headers)?)?.value;
        let answer = reviews::answer(kind, &asked, &user, &inner.kinds.current());
        return Ok(answer::respond(StatusCode::CREATED, &answer, &[]));
    }
    let target = Target::parse(&inner.kinds.current(), uri.path())?;
    let params = Params::parse(&uri)?;
    let form = Form::accepted(&headers)?;
    let call = Call { user, target, params, form, headers, bytes };
    let defines = !method.is_safe() && call.target.kind.resource() == DEFINITIONS;
    let named = call.target.name.is_some();
    let response = match (method, named) {
        (Method::GET | Method::HEAD, _) if call.params.watch => call.watch(&inner),
        (Method::GET | Method::HEAD, true) => call.get(&inner),
        (Method::GET | Method::HEAD, false) => call.list(&inner),
        (Method::POST, false) if call.target.kind.namespaced == call.target.namespace.is_some() => {
            call.create(&inner).await
        }
        (Method::PUT, true) => call.replace(&inner).await,
        (Method::PATCH, true) => call.patch(&inner).await,
        (Method::DELETE, true) if call.target.subresource == Subresource::Main => call.delete(&inner).await,
        (Method::DELETE, false) => call.delete_collection(&inner).await,
        _ => Err(Failure::method_not_allowed()),
    };
    if defines {
        inner.kinds.reload(inner.store.reader());
    }
    response
}

// === impl Call ===

impl Call {
    fn kind(&self) -> &Kind {
        &self.target.kind
    }

    /// How the body is written; custom kinds have no messages in protobuf.
    fn encoding(&self) -> Result<Encoding, Failure> {
        match Encoding::of_object(&self.headers)? {
            Encoding::Protobuf if self.kind().is_custom() => {
                Err(Failure::unsupported_media_type(&["application/json", "application/yaml"]))
            }
            encoding => Ok(encoding),
        }
    }

    fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    fn respond(&self, written: Written) -> Response {
        let Written { object, created, warnings } = written;
        let code = if created { StatusCode::CREATED } else { StatusCode::OK };
        let body = match (&self.kind().scale, self.target.subresource) {
            (Some(paths), Subresource::Scale) => scale::read(paths, &object),
            _ => answer::object(self.kind(), self.form, &self.params, object),
        };
        answer::respond(code, &body, &warnings)
    }

    fn get(self, inner: &Inner) -> Result<Response, Failure> {
        let kept = inner.store.reader().get(&self.target.key(self.name()));
        let kept = kept.ok_or_else(|| Failure::not_found(self.kind(), self.name()))?;
        let object = served(self.kind(), &kept);
        Ok(self.respond(Written { object, created: false, warnings: Vec::new() }))
    }

    fn list(self, inner: &Inner) -> Result<Response, Failure> {
        let (items, metadata) = list::list(inner.store.reader(), &self.target, &self.params)?;
        let body = answer::list(self.kind(), self.form, &self.params, items, metadata);
        Ok(answer::respond(StatusCode::OK, &body, &[]))
    }

    fn watch(self, inner: &Inner) -> Result<Response, Failure> {
        let place = inner.watches.take(&self.user);
        let place = place.ok_or_else(|| Failure::too_many_requests("too many watches are open: close some"))?;
        let closing = inner.closing.clone();
        watch::start(inner.store.reader(), self.target, self.params, self.form, closing, place)
    }

    async fn create(self, inner: &Inner) -> Result<Response, Failure> {
        let Body { value, faults } = body::decode(&self.bytes, self.encoding()?)?;
        let write = self.write(faults)?;
        let create = move |transaction: &mut Transaction| create(transaction, &write, value, Ownership::Track);
        let written = inner.store.writer().transact(create).await?;
        Ok(self.respond(written))
    }

    async fn replace(self, inner: &Inner) -> Result<Response, Failure> {
        let Body { value, faults } = body::decode(&self.bytes, self.encoding()?)?;
        self.check_version(&value)?;
        let write = self.write(faults)?;
        let replace = move |transaction: &mut Transaction| {
            let kind = write.kind.clone();
            update(transaction, &write, Ownership::Track, |old| match (&kind.scale, write.subresource) {
                (Some(paths), Subresource::Scale) => scale::write(&kind, paths, old, &value),
                _ => Ok(with_own_fields(value, old)),
            })
        };
        let written = inner.store.writer().transact(replace).await?;
        Ok(self.respond(written))
    }

    /// Kubernetes lets no one replace a custom object, or its status, unread.
    fn check_version(&self, object: &Value) -> Result<(), Failure> {
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if self.kind().is_custom() && self.target.subresource != Subresource::Scale && matches!(version, "" | "0") {
            let detail = "Invalid value: 0: must be specified for an update";
            let sort = crate::schema::FieldErrorKind::Invalid;
            return Err(Failure::invalid_field(self.kind(), self.name(), "metadata.resourceVersion", sort, detail));
        }
        Ok(())
    }

    async fn patch(self, inner: &Inner) -> Result<Response, Failure> {
        let (change, faults) = Change::parse(self.kind(), &self.headers, &self.bytes)?;
        let write = self.write(faults)?;
        let force = self.params.force;
        let written = if let Change::Apply(config) = change {
            let manager = self.params.field_manager.as_deref();
            apply::check(manager, &config)?;
            inner.store.writer().transact(move |transaction| apply::apply(transaction, &write, config, force)).await?
        } else {
            let patch = move |transaction: &mut Transaction| {
                let kind = write.kind.clone();
                update(transaction, &write, Ownership::Track, |old| match (&kind.scale, write.subresource) {
                    (Some(paths), Subresource::Scale) => {
                        let scale = change.make(&scale::read(paths, old))?;
                        scale::write(&kind, paths, old, &scale)
                    }
                    _ => change.make(old),
                })
            };
            inner.store.writer().transact(patch).await?
        };
        Ok(self.respond(written))
    }

    async fn delete(self, inner: &Inner) -> Result<Response, Failure> {
        let options = self.delete_options()?;
        let (kind, key, now) = (self.target.kind.clone(), self.target.key(self.name()), Timestamp::now());
        let deleted =
            inner.store.writer().transact(move |transaction| delete(transaction, &kind, &key, &options, now)).await?;
        let body = match deleted {
            Deleted::Waiting(object) => answer::object(self.kind(), self.form, &self.params, object),
            Deleted::Gone(object) => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": self.name(), "group": self.kind().group, "kind": self.kind().plural,
                    "uid": object["metadata"]["uid"],
                },
            }),
        };
        Ok(answer::respond(StatusCode::OK, &body, &[]))
    }

    async fn delete_collection(self, inner: &Inner) -> Result<Response, Failure> {
        let options = self.delete_options()?;
        let reader = inner.store.reader();
        let (listed, metadata) = list::list(reader, &self.target, &self.params)?;
        let (kind, target, now) = (self.target.kind.clone(), self.target.clone(), Timestamp::now());
        let deleted = inner.store.writer().transact(move |transaction| {
            let mut deleted = Vec::new();
            for object in listed {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                let mut key = target.key(text("name"));
                key.namespace = text("namespace").to_owned();
                if transaction.get(&key).is_some() {
                    let (Deleted::Gone(object) | Deleted::Waiting(object)) =
                        delete(transaction, &kind, &key, &options, now)?;
                    deleted.push(object);
                }
            }
            Ok::<_, Failure>(deleted)
        });
        let items = deleted.await?;
        let body = answer::list(self.kind(), self.form, &self.params, items, metadata);
        Ok(answer::respond(StatusCode::OK, &body, &[]))
    }

    fn delete_options(&self) -> Result<DeleteOptions, Failure> {
        let mut options = match Encoding::of_object(&self.headers)? {
            _ if self.bytes.is_empty() => DeleteOptions::default(),
            encoding => DeleteOptions::parse(&body::decode(&self.bytes, encoding)?.value)?,
        };
        if let Some(policy) = &self.params.propagation_policy {
            options.propagation = Some(Propagation::parse(policy)?);
        }
        options.dry_run |= self.params.dry_run;
        Ok(options)
    }

    fn write(&self, faults: Vec<String>) -> Result<Write, Failure> {
        if self.params.field_manager.as_ref().is_some_and(|manager| manager.chars().count() > 128) {
            return Err(Failure::bad_request("fieldManager: Too long: may not be more than 128 bytes"));
        }
        Ok(Write {
            kind: self.target.kind.clone(),
            key: self.target.key(self.name()),
            subresource: self.target.subresource,
            manager: self.params.field_manager.clone().unwrap_or_else(|| manager_of(&self.headers)),
            validation: self.params.validation,
            faults,
            dry_run: self.params.dry_run,
            now: Timestamp::now(),
        })
    }
}

/// A replacement may leave the record of owners out, which then stays.
fn with_own_fields(mut object: Value, old: &Value) -> Value {
    if object.is_object() && object["metadata"]["managedFields"].is_null() {
        let kept = old["metadata"]["managedFields"].clone();
        super::form::metadata_mut(&mut object).insert("managedFields".to_owned(), kept);
    }
    object
}

/// Who writes, when no field manager is named: the program at the head of the user agent.
fn manager_of(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    agent.split('/').next().unwrap_or("unknown").chars().take(128).collect()
}
