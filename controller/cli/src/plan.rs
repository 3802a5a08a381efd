//! Plans told to a person or a program: which phone would hold what, how fast that would be, what limits it, and what
//! the rules of others would make of the same phones. Pure.

use polyphony_api::InferenceDeployment;
use polyphony_controller::reconcile::preview::{Compared, ExpertCosts, Plan, Preview, Stage};
use polyphony_controller::reconcile::segments;
use serde_json::{Value, json};

use crate::describe::deployment::objective;
use crate::describe::layout::Layout;

/// What was planned for a deployment.
pub struct Told<'a> {
    pub deployment: &'a InferenceDeployment,
    /// Of its model, where that has experts.
    pub experts: Option<ExpertCosts>,
    /// Of its replicas.
    pub previews: &'a [Preview],
    /// The prompt whose time to first token was predicted.
    pub prompt_tokens: u32,
}

/// The plans of a deployment's replicas.
pub fn text(told: &Told<'_>) -> String {
    let Told { deployment, previews, prompt_tokens, .. } = *told;
    let mut layout = Layout::default();
    let (spec, metadata) = (&deployment.spec, &deployment.metadata);
    layout.field("Name", metadata.name.as_deref().unwrap_or_default());
    layout.field_if("Namespace", metadata.namespace.as_deref());
    layout.field("Model", &spec.model);
    layout.field_if("Experts", told.experts.map(experts).as_deref());
    layout.field("Objective", objective(spec));
    layout.field("Room", format!("{} sessions of {} tokens", spec.max_sessions, spec.context_length));
    if previews.is_empty() {
        layout.field("Replicas", "none is asked for: raise spec.replicas");
    }
    for preview in previews {
        layout.line(0, &format!("Replica {}:", preview.replica));
        replica(&mut layout, preview, prompt_tokens);
    }
    layout.line(0, "Nothing was changed.");
    layout.finish()
}

fn experts(of: ExpertCosts) -> String {
    let (n, chunk) = (of.chunk_tokens, of.expected(of.chunk_tokens));
    format!("{} a layer: {} a token, some {chunk:.1} a chunk of {n} tokens", of.n_experts, of.n_chosen)
}

fn replica(layout: &mut Layout, preview: &Preview, prompt_tokens: u32) {
    match &preview.planned {
        Err(why) => layout.field_at(1, "Plan", format!("none: {why}")),
        Ok(planned) => {
            let plan = &planned.plan;
            if plan.predicted_inter_token_seconds > 0.0 {
                let speed = 1.0 / plan.predicted_inter_token_seconds;
                layout.field_at(1, "Predicted", format!("{speed:.1} tokens/s of one session"));
                if (plan.predicted_tokens_per_second - speed).abs() > 0.05 {
                    let all = plan.predicted_tokens_per_second;
                    layout.field_at(1, "All Sessions", format!("{all:.1} tokens/s together"));
                }
            }
            if let Some(seconds) = preview.time_to_first_token_seconds {
                layout.field_at(1, "First Token", format!("{seconds:.2} s after a prompt of {prompt_tokens} tokens"));
            }
            if let Some(energy) = energy(plan) {
                layout.field_at(1, "Energy", energy);
            }
            layout.field_at(1, "Limited By", &plan.bound);
            layout.field_at(1, "Quality", quality(plan.gap, plan.is_by_rule()));
            layout.field_at(1, "Class", &planned.numerics_class);
            stages(layout, plan);
        }
    }
    if !preview.left_out.is_empty() {
        let rows = preview.left_out.iter().map(|(phone, why)| vec![phone.clone(), why.clone()]);
        layout.table_at(1, "Left Out", &["Phone", "Why"], rows.collect());
    }
    if !preview.comparison.is_empty() {
        let headers = ["Strategy", "Tokens/s", "Ratio", "First Token", "Stages"];
        layout.table_at(1, "Strategies", &headers, preview.comparison.iter().map(compared).collect());
    }
}

fn stages(layout: &mut Layout, plan: &Plan) {
    let n_stages = plan.stages.len();
    let mut headers = vec!["Stage", "Phone", "Holds", "Memory", "Ready", "Step (ms)", "Hop (ms)"];
    headers.extend(plan.predicted_joules_per_token.map(|_| "Energy (mJ)"));
    let row = |(idx, stage): (usize, &Stage)| {
        let mut row = vec![
            format!("{} of {n_stages}", idx + 1),
            stage.phone.clone(),
            segments::holds(&stage.holds).summary,
            format!("{} MiB", (stage.bytes + stage.standby_bytes).div_ceil(1 << 20)),
            stage.standby.map_or_else(|| "-".to_owned(), |(from, to)| format!("{from}..{to}")),
            format!("{:.2}", stage.predicted_seconds * 1e3),
            format!("{:.2}", stage.predicted_hop_seconds * 1e3),
        ];
        let assumed = if stage.are_watts_assumed { "~" } else { "" };
        row.extend(stage.predicted_joules.map(|joules| format!("{assumed}{:.1}", joules * 1e3)));
        row
    };
    layout.table_at(1, "Stages", &headers, plan.stages.iter().enumerate().map(row).collect());
}

/// What a token takes, and of which phones that is not measured.
fn energy(plan: &Plan) -> Option<String> {
    let joules = plan.predicted_joules_per_token?;
    let assumed = plan.stages.iter().filter(|stage| stage.are_watts_assumed).map(|stage| stage.phone.as_str());
    let assumed: Vec<&str> = assumed.collect();
    let why = if assumed.is_empty() {
        String::new()
    } else {
        format!(" (nobody has measured the watts of {}: they are taken to be as others')", assumed.join(", "))
    };
    Some(format!("{joules:.3} J a token{why}"))
}

/// What is known of how good a plan is.
fn quality(gap: f64, is_by_rule: bool) -> String {
    match gap {
        gap if gap <= 0.0 && is_by_rule => "by a rule, and no plan is better".to_owned(),
        gap if gap <= 0.0 => "proven: no plan is better".to_owned(),
        gap if is_by_rule => format!("by a rule, at most {:.1} % from the best", gap * 100.0),
        gap => format!("the best that was found, at most {:.1} % from the best there is", gap * 100.0),
    }
}

fn compared(one: &Compared) -> Vec<String> {
    let name = format!("{}{}", one.strategy, if one.is_chosen { " *" } else { "" });
    match &one.planned {
        Ok(plan) => {
            let stages = plan.placed();
            let ratio = one.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}×"));
            let first = one.time_to_first_token_seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.2} s"));
            vec![name, format!("{:.1}", plan.predicted_tokens_per_second), ratio, first, stages]
        }
        Err(why) => vec![name, "-".to_owned(), "-".to_owned(), "-".to_owned(), format!("none: {why}")],
    }
}

/// The same for programs. Figures are seconds, bytes and tokens a second, as they were predicted.
pub fn value(told: &Told<'_>) -> Value {
    let Told { deployment, previews, prompt_tokens, .. } = *told;
    let replica = |preview: &Preview| {
        let mut value = json!({
            "replica": preview.replica,
            "leftOut": preview.left_out.iter().map(|(phone, why)| json!({"phone": phone, "why": why})).collect::<Vec<_>>(),
        });
        match &preview.planned {
            Ok(planned) => {
                value["plan"] = json!(planned.plan);
                value["numericsClass"] = json!(planned.numerics_class);
                value["timeToFirstTokenSeconds"] = json!(preview.time_to_first_token_seconds);
                value["strategies"] = preview.comparison.iter().map(compared_value).collect();
            }
            Err(why) => value["noPlan"] = json!({"reason": why.reason(), "message": why.to_string()}),
        }
        value
    };
    let mut value = json!({
        "deployment": deployment.metadata.name,
        "namespace": deployment.metadata.namespace,
        "promptTokens": prompt_tokens,
        "replicas": previews.iter().map(replica).collect::<Vec<_>>(),
    });
    if let Some(of) = told.experts {
        value["experts"] = json!({
            "perLayer": of.n_experts,
            "perToken": of.n_chosen,
            "expectedPerChunk": of.expected(of.chunk_tokens),
            "chunkTokens": of.chunk_tokens,
        });
    }
    value
}

fn compared_value(one: &Compared) -> Value {
    let mut value = json!({"strategy": one.strategy, "isChosen": one.is_chosen});
    match &one.planned {
        Ok(plan) => {
            value["stages"] = json!(plan.placed());
            value["predictedTokensPerSecond"] = json!(plan.predicted_tokens_per_second);
            value["predictedInterTokenSeconds"] = json!(plan.predicted_inter_token_seconds);
            value["timeToFirstTokenSeconds"] = json!(one.time_to_first_token_seconds);
            value["ratio"] = json!(one.ratio);
        }
        Err(why) => value["noPlan"] = json!({"reason": why.reason(), "message": why.to_string()}),
    }
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use polyphony_api::Phone;
    use polyphony_api::inference_deployment::Objective;
    use polyphony_controller::reconcile::preview::{Prompt, World, expert_costs, preview};
    use polyphony_model::{Experts, Manifest};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Six layers of 10 MiB, an embedding and a head of 4 MiB.
    fn manifest() -> Manifest {
        let entry = |name: &str, role: &str, layer: Option<u32>, offset: u64, mib: u64| {
            let source = json!({"ranges": [{"file": 0, "offset": offset, "nBytes": mib * MIB}]});
            json!({"name": name, "role": role, "layer": layer, "type": "F32", "shape": [1], "nBytes": mib * MIB,
                "sha256": "0".repeat(64), "source": source})
        };
        let mut tensors = vec![
            entry("token_embd.weight", "tokenEmbedding", None, 0, 4),
            entry("output.weight", "output", None, 4 * MIB, 4),
        ];
        for layer in 0..6 {
            let offset = (8 + u64::from(layer) * 10) * MIB;
            tensors.push(entry(&format!("blk.{layer}.ffn_up.weight"), "ffnUp", Some(layer), offset, 10));
        }
        serde_json::from_value(json!({
            "hyperparameters": {
                "architecture": "llama", "nLayers": 6, "hiddenSize": 64, "nHeads": 4, "nKvHeads": 2, "headSize": 16, "ffnSize": 128,
                "vocabSize": 256, "contextLength": 512, "normEpsilon": 1e-5, "tiedEmbedding": false,
                "rope": {"style": "pairs", "base": 10000.0, "nRotated": 16, "positionScale": 1.0, "hasFrequencyFactors": false},
            },
            "endTokens": [], "files": [{"name": "m.gguf", "nBytes": 100 * MIB, "sha256": "0".repeat(64)}], "tensors": tensors,
        }))
        .unwrap()
    }

    fn phone(name: &str, memory_mib: u64, gigabytes_per_second: f64) -> Phone {
        serde_json::from_value(json!({
            "apiVersion": "polyphony.dev/v1alpha1", "kind": "Phone", "metadata": {"name": name}, "spec": {},
            "status": {
                "capacity": {"memory": format!("{memory_mib}Mi")}, "allocatable": {"memory": format!("{memory_mib}Mi")},
                "backend": "cpu", "numerics": "cpu-int8", "kvCaches": ["F32", "F16", "Q8"], "ringAddress": "127.0.0.1:1",
                "backends": [{"name": "cpu", "device": "cpu", "gflops": 100.0, "gigabytesPerSecond": gigabytes_per_second}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "Heartbeat", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }))
        .unwrap()
    }

    fn deployment(strategy: &str) -> InferenceDeployment {
        serde_json::from_value(json!({
            "apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment", "metadata": {"name": "d", "namespace": "default"},
            "spec": {"model": "m", "contextLength": 64, "maxSessions": 1, "placement": {"memoryFraction": 1.0, "strategy": strategy}},
        }))
        .unwrap()
    }

    fn previews(phones: Vec<Phone>, strategy: &str) -> Vec<Preview> {
        previews_of(phones, &deployment(strategy))
    }

    fn previews_of(phones: Vec<Phone>, deployment: &InferenceDeployment) -> Vec<Preview> {
        let world = World {
            now: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            phones,
            deployments: Vec::new(),
            placements: Vec::new(),
        };
        let prompt = Prompt { n_tokens: 128, chunk_tokens: 32 };
        preview(&world, deployment, &manifest(), "digest", prompt)
    }

    fn uneven() -> Vec<Phone> {
        vec![phone("slow", 60, 1.0), phone("fast", 60, 10.0), phone("small", 30, 5.0)]
    }

    fn told<'a>(deployment: &'a InferenceDeployment, previews: &'a [Preview]) -> Told<'a> {
        Told { deployment, experts: expert_costs(&manifest()), previews, prompt_tokens: 128 }
    }

    #[test]
    fn of_a_mixture_it_is_told_how_many_experts_tokens_take() {
        let deployment = deployment("Optimal");
        let mut manifest = manifest();
        manifest.hyperparameters.experts = Some(Experts { n_experts: 128, n_chosen: 8, scale: 1.0 });
        let told = Told { experts: expert_costs(&manifest), ..told(&deployment, &[]) };
        let text = text(&told);
        assert!(text.contains("Experts:    128 a layer: 8 a token, some 111.8 a chunk of 32 tokens\n"), "{text}");
        let found = value(&told);
        assert_eq!((&found["experts"]["perLayer"], &found["experts"]["perToken"]), (&json!(128), &json!(8)));
        assert!((found["experts"]["expectedPerChunk"].as_f64().unwrap() - 111.77).abs() < 0.01, "{found}");
    }

    #[test]
    fn a_plan_is_told_beside_what_other_rules_would_make_of_the_phones() {
        let (deployment, previews) = (deployment("Optimal"), previews(uneven(), "Optimal"));
        let text = text(&told(&deployment, &previews));
        assert!(!text.contains("Experts"), "{text}");
        for expected in [
            "Quality:      proven: no plan is better\n",
            "Strategies:\n",
            "Optimal *",
            "fast 0..2, slow 2..4, small 4..6",
            "1.00×",
            "Nothing was changed.\n",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
        let row = text.lines().find(|line| line.trim_start().starts_with("EqualSplit")).unwrap();
        let ratio: f64 = row.split('×').next().unwrap().split_whitespace().last().unwrap().parse().unwrap();
        assert!(ratio < 1.0, "{row}");
    }

    #[test]
    fn where_joules_count_they_are_told_and_so_is_whose_watts_nobody_has_measured() {
        let mut deployment = deployment("Optimal");
        deployment.spec.objective = Objective::Efficiency;
        deployment.spec.min_tokens_per_second = Some(0.5);
        let phones = |watts: Option<f64>| {
            let mut phones = vec![phone("one", 100, 1.0), phone("other", 100, 2.0)];
            phones[0].status.as_mut().unwrap().active_watts = Some(1.0);
            phones[1].status.as_mut().unwrap().active_watts = watts;
            phones
        };
        let told_of = |watts| {
            let previews = previews_of(phones(watts), &deployment);
            (text(&told(&deployment, &previews)), value(&told(&deployment, &previews)))
        };
        let (text, value) = told_of(Some(9.0));
        let joules = value["replicas"][0]["plan"]["predictedJoulesPerToken"].as_f64().unwrap();
        for expected in [
            "Objective:  Efficiency, at 0.5 tokens/s at least\n".to_owned(),
            format!("Energy:       {joules:.3} J a token\n"),
            "Energy (mJ)".to_owned(),
        ] {
            assert!(text.contains(&expected), "no {expected:?} in:\n{text}");
        }
        assert_eq!(value["replicas"][0]["plan"]["stages"][0]["phone"], "one", "it takes a ninth, in twice the time");
        // As much as the other then, in half of the time.
        let (text, _) = told_of(None);
        let expected = "J a token (nobody has measured the watts of other: they are taken to be as others')\n";
        assert!(text.contains(expected) && text.contains(" ~"), "{text}");
    }

    #[test]
    fn a_deployment_with_a_rule_of_its_own_is_told_by_that_rule() {
        let previews = previews(uneven(), "EqualSplit");
        let text = text(&told(&deployment("EqualSplit"), &previews));
        assert!(text.contains("EqualSplit *") && !text.contains("Optimal *"), "{text}");
        assert!(text.contains("by a rule, at most "), "{text}");
        assert_eq!(previews[0].planned.as_ref().unwrap().plan.placed(), "fast 0..2, slow 2..4, small 4..6");
    }

    #[test]
    fn programs_get_the_same_figures_and_a_reason_where_there_is_no_plan() {
        let deployment = deployment("Optimal");
        let found = value(&told(&deployment, &previews(uneven(), "Optimal")));
        assert!(found.get("experts").is_none());
        let replica = &found["replicas"][0];
        assert_eq!(replica["strategies"][0]["ratio"], 1.0);
        assert_eq!(replica["strategies"][0]["predictedTokensPerSecond"], replica["plan"]["predictedTokensPerSecond"]);
        assert_eq!(replica["strategies"].as_array().unwrap().len(), 6);
        assert!(replica["timeToFirstTokenSeconds"].as_f64().unwrap() > 0.0);
        assert_eq!(replica["plan"]["method"], "Exact");

        let short = value(&told(&deployment, &previews(vec![phone("tiny", 20, 1.0)], "Optimal")));
        assert_eq!(short["replicas"][0]["noPlan"]["reason"], "InsufficientMemory");
    }
}
