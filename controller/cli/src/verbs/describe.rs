//! `describe`: objects with their conditions, what belongs to them, and their events.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use polyphony_api::SegmentPlacement;
use polyphony_journal::tell;
use polyphony_selector::LabelSelector;
use serde_json::Value;

use crate::connection::{ClusterFlags, Connection};
use crate::describe::events::{self, EventLine};
use crate::describe::{Story, describe};
use crate::discovery::{Catalogue, Resource};
use crate::failure::Failure;
use crate::printing;
use crate::progress::placements_path;
use crate::selection::{Selection, select};
use crate::server::{Server, path_segment, with_query};
use crate::verbs::completion;

/// Describe objects: `describe infer smollm2`, `describe phone/phone-1`, `describe models`.
#[derive(Debug, Args)]
pub struct Describe {
    /// TYPE [NAME…] or TYPE/NAME…
    #[arg(value_name = "TYPE [NAME]", add = completion::objects())]
    words: Vec<String>,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// With events
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
}

// === impl Describe ===

impl Describe {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let connection = cluster.connect().await?;
        let catalogue = Catalogue::fetch(&connection.server).await?;
        let (mut n_described, mut failures) = (0, Vec::new());
        for Selection { resource, names } in select("describe", &self.words, &catalogue)? {
            let mut objects = Vec::new();
            if names.is_empty() {
                let scope = (!self.all_namespaces).then_some(connection.namespace.as_str());
                let path = with_query(
                    &resource.collection_path(scope),
                    &[("labelSelector", self.selector.as_ref().map(LabelSelector::as_str))],
                );
                objects = connection.server.list(&path).await?;
            }
            for name in &names {
                match self.find(&connection, &resource, name).await {
                    Ok(found) => objects.extend(found),
                    Err(failure) => failures.push(failure),
                }
            }
            for object in objects {
                let object = printing::for_people(object, &resource, false);
                let text = self.tell(&connection.server, &resource, &object).await?;
                let mut out = io::stdout().lock();
                if n_described > 0 {
                    write!(out, "\n\n")?;
                }
                write!(out, "{text}")?;
                n_described += 1;
            }
        }
        Failure::collect(failures)?;
        if n_described == 0 {
            tell!("No resources found in {} namespace.", connection.namespace);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The object of that name, else those whose names begin so, as kubectl has it.
    async fn find(&self, connection: &Connection, resource: &Resource, name: &str) -> Result<Vec<Value>, Failure> {
        match connection.server.get(&resource.object_path(&connection.namespace, name)).await {
            Ok(object) => Ok(vec![object]),
            Err(failure) if failure.is_not_found() => {
                let all = connection.server.list(&resource.collection_path(Some(&connection.namespace))).await?;
                let begins =
                    |object: &Value| object["metadata"]["name"].as_str().is_some_and(|known| known.starts_with(name));
                let found: Vec<Value> = all.into_iter().filter(begins).collect();
                if found.is_empty() { Err(failure) } else { Ok(found) }
            }
            Err(failure) => Err(failure),
        }
    }

    async fn tell(&self, server: &Server, resource: &Resource, object: &Value) -> Result<String, Failure> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = object["metadata"]["namespace"].as_str();
        let ours = resource.group == polyphony_api::GROUP;
        let placements: Vec<SegmentPlacement> = match resource.kind.as_str() {
            "InferenceDeployment" if ours => {
                read_all(server.list(&placements_path(namespace.unwrap_or_default(), name)).await?)
            }
            "Phone" if ours => {
                let path = format!("/apis/{}/segmentplacements", resource.api_version());
                read_all(
                    server.list(&with_query(&path, &[("fieldSelector", Some(&format!("spec.phone={name}")))])).await?,
                )
            }
            _ => Vec::new(),
        };
        let events = if self.show_events { fetch_events(server, resource, object).await? } else { Vec::new() };
        Ok(describe(&Story { object, placements: &placements, events: &events, now: jiff::Timestamp::now() }))
    }
}

fn read_all(objects: Vec<Value>) -> Vec<SegmentPlacement> {
    objects.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect()
}

/// Events of the object; of a deployment also those of its placements, past ones included.
async fn fetch_events(server: &Server, resource: &Resource, object: &Value) -> Result<Vec<EventLine>, Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/api/v1/namespaces/{}/events", path_segment(namespace)),
        None => "/api/v1/events".to_owned(),
    };
    let with_placements = resource.kind == "InferenceDeployment" && resource.group == polyphony_api::GROUP;
    let selector = format!("involvedObject.kind={},involvedObject.name={name}", resource.kind);
    let filter = (!with_placements).then_some(selector.as_str());
    let mut found: Vec<EventLine> = server
        .list(&with_query(&path, &[("fieldSelector", filter)]))
        .await?
        .iter()
        .filter_map(EventLine::read)
        .collect();
    found.retain(|event| {
        (event.kind == resource.kind && event.object == name) || (with_placements && is_placement_of(event, name))
    });
    // Another object had this name before: its story is over.
    let created =
        object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    found.retain(|event| created.is_none_or(|created| event.last.as_second() >= created.as_second()));
    events::sort(&mut found);
    Ok(without_echoes(found, &resource.kind))
}

/// What a placement's event says word for word as the deployment's own does is told once.
fn without_echoes(events: Vec<EventLine>, kind: &str) -> Vec<EventLine> {
    let said: Vec<(String, String)> = events
        .iter()
        .filter(|event| event.kind == kind)
        .map(|event| (event.reason.clone(), event.message.clone()))
        .collect();
    let is_echo = |event: &EventLine| {
        event.kind != kind && said.iter().any(|(reason, message)| (reason, message) == (&event.reason, &event.message))
    };
    events.into_iter().filter(|event| !is_echo(event)).collect()
}

/// Placements are named `<deployment>-<replica>-g<generation>-<stage>`, and their events outlive them.
fn is_placement_of(event: &EventLine, deployment: &str) -> bool {
    let Some(rest) = event.object.strip_prefix(deployment).and_then(|rest| rest.strip_prefix('-')) else {
        return false;
    };
    let parts: Vec<&str> = rest.split('-').collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    event.kind == "SegmentPlacement"
        && matches!(parts.as_slice(), [replica, generation, stage]
            if digits(replica) && generation.strip_prefix('g').is_some_and(digits) && digits(stage))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_twice_is_told_once() {
        let event = |kind: &str, message: &str| {
            EventLine::read(&json!({"eventTime": "2026-01-01T00:00:00Z", "reason": "R", "message": message, "involvedObject": {"kind": kind, "name": "n"}})).unwrap()
        };
        let events = vec![
            event("InferenceDeployment", "a"),
            event("SegmentPlacement", "a"),
            event("SegmentPlacement", "b"),
            event("InferenceDeployment", "a"),
        ];
        let told: Vec<_> = without_echoes(events, "InferenceDeployment")
            .into_iter()
            .map(|event| (event.kind, event.message))
            .collect();
        let expected = [("InferenceDeployment", "a"), ("SegmentPlacement", "b"), ("InferenceDeployment", "a")];
        assert_eq!(told, expected.map(|(kind, message)| (kind.to_owned(), message.to_owned())));
    }

    #[test]
    fn only_a_deployments_own_placements_are_part_of_its_story() {
        let of = |name: &str| {
            EventLine::read(&json!({"eventTime": "2026-01-01T00:00:00Z", "involvedObject": {"kind": "SegmentPlacement", "name": name}})).unwrap()
        };
        for (name, expected) in [
            ("chat-0-g1-0", true),
            ("chat-0-g12-3", true),
            ("chat-two-0-g1-0", false),
            ("chat-0-1-0", false),
            ("chat", false),
        ] {
            assert_eq!(is_placement_of(&of(name), "chat"), expected, "{name}");
        }
    }
}
