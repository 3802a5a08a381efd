//! Lists: a consistent view of many objects, whole or page by page.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use polyphony_selector::FieldSelector;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::Failure;
use super::form::served;
use super::request::{Params, Target, storage_resource};
use crate::registry::Kind;
use crate::store::{Key, Reader, Snapshot};

/// Where the next page begins, in a token that clients hand back unread.
#[derive(Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "rv")]
    revision: u64,
    namespace: String,
    name: String,
}

/// The objects that match, in the served form, and the list's metadata.
pub fn list(reader: &Reader, target: &Target, params: &Params) -> Result<(Vec<Value>, Value), Failure> {
    check_fields(&target.kind, &params.fields)?;
    let after = params.continue_token.as_deref().map(Continue::decode).transpose()?;
    let snapshot = snapshot(reader, target, params, after.as_ref())?;
    let after = after.map(|after| Key::new(&storage_resource(&target.kind), &after.namespace, &after.name));
    let mut items = Vec::new();
    let mut last: Option<Key> = None;
    let mut remaining = 0;
    for (key, object) in snapshot.objects {
        if after.as_ref().is_some_and(|after| key <= *after) || !matches_cheaply(target, params, &key) {
            continue;
        }
        if !selects(&target.kind, params, &object) {
            continue;
        }
        if params.limit.is_some_and(|limit| items.len() == limit) {
            remaining += 1;
        } else {
            items.push(served(&target.kind, &object));
            last = Some(key);
        }
    }
    let mut metadata = json!({"resourceVersion": snapshot.revision.to_string()});
    if let Some(last) = last.filter(|_| remaining > 0) {
        metadata["continue"] = json!(Continue::after(snapshot.revision, last).encode());
        if params.labels.is_empty() && params.fields.is_empty() {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    Ok((items, metadata))
}

fn snapshot(reader: &Reader, target: &Target, params: &Params, after: Option<&Continue>) -> Result<Snapshot, Failure> {
    let resource = storage_resource(&target.kind);
    let namespace = target.namespace.as_deref();
    if let Some(after) = after {
        if params.resource_version.is_some_and(|version| version != 0) {
            return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
        }
        return reader.list_at(&resource, namespace, after.revision).map_err(|_| {
            let message = "The provided continue parameter is too old to display a consistent list result. \
                 You must start a new list without the continue parameter.";
            Failure::new(StatusCode::GONE, "Expired", message)
        });
    }
    let exact = params.resource_version_match.as_deref() == Some("Exact");
    match params.resource_version {
        Some(version) if exact && version != 0 && version < reader.revision() => {
            reader.list_at(&resource, namespace, version).map_err(Failure::expired)
        }
        Some(version) if version > reader.revision() => Err(Failure::too_new(version, reader.revision())),
        _ => Ok(reader.list(&resource, namespace)),
    }
}

/// Whether objects of `kind` can be selected by these fields.
pub fn check_fields(kind: &Kind, fields: &FieldSelector) -> Result<(), Failure> {
    let is_known = |path: &str| match path {
        "metadata.name" => true,
        "metadata.namespace" => kind.namespaced,
        path => kind.selectable_fields.iter().any(|field| field.trim_start_matches('.') == path),
    };
    match fields.paths().find(|path| !is_known(path)) {
        Some(unknown) => Err(Failure::bad_request(format!("field label not supported: {unknown}"))),
        None => Ok(()),
    }
}

/// Spares a copy of what the key alone rules out: a list of one name is asked for often.
fn matches_cheaply(target: &Target, params: &Params, key: &Key) -> bool {
    target.name.as_ref().is_none_or(|name| *name == key.name)
        && params.fields.name().is_none_or(|name| name == key.name)
}

/// Whether the labels and fields of an object are those that were asked for.
pub fn selects(kind: &Kind, params: &Params, object: &Value) -> bool {
    // Fields are named as in the served form; without a selector nothing has to be copied.
    params.labels.matches(object) && (params.fields.is_empty() || params.fields.matches(&served(kind, object)))
}

// === impl Continue ===

impl Continue {
    fn after(revision: u64, key: Key) -> Self {
        Continue { revision, namespace: key.namespace, name: key.name }
    }

    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("three plain fields are JSON"))
    }

    fn decode(token: &str) -> Result<Continue, Failure> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        let decoded = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        decoded.ok_or_else(|| Failure::bad_request("continue key is not valid: start a new list"))
    }
}
