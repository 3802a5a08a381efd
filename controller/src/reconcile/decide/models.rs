//! Models: what to verify, and what to write of it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use polyphony_api::condition::{self, Statement, Truth};
use polyphony_api::quantity::format_bytes;
use polyphony_api::{Model, ModelStatus};

use super::story::{Severity, tell};
use super::{Action, condition_time};
use crate::models::{Progress, Resolved, Wanted, layer_bytes};
use crate::reconcile::observe::{ModelSeen, ObjectKey, Observed};

pub(super) fn decide(observed: &Observed, key: &ObjectKey, seen: &ModelSeen, actions: &mut Vec<Action>) {
    let model = &seen.object;
    let before = model.status.clone().unwrap_or_default();
    let Some(progress) = &seen.progress else {
        actions.push(Action::ResolveModel(wanted(model)));
        return;
    };
    let was_resolved = condition::is_true(&before.conditions, "Resolved");
    let is_said_to_stall =
        condition::find(&before.conditions, "Resolved").is_some_and(|found| found.reason == "Stalled");
    let mut after = before.clone();
    let statement = match progress {
        // What an earlier life of the controller found out stands until this one knows better, or the source hangs.
        Progress::Verifying if before.observed_generation.is_some() && !is_said_to_stall => return,
        Progress::Verifying => {
            state(Truth::Unknown, "Verifying", "its files are read once and their digests are taken".into())
        }
        Progress::Stalled { path } => {
            let path = path.display();
            let message = format!(
                "nothing more of {path} could be read for seconds: look after the disk or mount it lies on; other models do not wait for it"
            );
            state(Truth::Unknown, "Stalled", message)
        }
        Progress::Resolved(resolved) => {
            describe(&mut after, resolved);
            let n_tensors = resolved.manifest.tensors.len();
            state(Truth::True, "Verified", format!("{n_tensors} tensors are served, each with its digest"))
        }
        Progress::Refused(refusal) => {
            after.manifest_digest = None;
            state(Truth::False, &refusal.reason.to_string(), refusal.message.clone())
        }
    };
    let is_final = matches!(progress, Progress::Resolved(_) | Progress::Refused(_));
    if is_final {
        after.observed_generation = model.metadata.generation;
    }
    let said_before =
        condition::find(&before.conditions, "Resolved").map(|found| (found.status.clone(), found.reason.clone()));
    let said_now = (statement.status.as_str().to_owned(), statement.reason.clone());
    // The second name is the one that tools look for: kstatus, Flux, Argo CD.
    for type_ in ["Resolved", "Ready"] {
        let statement = Statement { type_, ..statement.clone() };
        condition::set(&mut after.conditions, &statement, model.metadata.generation, &condition_time(observed));
    }
    let is_new = judge_answers(&mut after, &before, seen, condition_time(observed));
    if is_new && let Some(why) = &seen.unsound {
        actions.push(tell(model.as_ref(), Severity::Warning, NON_FINITE, why.clone()));
    }
    if after != before {
        actions.push(Action::SetModelStatus { key: key.clone(), status: after });
    }
    if is_final && said_before != Some(said_now) {
        actions.push(match progress {
            Progress::Resolved(resolved) => tell(model.as_ref(), Severity::Normal, "ModelResolved", note_of(resolved)),
            _ if was_resolved => tell(model.as_ref(), Severity::Warning, "ModelLost", statement.message.clone()),
            _ => tell(model.as_ref(), Severity::Warning, statement.reason.clone(), statement.message.clone()),
        });
    }
}

/// Says of a model that has answered with values that are no numbers that it has; says whether that is new. What an earlier life of the
/// controller saw of the same file stands.
fn judge_answers(after: &mut ModelStatus, before: &ModelStatus, seen: &ModelSeen, now: Time) -> bool {
    let was_unsound = condition::find(&before.conditions, SOUND).is_some();
    let is_same_file = after.manifest_digest.is_some() && after.manifest_digest == before.manifest_digest;
    match &seen.unsound {
        Some(why) => {
            let statement = Statement {
                type_: SOUND,
                status: Truth::False,
                reason: NON_FINITE.to_owned(),
                message: format!(
                    "{why}; its weights or its sizes are beyond what it can be computed with: use another file of it"
                ),
            };
            condition::set(&mut after.conditions, &statement, seen.object.metadata.generation, &now);
        }
        None if was_unsound && !is_same_file => after.conditions.retain(|condition| condition.type_ != SOUND),
        None => {}
    }
    seen.unsound.is_some() && !was_unsound
}

/// Condition of a model whose answers were nonsense; absent of any other.
const SOUND: &str = "Sound";
const NON_FINITE: &str = "NonFinite";

/// What the object asks the host to verify.
fn wanted(model: &Model) -> Wanted {
    Wanted {
        uid: model.uid().unwrap_or_default(),
        source: model.spec.source.clone(),
        sha256: model.spec.sha256.clone(),
    }
}

fn describe(status: &mut ModelStatus, resolved: &Resolved) {
    let of = &resolved.manifest.hyperparameters;
    status.architecture = Some(of.architecture.to_string());
    status.layers = Some(of.n_layers);
    status.size = Some(size_for_people(resolved.manifest.file_bytes()));
    status.layer_bytes = layer_bytes(&resolved.manifest);
    status.context_length = Some(of.context_length);
    status.manifest_digest = Some(resolved.digest.clone());
}

/// Whole MiB from 10 MiB on: nobody reads the bytes.
fn size_for_people(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10 * MIB { format!("{}Mi", bytes.div_ceil(MIB)) } else { format_bytes(bytes.div_ceil(1024) * 1024) }
}

fn note_of(resolved: &Resolved) -> String {
    let of = &resolved.manifest.hyperparameters;
    format!(
        "{} is verified: {} with {} layers, {}",
        resolved.path.display(),
        of.architecture,
        of.n_layers,
        size_for_people(resolved.manifest.file_bytes())
    )
}

fn state(status: Truth, reason: &str, message: String) -> Statement {
    Statement { type_: "Resolved", status, reason: reason.to_owned(), message }
}
