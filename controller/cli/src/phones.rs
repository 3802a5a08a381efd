//! Phones as the verbs that schedule them see them: picked out by name or label, and changed in their spec.

use polyphony_selector::LabelSelector;
use serde_json::Value;

use crate::connection::Connection;
use crate::discovery::{Catalogue, Resource};
use crate::failure::Failure;
use crate::server::with_query;

/// The kind, and the phones that the words (`NAME` or `phone/NAME`) or the selector pick out.
///
/// # Errors
/// A failure of the requests, or of words that pick out nothing.
pub async fn pick(
    connection: &Connection,
    verb: &str,
    words: &[String],
    selector: Option<&LabelSelector>,
) -> Result<(Resource, Vec<Value>), Failure> {
    let catalogue = Catalogue::fetch(&connection.server).await?;
    let request = |text: String| Failure::Request(text);
    let resource = catalogue.find("phones.polyphony.dev").map_err(|unknown| request(unknown.to_string()))?.clone();
    // One that selects everything is none: who means all of them says so by name.
    let selector = selector.filter(|selector| !selector.is_empty());
    if words.is_empty() == selector.is_none() {
        let text = if words.is_empty() {
            format!("no phone was named: polyctl {verb} PHONE, or -l SELECTOR")
        } else {
            "name cannot be provided when a selector is specified".to_owned()
        };
        return Err(request(text));
    }
    let mut phones: Vec<Value> = Vec::new();
    for word in words {
        let name = match word.split_once('/') {
            Some((kind, name)) if catalogue.find(kind).is_ok_and(|found| *found == resource) => name,
            Some((kind, _)) => return Err(request(format!("{verb} is for phones, and {kind:?} is another kind"))),
            None => word,
        };
        // One that is named twice is meant once.
        if phones.iter().any(|phone| name_of(phone) == name) {
            continue;
        }
        phones.push(connection.server.get(&resource.object_path("", name)).await?);
    }
    if let Some(selector) = selector {
        let path = with_query(&resource.collection_path(None), &[("labelSelector", Some(selector.as_str()))]);
        phones = connection.server.list(&path).await?;
        if phones.is_empty() {
            return Err(request("no phones matched the selector".into()));
        }
    }
    Ok((resource, phones))
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
