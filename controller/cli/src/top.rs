//! Tables of `top`: phones and deployments as their status says they are. Pure: objects in, lines of cells out.

use std::collections::BTreeMap;

use kube::ResourceExt;
use polyphony_api::segment_placement::Phase;
use polyphony_api::{InferenceDeployment, Phone, SegmentPlacement, quantity};

/// What a figure that nobody measured is shown as.
const NONE: &str = "-";

/// One line a phone, after the headers.
pub fn phones(phones: &[Phone], placements: &[SegmentPlacement]) -> Vec<Vec<String>> {
    let headers = ["NAME", "SEGMENTS", "RESERVED", "MEMORY(%)", "MS/LAYER", "SESSIONS", "TEMP", "BATTERY"];
    let mut lines = vec![headers.map(str::to_owned).to_vec()];
    for phone in phones {
        let name = phone.name_any();
        let held: Vec<&SegmentPlacement> = placements.iter().filter(|placement| placement.spec.phone == name).collect();
        let status = phone.status.clone().unwrap_or_default();
        let allocatable = status.allocatable.and_then(|memory| quantity::parse_bytes(&memory.memory).ok());
        let reserved: u64 = held.iter().map(|placement| placement.spec.planned_bytes).sum();
        let of = |bytes: u64| format!("{}Mi", bytes.div_ceil(1 << 20));
        let layers: Vec<f64> = held.iter().filter_map(|placement| milliseconds_per_layer(placement)).collect();
        let slowest = layers.into_iter().reduce(f64::max);
        let charging = if status.charging == Some(true) { "+" } else { "" };
        lines.push(vec![
            name,
            held.len().to_string(),
            allocatable.map_or_else(|| of(reserved), |all| format!("{} of {}", of(reserved), of(all))),
            allocatable.filter(|all| *all > 0).map_or_else(none, |all| format!("{}%", reserved * 100 / all)),
            slowest.map_or_else(none, |milliseconds| format!("{milliseconds:.2}")),
            sessions(held.iter().copied()).map_or_else(none, |n| n.to_string()),
            status.temperature_celsius.map_or_else(none, |celsius| format!("{celsius:.0}°C")),
            status.battery_percent.map_or_else(none, |percent| format!("{percent}%{charging}")),
        ]);
    }
    lines
}

/// One line a deployment, after the headers.
pub fn deployments(
    deployments: &[InferenceDeployment],
    placements: &[SegmentPlacement],
    with_namespace: bool,
) -> Vec<Vec<String>> {
    let mut headers = vec!["NAME", "READY", "TOKENS/S", "PREDICTED", "PHONES", "SESSIONS", "GENERATION"];
    if with_namespace {
        headers.insert(0, "NAMESPACE");
    }
    let mut lines = vec![headers.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for deployment in deployments {
        let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
        let (spec, status) = (&deployment.spec, deployment.status.clone().unwrap_or_default());
        // What is marked with ~ is the prediction, which has a column of its own.
        let measured = status.tokens_per_second.filter(|text| !text.starts_with('~'));
        // What is scaled to nothing has no speed and misses no generation: what was is over.
        let (measured, newest) = if spec.replicas == 0 && status.ready_replicas == 0 {
            (None, None)
        } else {
            (measured, status.plan_generation)
        };
        // Every stage of a ring has the same sessions: the heads stand for them.
        let own: Vec<&SegmentPlacement> = placements
            .iter()
            .filter(|placement| placement.spec.deployment == name && placement.namespace().as_ref() == Some(&namespace))
            .collect();
        let heads = own.iter().filter(|placement| placement.spec.stage == 0).copied();
        let held = sessions(heads).unwrap_or(0);
        let most = status.ready_replicas.saturating_mul(spec.max_sessions);
        let mut line = vec![
            name,
            format!("{}/{}", status.ready_replicas, spec.replicas),
            measured.unwrap_or_else(none),
            status.predicted_tokens_per_second.map_or_else(none, |speed| format!("{speed:.1}")),
            status.phones.map_or_else(none, |n| n.to_string()),
            format!("{held} of {most}"),
            generations(&own, newest),
        ];
        if with_namespace {
            line.insert(0, namespace);
        }
        lines.push(line);
    }
    lines
}

fn none() -> String {
    NONE.to_owned()
}

fn sessions<'a>(placements: impl Iterator<Item = &'a SegmentPlacement>) -> Option<u32> {
    placements.filter_map(|placement| placement.status.as_ref()?.sessions).reduce(u32::saturating_add)
}

fn milliseconds_per_layer(placement: &SegmentPlacement) -> Option<f64> {
    placement.status.as_ref()?.milliseconds_per_layer.as_ref()?.parse().ok()
}

/// `2`, or `2 (3 Loading)` while a newer one comes up.
fn generations(placements: &[&SegmentPlacement], newest: Option<u64>) -> String {
    let mut phases: BTreeMap<u64, Vec<Phase>> = BTreeMap::new();
    for placement in placements {
        let phase = placement.status.as_ref().map(|status| status.phase).unwrap_or_default();
        phases.entry(placement.spec.plan_generation).or_default().push(phase);
    }
    let is_ready = |phases: &Vec<Phase>| phases.iter().all(|phase| *phase == Phase::Ready);
    let serving = phases.iter().rev().find(|(_, phases)| is_ready(phases)).map(|(number, _)| *number);
    let coming = phases.keys().next_back().copied().filter(|number| serving.is_none_or(|serving| *number > serving));
    match (serving, coming) {
        (Some(serving), Some(coming)) => format!("{serving} ({coming} loading)"),
        (Some(serving), None) => serving.to_string(),
        (None, Some(coming)) => format!("{coming} loading"),
        (None, None) => newest.map_or_else(none, |number| format!("{number} gone")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn placement(generation: u64, stage: u32, phone: &str, status: Value) -> SegmentPlacement {
        serde_json::from_value(json!({"apiVersion": "polyphony.dev/v1alpha1", "kind": "SegmentPlacement",
            "metadata": {"name": format!("d-0-g{generation}-{stage}"), "namespace": "default"},
            "spec": {"deployment": "d", "model": "m", "manifestDigest": "d", "replica": 0, "planGeneration": generation, "stage": stage,
                "stages": 2, "phone": phone, "holds": {"embedding": stage == 0, "from": 0, "to": 1, "head": stage == 1, "summary": "s"},
                "edges": [], "contextLength": 512, "maxSessions": 2, "activationType": "f16", "numericsClass": "cpu-f32",
                "plannedBytes": 30 << 20, "predictedStepMicroseconds": 1}, "status": status}))
        .unwrap()
    }

    fn text(lines: &[Vec<String>]) -> Vec<String> {
        lines.iter().map(|line| line.join("|")).collect()
    }

    #[test]
    fn phones_show_what_is_reserved_and_how_they_are() {
        let phone = |status: Value| -> Phone {
            serde_json::from_value(json!({"apiVersion": "polyphony.dev/v1alpha1", "kind": "Phone", "metadata": {"name": "a"}, "spec": {}, "status": status})).unwrap()
        };
        let placements = [
            placement(1, 0, "a", json!({"phase": "Ready", "millisecondsPerLayer": "2.50", "sessions": 1})),
            placement(2, 0, "a", json!({"phase": "Loading"})),
            placement(1, 1, "b", json!({})),
        ];
        let known = phone(
            json!({"allocatable": {"memory": "120Mi"}, "temperatureCelsius": 36.6, "batteryPercent": 80, "charging": true}),
        );
        let lines = phones(&[known, phone(json!({}))], &placements);
        assert_eq!(text(&lines)[1], "a|2|60Mi of 120Mi|50%|2.50|1|37°C|80%+");
        assert_eq!(text(&lines)[2], "a|2|60Mi|-|2.50|1|-|-");
        assert_eq!(text(&phones(&[phone(json!({}))], &[]))[1], "a|0|0Mi|-|-|-|-|-");
    }

    #[test]
    fn deployments_show_measured_and_predicted_speed_apart() {
        let of_replicas = |replicas: u32, status: Value| -> InferenceDeployment {
            serde_json::from_value(json!({"apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment",
                "metadata": {"name": "d", "namespace": "default"}, "spec": {"model": "m", "replicas": replicas, "maxSessions": 2}, "status": status})).unwrap()
        };
        let deployment = |status: Value| of_replicas(1, status);
        let ready = json!({"phase": "Ready", "sessions": 1});
        let placements = [
            placement(1, 0, "a", ready.clone()),
            placement(1, 1, "b", ready),
            placement(2, 0, "c", json!({"phase": "Loading"})),
        ];
        let status = json!({"readyReplicas": 1, "replicas": 1, "phones": 2, "tokensPerSecond": "9.1", "predictedTokensPerSecond": 10.0, "planGeneration": 2});
        let lines = deployments(&[deployment(status)], &placements, false);
        assert_eq!(text(&lines)[1], "d|1/1|9.1|10.0|2|1 of 2|1 (2 loading)");
        let predicted = json!({"tokensPerSecond": "~10.0", "predictedTokensPerSecond": 10.0});
        assert_eq!(text(&deployments(&[deployment(predicted)], &[], true))[1], "default|d|0/1|-|10.0|-|0 of 0|-");
        let over = json!({"tokensPerSecond": "9.1", "planGeneration": 2});
        assert_eq!(text(&deployments(&[of_replicas(0, over.clone())], &[], false))[1], "d|0/0|-|-|-|0 of 0|-");
        assert_eq!(text(&deployments(&[deployment(over)], &[], false))[1], "d|0/1|9.1|-|-|0 of 0|2 gone");
    }
}
