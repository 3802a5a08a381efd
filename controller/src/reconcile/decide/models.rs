//! Models: what to verify, and what to write of it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use polyphony_api::condition::{self, Statement, Truth};
use polyphony_api::quantity::format_bytes;
use polyphony_api::{Model, ModelProgress, ModelStatus};

use super::story::{Severity, tell};
use super::{Action, condition_time};
use crate::models::fetch::{Bytes, FetchStep};
use crate::models::{Progress, Resolved, TokenRef, Wanted, layer_bytes};
use crate::reconcile::observe::{ModelSeen, ObjectKey, Observed};

pub(super) fn decide(observed: &Observed, key: &ObjectKey, seen: &ModelSeen, actions: &mut Vec<Action>) {
    let model = &seen.object;
    let before = model.status.clone().unwrap_or_default();
    let Some(progress) = &seen.progress else {
        actions.push(Action::ResolveModel(wanted(model)));
        return;
    };
    let was_resolved = condition::is_true(&before.conditions, "Resolved");
    // What an earlier life of the controller found out stands until this one knows better, or the source hangs.
    let said = condition::find(&before.conditions, "Resolved").map(|found| found.reason.as_str());
    let stands = before.observed_generation.is_some() && !said.is_some_and(|reason| UNDER_WAY.contains(&reason));
    let mut after = before.clone();
    after.progress = None;
    let statement = match progress {
        Progress::Verifying | Progress::Fetching { step: FetchStep::Resolving, .. } if stands => return,
        Progress::Named { commit } => {
            after.commit = Some(commit.clone());
            state(Truth::Unknown, "Resolving", resolving(model, Some(commit)))
        }
        Progress::Fetching { step, is_stalled } => {
            after.progress = step.bytes().map(progress_of);
            fetching(model, step, *is_stalled)
        }
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
        actions.push(Action::SetModelStatus { key: key.clone(), status: after.clone() });
    }
    // Not sooner than the commit is kept: another life of the controller would fetch another one.
    if let Progress::Named { .. } = progress {
        actions.push(Action::ResolveModel(Wanted { commit: after.commit, ..wanted(model) }));
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

/// What is said of a model while its files are on their way.
const UNDER_WAY: [&str; 8] = [
    "Stalled",
    "Resolving",
    "Downloading",
    "SourceUnreachable",
    "SourceBusy",
    "Interrupted",
    "WaitingForAnother",
    "DownloadStalled",
];

/// Condition of a model whose answers were nonsense; absent of any other.
const SOUND: &str = "Sound";
const NON_FINITE: &str = "NonFinite";

/// What the object asks the host to verify.
fn wanted(model: &Model) -> Wanted {
    Wanted {
        uid: model.uid().unwrap_or_default(),
        source: model.spec.source.clone(),
        sha256: model.spec.sha256.clone(),
        commit: model.status.as_ref().and_then(|status| status.commit.clone()),
        token: model.spec.token_secret_ref.as_ref().map(|of| TokenRef {
            namespace: model.namespace().unwrap_or_default(),
            secret: of.name.clone(),
            key: of.key.clone(),
        }),
    }
}

/// What is said while files are fetched. Figures are in `status.progress`: a message with them would be another one each second.
fn fetching(model: &Model, step: &FetchStep, is_stalled: bool) -> Statement {
    let commit = model.status.as_ref().and_then(|status| status.commit.as_deref());
    match step {
        FetchStep::Resolving => state(Truth::Unknown, "Resolving", resolving(model, commit)),
        FetchStep::Waiting { reason, why, pause, .. } => {
            let seconds = pause.as_secs_f64();
            state(Truth::Unknown, reason, format!("{why}; it is asked again after {seconds:.0} s"))
        }
        FetchStep::Downloading { .. } if is_stalled => {
            let message =
                format!("nothing more of {} has come for seconds; other models do not wait for it", model.spec.source);
            state(Truth::Unknown, "DownloadStalled", message)
        }
        FetchStep::Downloading { note, .. } => {
            let at = commit.map(|commit| format!(" at commit {commit}")).unwrap_or_default();
            let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            state(Truth::Unknown, "Downloading", format!("{}{at} is downloaded{note}", model.spec.source))
        }
    }
}

fn resolving(model: &Model, commit: Option<&str>) -> String {
    match commit {
        Some(commit) => format!("{} is commit {commit}; it is asked which files that has", model.spec.source),
        None => format!("it is asked what {} stands for", model.spec.source),
    }
}

fn progress_of(bytes: &Bytes) -> ModelProgress {
    let shown = match bytes.n_total {
        Some(n_total) => {
            let percent = bytes.n_bytes.saturating_mul(100).checked_div(n_total).unwrap_or(100);
            format!("{percent}% of {}", size_for_people(n_total))
        }
        None => size_for_people(bytes.n_bytes),
    };
    ModelProgress {
        file: Some(bytes.file.clone()).filter(|file| !file.is_empty()),
        bytes: bytes.n_bytes,
        total_bytes: bytes.n_total,
        shown,
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
    status.path = Some(resolved.path.display().to_string());
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
