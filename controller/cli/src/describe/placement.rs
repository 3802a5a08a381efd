//! A placement: one segment on one phone; also as a row of its deployment's or its phone's table.

use polyphony_api::SegmentPlacement;
use polyphony_api::inference_deployment::ActivationType;
use polyphony_api::segment_placement::{EdgeKind, Phase};

use super::layout::{Layout, mebibytes, one_line};
use super::{Story, events};

/// What a table of placements names besides the segment: the other end of the relation.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Column {
    Phone,
    Deployment,
}

pub(super) fn write(layout: &mut Layout, placement: &SegmentPlacement, story: &Story) {
    let (spec, status) = (&placement.spec, placement.status.clone().unwrap_or_default());
    layout.metadata(&placement.metadata);
    layout.field("Deployment", &spec.deployment);
    layout.field("Replica", spec.replica);
    layout.field("Plan Generation", spec.plan_generation);
    // By its number, as `get` and the stages of Output To are.
    layout.field("Stage", format!("{} (of {})", spec.stage, spec.stages));
    layout.field("Phone", &spec.phone);
    layout.field("Model", &spec.model);
    layout.field("Manifest Digest", &spec.manifest_digest);
    layout.field("Holds", &spec.holds.summary);
    layout.field_if("Standby", spec.standby.as_ref().map(|kept| kept.summary.as_str()));
    layout.field_if(
        "Follows",
        spec.follows.map(|generation| format!("generation {generation}, whose sessions move here")),
    );
    let edges = spec.edges.iter().map(|edge| match edge.kind {
        EdgeKind::Sequential => format!("stage {}", edge.to),
        EdgeKind::Skip => format!("stage {} (skip)", edge.to),
    });
    layout.field(
        "Output To",
        Some(edges.collect::<Vec<_>>().join(", ")).filter(|edges| !edges.is_empty()).unwrap_or("<none>".into()),
    );
    let relayed = spec.relayed.iter().map(|hop| format!("to stage {}, for: {}", hop.to, one_line(&hop.reason)));
    layout.field_if("Over The Hub", Some(relayed.collect::<Vec<_>>().join("; ")).filter(|hops| !hops.is_empty()));
    layout.field("Context Length", format!("{} tokens", spec.context_length));
    layout.field("Max Sessions", spec.max_sessions);
    layout.field(
        "Activation Type",
        match spec.activation_type {
            ActivationType::F32 => "f32",
            ActivationType::F16 => "f16",
            ActivationType::Q8 => "q8",
        },
    );
    layout.field("Numerics Class", &spec.numerics_class);
    layout.field("Planned Memory", mebibytes(spec.planned_bytes));
    layout.field("Predicted Step", format!("{:.2} ms", spec.predicted_step_microseconds as f64 / 1000.0));
    layout.field("Phase", phase(status.phase));
    layout.field(
        "Loaded",
        status.loaded.unwrap_or_else(|| format!("{} of {} bytes", status.bytes_loaded, status.bytes_total)),
    );
    layout.field_if("Ms/Layer", status.milliseconds_per_layer);
    layout.field_if("Message", status.message.map(|message| one_line(&message)));
    layout.conditions(&status.conditions, story.now);
    events::write(layout, story.events, placement.metadata.name.as_deref().unwrap_or_default(), story.now);
}

/// One row a placement: newest generation first, then by replica and stage.
pub(super) fn write_table(layout: &mut Layout, title: &str, placements: &[SegmentPlacement], column: Column) {
    let mut sorted: Vec<&SegmentPlacement> = placements.iter().collect();
    sorted.sort_by_key(|placement| {
        let spec = &placement.spec;
        (spec.deployment.clone(), spec.replica, std::cmp::Reverse(spec.plan_generation), spec.stage)
    });
    let rows = sorted.into_iter().map(|placement| {
        let status = placement.status.clone().unwrap_or_default();
        let terminating = if placement.metadata.deletion_timestamp.is_some() { ", terminating" } else { "" };
        vec![
            placement.metadata.name.clone().unwrap_or_default(),
            placement.spec.plan_generation.to_string(),
            stage(placement),
            match column {
                Column::Phone => placement.spec.phone.clone(),
                Column::Deployment => placement.spec.deployment.clone(),
            },
            placement.spec.holds.summary.clone(),
            format!("{}{terminating}", phase(status.phase)),
            status.loaded.unwrap_or_default(),
            one_line(&status.message.unwrap_or_default()),
        ]
    });
    let other = if column == Column::Phone { "Phone" } else { "Deployment" };
    layout.table(title, &["Name", "Generation", "Stage", other, "Holds", "Phase", "Loaded", "Message"], rows.collect());
}

/// The hops of all these that go over the hub, and why; nothing where there is none.
pub(super) fn write_relayed(layout: &mut Layout, placements: &[SegmentPlacement]) {
    let phone_of = |of: &SegmentPlacement, stage: u32| {
        let is_it = |other: &&SegmentPlacement| {
            let (a, b) = (&of.spec, &other.spec);
            (a.replica, a.plan_generation, stage) == (b.replica, b.plan_generation, b.stage)
        };
        placements.iter().find(is_it).map_or_else(|| format!("stage {}", stage + 1), |other| other.spec.phone.clone())
    };
    let hops = placements.iter().flat_map(|from| from.spec.relayed.iter().map(move |hop| (from, hop)));
    let rows = hops.map(|(from, hop)| {
        let generation = from.spec.plan_generation.to_string();
        vec![generation, from.spec.phone.clone(), phone_of(from, hop.to), one_line(&hop.reason)]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        layout.table("Over The Hub", &["Generation", "From", "To", "Reason"], rows);
    }
}

/// Counted from 1, as people count.
fn stage(placement: &SegmentPlacement) -> String {
    format!("{} of {}", placement.spec.stage + 1, placement.spec.stages)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Loading => "Loading",
        Phase::Ready => "Ready",
        Phase::Draining => "Draining",
        Phase::Failed => "Failed",
    }
}
