//! The start: definitions and namespaces that have to be there before the first request.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ApiServerError;
use super::failure::Failure;
use super::kinds::Kinds;
use super::request::Subresource;
use super::special::{DEFINITIONS, NAMESPACES, NAMESPACES_AT_START};
use super::tls::Authority;
use super::write::{Ownership, Write, create, update};
use crate::registry::{Kind, Registry};
use crate::schema::FieldValidation;
use crate::store::{Key, Reader, Transaction, Writer};

/// The secret that holds the server's authority: namespace and name.
const AUTHORITY: (&str, &str) = ("kube-system", "apiserver-ca");
const MANAGER: &str = "polyphony-apiserver";

/// Stores what has to be there, and loads the kinds that are served.
pub async fn prepare(
    reader: &Reader,
    writer: &Writer,
    kinds: &Kinds,
    crds: Vec<Value>,
) -> Result<Authority, ApiServerError> {
    for crd in &crds {
        Kind::from_crd(crd)?;
    }
    let outcome = writer.transact(move |transaction| {
        let registry = Registry::builtin();
        for name in NAMESPACES_AT_START {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let write = write(&registry, "", NAMESPACES, name);
            if transaction.get(&write.key).is_none() {
                create(transaction, &write, namespace, Ownership::Track)?;
            }
        }
        for crd in crds {
            define(transaction, &registry, crd)?;
        }
        Ok::<(), Failure>(())
    });
    outcome.await.map_err(unprepared)?;
    kinds.reload(reader);
    authority(reader, writer).await
}

/// The authority of this store, made when there is none, and renewed where its certificate ends some day: that day may be past,
/// if a clock was wrong when it was made.
async fn authority(reader: &Reader, writer: &Writer) -> Result<Authority, ApiServerError> {
    let key = Key::new("secrets", AUTHORITY.0, AUTHORITY.1);
    let authority = match reader.get(&key).and_then(|secret| read_authority(&secret)) {
        Some(authority) if authority.is_of_all_times() => return Ok(authority),
        // A key that cannot be read any more signs nothing.
        Some(authority) => authority.renewed().or_else(|_| Authority::generate())?,
        None => Authority::generate()?,
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": AUTHORITY.1}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": authority.certificate, "tls.key": authority.key},
    });
    let mut write = write(&Registry::builtin(), "", "secrets", AUTHORITY.1);
    write.key = key;
    let store = writer.transact(move |transaction| {
        transaction.remove(&write.key)?;
        create(transaction, &write, secret, Ownership::Track)
    });
    store.await.map_err(unprepared)?;
    Ok(authority)
}

fn read_authority(secret: &Value) -> Option<Authority> {
    let text = |name: &str| String::from_utf8(BASE64_STANDARD.decode(secret["data"][name].as_str()?).ok()?).ok();
    Some(Authority { certificate: text("tls.crt")?, key: text("tls.key")? })
}

fn unprepared(failure: Failure) -> ApiServerError {
    let status = failure.to_status();
    let detail = status["message"].as_str().unwrap_or_default().to_owned();
    ApiServerError::Prepare { detail }
}

/// Stores a definition, or brings the stored one up to date.
fn define(transaction: &mut Transaction, registry: &Registry, mut crd: Value) -> Result<(), Failure> {
    crd["apiVersion"] = json!("apiextensions.k8s.io/v1");
    crd["kind"] = json!("CustomResourceDefinition");
    let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let write = write(registry, "apiextensions.k8s.io", "customresourcedefinitions", &name);
    if transaction.get(&write.key).is_none() {
        create(transaction, &write, crd, Ownership::Track)?;
    } else {
        update(transaction, &write, Ownership::Track, |old| {
            let mut new = old.clone();
            new["spec"] = crd["spec"].take();
            Ok(new)
        })?;
    }
    Ok(())
}

fn write(registry: &Registry, group: &str, plural: &str, name: &str) -> Write {
    let kind = registry.get(group, "v1", plural).expect("definitions and namespaces are built in").clone();
    Write {
        key: Key::new(if group.is_empty() { NAMESPACES } else { DEFINITIONS }, "", name),
        kind,
        subresource: Subresource::Main,
        manager: MANAGER.to_owned(),
        validation: FieldValidation::Ignore,
        faults: Vec::new(),
        dry_run: false,
        now: Timestamp::now(),
    }
}
