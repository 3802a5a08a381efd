//! The model of a deployment, as far as planning needs to know. Pure.

use polyphony_api::SegmentPlacement;

use crate::models::fetch::FetchStep;
use crate::models::{Progress, Resolved};
use crate::reconcile::decide::outcome::{Text, Trouble, UNREADABLE};
use crate::reconcile::observe::{ObjectKey, Observed};

/// The model of a deployment.
pub(super) enum ModelState<'a> {
    Resolved(&'a Resolved),
    /// Nothing is known yet in this process's life.
    Pending,
    Trouble(Trouble),
}

impl<'a> ModelState<'a> {
    pub(super) fn of(observed: &'a Observed, namespace: &str, name: &str) -> Self {
        let Some(seen) = observed.models.get(&ObjectKey::new(namespace, name)) else {
            return Self::Trouble(Trouble {
                reason: "ModelNotFound".into(),
                message: format!(
                    "there is no Model {name} in the namespace {namespace}: create it, or correct spec.model"
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

/// Whether the gateway can turn text into tokens of what a placement's phone has loaded, or is about to.
pub(super) fn text_of(observed: &Observed, placement: &SegmentPlacement) -> Text {
    let spec = &placement.spec;
    if observed.is_readable(&spec.manifest_digest) {
        return Text::Readable;
    }
    let (namespace, name) = (ObjectKey::of(placement).namespace, &spec.model);
    let progress = observed.models.get(&ObjectKey::new(&namespace, name)).map(|seen| &seen.progress);
    let why = match (ModelState::of(observed, &namespace, name), progress) {
        (_, Some(None | Some(Progress::Verifying | Progress::Named { .. }))) => return Text::Awaited,
        (_, Some(Some(Progress::Fetching { step: FetchStep::Resolving, .. }))) => return Text::Awaited,
        (ModelState::Trouble(trouble), _) => trouble.message,
        (ModelState::Resolved(_), _) => {
            format!("the source of Model {name} has another file by now, which these phones have not loaded")
        }
        (ModelState::Pending, _) => format!("the file of Model {name} is on its way"),
    };
    let message = format!("phones have it loaded, but the gateway has no tokenizer of it, and cannot answer: {why}");
    Text::Missing(Trouble { reason: UNREADABLE.into(), message })
}
