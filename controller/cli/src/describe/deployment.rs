//! A deployment: what was asked, what runs, on which phones, and how it came to be so.

use polyphony_api::inference_deployment::{
    ActivationType, BalancingStrategy, LoadBalancing, Objective, Placement, PlanSummary,
};
use polyphony_api::numerics::Prefill;
use polyphony_api::{InferenceDeployment, InferenceDeploymentSpec, SegmentPlacement};

use super::layout::Layout;
use super::{Story, events, placement};

pub(super) fn write(layout: &mut Layout, deployment: &InferenceDeployment, story: &Story) {
    let (spec, status) = (&deployment.spec, deployment.status.clone().unwrap_or_default());
    layout.metadata(&deployment.metadata);
    layout.field("Model", &spec.model);
    layout.field(
        "Replicas",
        format!("{} desired | {} planned | {} ready", spec.replicas, status.replicas, status.ready_replicas),
    );
    layout.field("Context Length", format!("{} tokens", spec.context_length));
    layout.field("Max Sessions", spec.max_sessions);
    layout.field("Objective", objective(spec));
    layout.field("Placement", wishes(&spec.placement));
    layout.field_if("Balancing", balancing(&spec.load_balancing));
    layout.field("Numerics", numerics(spec));
    layout.field_if("Class", class(story.placements));
    layout.field_if("URL", status.url);
    layout.field_if("Plan Generation", status.plan_generation);
    layout.field_if("Plan", status.plan.as_ref().map(summary));
    let joules = status.plan.as_ref().and_then(|plan| plan.joules_per_token);
    layout.field_if("Energy", joules.map(|joules| format!("{joules} J a token expected of all phones together")));
    layout.field_if("Phones", status.phones);
    let predicted =
        status.predicted_tokens_per_second.map(|speed| format!(" (predicted {speed:.1})")).unwrap_or_default();
    layout.field_if("Tokens/s", status.tokens_per_second.map(|speed| format!("{speed}{predicted}")));
    let n_tokens = spec.prompt_tokens.unwrap_or(512);
    let prompt = |seconds: f64| format!("{seconds:.2} s expected of a prompt of {n_tokens} tokens");
    layout.field_if("First Token", status.time_to_first_token_seconds.map(prompt));
    if let (Some(observed), Some(generation)) = (status.observed_generation, deployment.metadata.generation)
        && observed < generation
    {
        layout.field(
            "Observed",
            format!("generation {observed} of {generation}: the newest change has not been acted on yet"),
        );
    }
    layout.conditions(&status.conditions, story.now);
    placement::write_table(layout, "Placements", story.placements, placement::Column::Phone);
    placement::write_relayed(layout, story.placements);
    events::write(layout, story.events, deployment.metadata.name.as_deref().unwrap_or_default(), story.now);
}

/// What is optimised, with its floor.
pub(crate) fn objective(spec: &InferenceDeploymentSpec) -> String {
    match (spec.objective, spec.min_tokens_per_second) {
        (Objective::Latency, _) => "Latency".to_owned(),
        (Objective::Throughput, _) => "Throughput".to_owned(),
        (Objective::Efficiency, None) => "Efficiency".to_owned(),
        (Objective::Efficiency, Some(floor)) => format!("Efficiency, at {floor} tokens/s at least"),
    }
}

/// What the deployment asks for.
fn numerics(spec: &InferenceDeploymentSpec) -> String {
    let hidden = match spec.activation_type() {
        ActivationType::F32 => "f32",
        ActivationType::F16 => "f16",
        ActivationType::Q8 => "q8",
    };
    let prefill = match spec.numerics.prefill {
        Some(Prefill::Gpu) => ", prompts on GPUs (after a replay later tokens may be others)",
        None => "",
    };
    format!("{:?}, {hidden} hidden states, {:?} KV cache{prefill}", spec.numerics.arithmetic, spec.numerics.kv_cache)
}

/// What its newest plan computes in: the phones' class of these.
fn class(placements: &[SegmentPlacement]) -> Option<String> {
    let newest = placements.iter().max_by_key(|placement| placement.spec.plan_generation)?;
    Some(newest.spec.numerics_class.clone()).filter(|class| !class.is_empty())
}

fn wishes(placement: &Placement) -> String {
    let phones = match (placement.min_phones, placement.max_phones) {
        (1, None) => "any number of phones".to_owned(),
        (least, None) => format!("at least {least} phones"),
        (least, Some(most)) if least == most => format!("exactly {least} phones"),
        (least, Some(most)) => format!("{least} to {most} phones"),
    };
    let labels = placement.selector_text();
    let selector = if labels.is_empty() { String::new() } else { format!(" with {labels}") };
    let labels = placement.trusted_text();
    let trust =
        if labels.is_empty() { String::new() } else { format!(", layers that see text on those with {labels}") };
    let sharing = match (placement.allow_sharing, placement.assume_others_idle) {
        (false, _) => ", shared with no other deployment",
        (true, true) => ", planned as though other deployments were idle",
        (true, false) => "",
    };
    format!("{phones}{selector}{trust}, {:.0} % of their memory{sharing}", placement.memory_fraction * 100.0)
}

/// What differs from the usual: nothing to say where it is on with its defaults.
fn balancing(rules: &LoadBalancing) -> Option<String> {
    if *rules == LoadBalancing::default() {
        return None;
    }
    if !rules.enabled {
        return Some("off".to_owned());
    }
    let overlap = if rules.overlap { "" } else { ", nothing on standby" };
    Some(match rules.strategy {
        BalancingStrategy::Optimal => format!(
            "from {} % more tokens/s, {} s apart at least{overlap}",
            rules.minimum_gain_percent, rules.cool_down_seconds
        ),
        BalancingStrategy::LinguaLinked => {
            format!("as published, one layer, {} s apart at least{overlap}", rules.cool_down_seconds)
        }
    })
}

fn summary(plan: &PlanSummary) -> String {
    let gap =
        if plan.gap_percent > 0.0 { format!(", at most {} % off the best", plan.gap_percent) } else { String::new() };
    format!("{:?}, {}{gap}, limited by: {}", plan.strategy, plan.method, plan.limited_by)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_api::SegmentPlacement;
    use serde_json::{Value, json};

    use super::super::events::EventLine;
    use super::super::{Story, describe};

    fn placement(stage: u32, phone: &str, summary: &str, generation: u64, phase: &str) -> SegmentPlacement {
        let object = json!({"apiVersion": "polyphony.dev/v1alpha1", "kind": "SegmentPlacement",
            "metadata": {"name": format!("smollm2-0-g{generation}-{stage}"), "namespace": "default"},
            "spec": {"deployment": "smollm2", "model": "m", "manifestDigest": "d", "replica": 0, "planGeneration": generation, "stage": stage,
                "stages": 2, "phone": phone, "holds": {"embedding": stage == 0, "from": 0, "to": 1, "head": stage == 1, "summary": summary},
                "edges": [], "contextLength": 512, "maxSessions": 2, "activationType": "f16", "numericsClass": "cpu-f32",
                "plannedBytes": 1, "predictedStepMicroseconds": 1},
            "status": {"phase": phase, "loaded": "64 of 64 MiB"}});
        serde_json::from_value(object).unwrap()
    }

    fn event(minute: u32, type_: &str, reason: &str, message: &str) -> EventLine {
        let event: Value = json!({"type": type_, "reason": reason, "message": message, "eventTime": format!("2026-01-01T00:{minute:02}:00Z"),
            "reportingComponent": "controller", "involvedObject": {"kind": "InferenceDeployment", "name": "smollm2"}});
        EventLine::read(&event).unwrap()
    }

    #[test]
    fn a_deployment_tells_its_story() {
        let object = json!({"apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment",
            "metadata": {"name": "smollm2", "namespace": "default", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"a": "1", "b": "2"}},
            "spec": {"model": "smollm2-135m-instruct", "contextLength": 512, "maxSessions": 2, "placement": {"maxPhones": 3}, "loadBalancing": {"coolDownSeconds": 60, "overlap": false}},
            "status": {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "planGeneration": 2, "phones": 2,
                "url": "http://127.0.0.1:8080/v1", "tokensPerSecond": "~9.1", "predictedTokensPerSecond": 9.14,
                "plan": {"generation": 2, "strategy": "Optimal", "method": "Exact", "gapPercent": 0, "limitedBy": "speed of phone-3"},
                "timeToFirstTokenSeconds": 1.5,
                "conditions": [{"type": "Available", "status": "True", "reason": "AllReady", "message": "1 of 1\nreplicas",
                    "lastTransitionTime": "2026-01-01T00:03:00Z"}]}});
        let placements = [
            placement(0, "phone-1", "embedding+layers 0-14", 2, "Ready"),
            placement(1, "phone-3", "layers 15-29+head", 2, "Ready"),
        ];
        let events = [
            event(1, "Normal", "Planned", "generation 1 over 3 phones"),
            event(2, "Warning", "PhoneLost", "phone-2 is gone"),
        ];
        let story = Story {
            object: &object,
            placements: &placements,
            events: &events,
            now: "2026-01-01T00:05:00Z".parse().unwrap(),
        };
        assert_eq!(
            describe(&story),
            "\
Name:               smollm2
Namespace:          default
CreationTimestamp:  Thu, 01 Jan 2026 00:00:00 +0000
Labels:             a=1
                    b=2
Annotations:        <none>
Model:              smollm2-135m-instruct
Replicas:           1 desired | 1 planned | 1 ready
Context Length:     512 tokens
Max Sessions:       2
Objective:          Latency
Placement:          1 to 3 phones, 90 % of their memory
Balancing:          from 10 % more tokens/s, 60 s apart at least, nothing on standby
Numerics:           Int8, f16 hidden states, F16 KV cache
Class:              cpu-f32
URL:                http://127.0.0.1:8080/v1
Plan Generation:    2
Plan:               Optimal, Exact, limited by: speed of phone-3
Phones:             2
Tokens/s:           ~9.1 (predicted 9.1)
First Token:        1.50 s expected of a prompt of 512 tokens
Observed:           generation 1 of 2: the newest change has not been acted on yet
Conditions:
  Type       Status  Since  Reason    Message
  ----       ------  -----  ------    -------
  Available  True    2m     AllReady  1 of 1 replicas
Placements:
  Name            Generation  Stage   Phone    Holds                  Phase  Loaded        Message
  ----            ----------  -----   -----    -----                  -----  ------        -------
  smollm2-0-g2-0  2           1 of 2  phone-1  embedding+layers 0-14  Ready  64 of 64 MiB
  smollm2-0-g2-1  2           2 of 2  phone-3  layers 15-29+head      Ready  64 of 64 MiB
Events:
  Type     Reason     Age  From        Message
  ----     ------     ---  ----        -------
  Normal   Planned    4m   controller  generation 1 over 3 phones
  Warning  PhoneLost  3m   controller  phone-2 is gone
"
        );
    }

    #[test]
    fn a_deployment_tells_which_hops_go_over_the_hub_and_why() {
        let object = json!({"apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment", "metadata": {"name": "smollm2"},
            "spec": {"model": "m"}});
        let mut placements = [
            placement(0, "attic", "embedding+layer 0", 3, "Ready"),
            placement(1, "kitchen", "layer 1+head", 3, "Ready"),
        ];
        let relayed = |to, reason: &str| polyphony_api::segment_placement::RelayedHop { to, reason: reason.into() };
        placements[0].spec.relayed = vec![relayed(1, "nothing came for 5s")];
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let told = describe(&Story { object: &object, placements: &placements, events: &[], now });
        let table = "\
Over The Hub:
  Generation  From   To       Reason
  ----------  ----   --       ------
  3           attic  kitchen  nothing came for 5s
";
        assert!(told.contains(table), "{told}");
        placements[0].spec.relayed.clear();
        let told = describe(&Story { object: &object, placements: &placements, events: &[], now });
        assert!(!told.contains("Over The Hub"), "{told}");
    }
}
