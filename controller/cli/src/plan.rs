//! Plans told to a person: which phone would hold what, how fast that would be, and what limits it. Pure.

use polyphony_api::InferenceDeployment;
use polyphony_api::inference_deployment::Objective;
use polyphony_controller::reconcile::preview::Preview;
use polyphony_controller::reconcile::segments;

use crate::describe::layout::Layout;

/// The plans of a deployment's replicas. `prompt_tokens` is the prompt whose time to first token was predicted.
pub fn text(deployment: &InferenceDeployment, previews: &[Preview], prompt_tokens: u32) -> String {
    let mut layout = Layout::default();
    let (spec, metadata) = (&deployment.spec, &deployment.metadata);
    layout.field("Name", metadata.name.as_deref().unwrap_or_default());
    layout.field_if("Namespace", metadata.namespace.as_deref());
    layout.field("Model", &spec.model);
    layout.field(
        "Objective",
        match spec.objective {
            Objective::Latency => "Latency",
            Objective::Throughput => "Throughput",
        },
    );
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
            layout.field_at(1, "Limited By", &plan.bound);
            let proof = if plan.gap > 0.0 {
                format!("at most {:.0} % from the best", plan.gap * 100.0)
            } else {
                "no plan is better".to_owned()
            };
            layout.field_at(1, "Quality", proof);
            layout.field_at(1, "Arithmetic", &planned.numerics_class);
            let n_stages = plan.stages.len();
            let rows = plan.stages.iter().enumerate().map(|(idx, stage)| {
                vec![
                    format!("{} of {n_stages}", idx + 1),
                    stage.phone.clone(),
                    segments::holds(&stage.holds).summary,
                    format!("{} MiB", stage.bytes.div_ceil(1 << 20)),
                    format!("{:.2}", stage.predicted_seconds * 1e3),
                    format!("{:.2}", stage.predicted_hop_seconds * 1e3),
                ]
            });
            layout.table_at(
                1,
                "Stages",
                &["Stage", "Phone", "Holds", "Memory", "Step (ms)", "Hop (ms)"],
                rows.collect(),
            );
        }
    }
    if !preview.left_out.is_empty() {
        let rows = preview.left_out.iter().map(|(phone, why)| vec![phone.clone(), why.clone()]);
        layout.table_at(1, "Left Out", &["Phone", "Why"], rows.collect());
    }
}
