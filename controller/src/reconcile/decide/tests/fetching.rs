//! Tables of decisions: a model whose files are elsewhere.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use polyphony_api::{Model, ModelStatus};

use super::super::fixtures::{World, key};
use super::super::{Action, decide};
use super::three_phones;
use crate::models::fetch::{Bytes, FetchStep};
use crate::models::{Progress, Reason};

fn see(world: &mut World, progress: Progress) {
    world.observed.models.get_mut(&key("m")).unwrap().progress = Some(progress);
}

fn status(world: &World) -> ModelStatus {
    world.observed.models[&key("m")].object.status.clone().unwrap_or_default()
}

fn resolved(world: &World) -> String {
    let found = status(world).conditions.into_iter().find(|found| found.type_ == "Resolved").unwrap();
    format!("{} {}", found.status, found.reason)
}

fn downloading(n_bytes: u64) -> Progress {
    let bytes = Bytes { file: "m.gguf".into(), n_bytes, n_total: Some(100 << 20) };
    Progress::Fetching { step: FetchStep::Downloading { bytes, note: Some("why this one".into()) }, is_stalled: false }
}

#[test]
fn a_commit_is_kept_before_anything_is_fetched_of_it() {
    let mut world = three_phones();
    see(&mut world, Progress::Named { commit: "c".repeat(40) });
    let actions = decide(&world.observed);
    let kept = actions.iter().position(
        |action| matches!(action, Action::SetModelStatus { status, .. } if status.commit == Some("c".repeat(40))),
    );
    let asked = actions
        .iter()
        .position(|action| matches!(action, Action::ResolveModel(wanted) if wanted.commit == Some("c".repeat(40))));
    assert!(kept.unwrap() < asked.unwrap(), "{actions:#?}");
    // Another life asks for the same one.
    world.settle();
    world.observed.models.get_mut(&key("m")).unwrap().progress = None;
    let actions = world.settle();
    assert!(actions.iter().any(|action| matches!(action, Action::ResolveModel(wanted) if wanted.commit.is_some())));
}

#[test]
fn a_download_tells_how_far_it_is_until_it_is_there() {
    let mut world = three_phones();
    let there = world.observed.models[&key("m")].progress.clone().unwrap();
    let waiting = FetchStep::Waiting {
        reason: "SourceBusy",
        why: "it is busy".into(),
        pause: Duration::from_secs(7),
        bytes: None,
    };
    for (progress, said, shown) in [
        (Progress::Fetching { step: FetchStep::Resolving, is_stalled: false }, "Unknown Resolving", None),
        (downloading(42 << 20), "Unknown Downloading", Some("42% of 100Mi")),
        (Progress::Fetching { step: waiting, is_stalled: false }, "Unknown SourceBusy", None),
        (downloading(100 << 20), "Unknown Downloading", Some("100% of 100Mi")),
        (Progress::Verifying, "Unknown Verifying", None),
        (there.clone(), "True Verified", None),
        // Asked again by another life, it stays what it is.
        (Progress::Fetching { step: FetchStep::Resolving, is_stalled: false }, "True Verified", None),
        // Unless its files are gone.
        (downloading(0), "Unknown Downloading", Some("0% of 100Mi")),
        (Progress::Verifying, "Unknown Verifying", None),
        (there, "True Verified", None),
    ] {
        see(&mut world, progress);
        world.settle();
        assert_eq!(resolved(&world), said);
        assert_eq!(status(&world).progress.map(|progress| progress.shown).as_deref(), shown, "{said}");
    }
    assert_eq!(status(&world).path.as_deref(), Some("/m.gguf"));
    for reason in ["Downloading", "Resolving", "SourceBusy"] {
        assert!(!world.has_told(reason), "{reason}");
    }
}

#[test]
fn what_is_asked_again_and_refused_again_is_told_once() {
    let mut world = three_phones();
    world.refuse_model(Reason::GatedRepo, "o/n is gated");
    world.settle();
    assert!(world.has_told("GatedRepo"));
    assert_eq!(world.condition("Available"), "False ModelNotResolved");
    see(&mut world, Progress::Fetching { step: FetchStep::Resolving, is_stalled: false });
    world.settle();
    assert_eq!(resolved(&world), "False GatedRepo");
    let model: &mut Arc<Model> = &mut world.observed.models.get_mut(&key("m")).unwrap().object;
    assert_eq!(model.status.as_ref().unwrap().observed_generation, model.metadata.generation);
}
