//! The model of a deployment, as far as planning needs to know. Pure.

use polyphony_api::InferenceDeployment;

use crate::models::fetch::FetchStep;
use crate::models::{Progress, Resolved};
use crate::reconcile::decide::outcome::Trouble;
use crate::reconcile::observe::{ObjectKey, Observed};

/// The model of a deployment.
pub(super) enum ModelState<'a> {
    Resolved(&'a Resolved),
    /// Nothing is known yet in this process's life.
    Pending,
    Trouble(Trouble),
}

impl<'a> ModelState<'a> {
    pub(super) fn of(observed: &'a Observed, key: &ObjectKey, deployment: &InferenceDeployment) -> Self {
        let name = &deployment.spec.model;
        let Some(seen) = observed.models.get(&ObjectKey::new(&key.namespace, name)) else {
            return Self::Trouble(Trouble {
                reason: "ModelNotFound".into(),
                message: format!(
                    "there is no Model {name} in the namespace {}: create it, or correct spec.model",
                    key.namespace
                ),
            });
        };
        match &seen.progress {
            Some(Progress::Resolved(resolved)) => Self::Resolved(resolved),
            Some(Progress::Refused(refusal)) => Self::Trouble(Trouble {
                reason: "ModelNotResolved".into(),
                message: format!("Model {name}: {}: {}", refusal.reason, refusal.message),
            }),
            Some(Progress::Stalled { path }) => Self::Trouble(Trouble {
                reason: "ModelStalled".into(),
                message: format!(
                    "Model {name}: nothing more of {} could be read for seconds: look after the disk or mount it lies on",
                    path.display()
                ),
            }),
            Some(Progress::Fetching { step: FetchStep::Waiting { why, pause, .. }, .. }) => Self::Trouble(Trouble {
                reason: "ModelNotResolved".into(),
                message: format!("Model {name}: {why}; it is asked again after {} s", pause.as_secs()),
            }),
            Some(Progress::Verifying | Progress::Fetching { .. } | Progress::Named { .. }) | None => Self::Pending,
        }
    }
}

/// Why what phones have loaded cannot be asked: the gateway has no tokenizer of the model with this manifest digest, and none is about to
/// come.
pub(super) fn unreadable(
    observed: &Observed,
    key: &ObjectKey,
    deployment: &InferenceDeployment,
    digest: &str,
) -> Option<Trouble> {
    if observed.is_readable(digest) {
        return None;
    }
    let name = &deployment.spec.model;
    let progress = observed.models.get(&ObjectKey::new(&key.namespace, name)).map(|seen| &seen.progress);
    let why = match (ModelState::of(observed, key, deployment), progress) {
        // After a start the file is looked at, and as a rule that is a moment.
        (_, Some(None | Some(Progress::Verifying | Progress::Named { .. }))) => return None,
        (_, Some(Some(Progress::Fetching { step: FetchStep::Resolving, .. }))) => return None,
        (ModelState::Trouble(trouble), _) => trouble.message,
        (ModelState::Resolved(_), _) => {
            format!("the source of Model {name} has another file by now, which phones have not loaded")
        }
        (ModelState::Pending, _) => format!("the file of Model {name} is on its way"),
    };
    let message = format!("phones have it loaded, but the gateway has no tokenizer of it, and cannot answer: {why}");
    Some(Trouble { reason: "ModelUnreadable".into(), message })
}
