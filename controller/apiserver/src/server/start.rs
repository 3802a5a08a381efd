//! The start: definitions and namespaces that have to be there before the first request.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ApiServerError;
use super::failure::Failure;
use super::kinds::Kinds;
use super::request::Subresource;
use super::special::{DEFINITIONS, NAMESPACES, NAMESPACES_AT_START};
use super::write::{Ownership, Write, create, update};
use crate::registry::{Kind, Registry};
use crate::schema::FieldValidation;
use crate::store::{Key, Reader, Transaction, Writer};

/// The secret that held an authority of the server's own in earlier versions: namespace and name.
const OLD_AUTHORITY: (&str, &str) = ("kube-system", "apiserver-ca");
const MANAGER: &str = "polyphony-apiserver";

/// Stores what has to be there, and loads the kinds that are served.
pub async fn prepare(reader: &Reader, writer: &Writer, kinds: &Kinds, crds: Vec<Value>) -> Result<(), ApiServerError> {
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
        transaction.remove(&Key::new("secrets", OLD_AUTHORITY.0, OLD_AUTHORITY.1))?;
        Ok::<(), Failure>(())
    });
    outcome.await.map_err(unprepared)?;
    kinds.reload(reader);
    Ok(())
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
