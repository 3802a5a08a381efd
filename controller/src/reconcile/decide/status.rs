//! The status of a deployment, from what its replicas came to. Pure.

use kube::ResourceExt;
use polyphony_api::condition::{self, Statement, Truth};
use polyphony_api::{DEPLOYMENT_LABEL, InferenceDeployment, InferenceDeploymentStatus};

use super::outcome::{Outcome, Text, Trouble, UNREADABLE};
use super::story::{Severity, tell};
use super::{Action, condition_time};
use crate::reconcile::generations::of_deployment;
use crate::reconcile::observe::{ObjectKey, Observed, model_id};
use crate::reconcile::segments::label_value;

/// A measured speed is written again when it moved by this part.
const MEANINGFUL_PART: f64 = 0.1;

/// Writes what a deployment's replicas came to. A plan of this round is named here, after its placements: that commits it.
pub(super) fn decide(
    observed: &Observed,
    key: &ObjectKey,
    deployment: &InferenceDeployment,
    outcomes: &[Outcome],
    actions: &mut Vec<Action>,
) {
    let before = deployment.status.clone().unwrap_or_default();
    let after = status_of(observed, deployment, outcomes, &before);
    write(key, deployment, &before, after, actions);
}

/// Says of a deployment that deciding about it broke down; what its plans were is left as it is.
pub(super) fn broken_down(
    observed: &Observed,
    key: &ObjectKey,
    deployment: &InferenceDeployment,
    words: &str,
    actions: &mut Vec<Action>,
) {
    let before = deployment.status.clone().unwrap_or_default();
    let mut after = before.clone();
    let message = format!(
        "deciding about it broke down: {words}; it is tried again after pauses that grow: report this as a bug, with the controller's log"
    );
    let say =
        |type_, status| Statement { type_, status, reason: "DecisionFailed".to_owned(), message: message.clone() };
    let serves = of_deployment(observed, deployment).iter().any(|generation| generation.is_ready(observed));
    let mut statements = vec![say("Degraded", Truth::True), say("Progressing", Truth::False)];
    if !serves {
        statements.extend([say("Available", Truth::False), say("Ready", Truth::False)]);
    }
    for statement in statements {
        condition::set(&mut after.conditions, &statement, deployment.metadata.generation, &condition_time(observed));
    }
    write(key, deployment, &before, after, actions);
}

fn write(
    key: &ObjectKey,
    deployment: &InferenceDeployment,
    before: &InferenceDeploymentStatus,
    after: InferenceDeploymentStatus,
    actions: &mut Vec<Action>,
) {
    if after != *before {
        let stories = story_of(deployment, before, &after);
        actions.push(Action::SetDeploymentStatus { key: key.clone(), status: Box::new(after) });
        actions.extend(stories);
    }
}

fn status_of(
    observed: &Observed,
    deployment: &InferenceDeployment,
    outcomes: &[Outcome],
    before: &InferenceDeploymentStatus,
) -> InferenceDeploymentStatus {
    let mut status = before.clone();
    let count = |is: fn(&&Outcome) -> bool| u32::try_from(outcomes.iter().filter(is).count()).unwrap_or(u32::MAX);
    status.observed_generation = deployment.metadata.generation;
    status.replicas = count(|outcome| outcome.generation.is_some());
    status.ready_replicas = count(|outcome| outcome.is_ready);
    status.selector = Some(format!("{DEPLOYMENT_LABEL}={}", label_value(&deployment.name_any())));
    let planned = outcomes.iter().filter_map(|outcome| outcome.summary.as_ref()).map(|summary| summary.generation);
    let newest = outcomes.iter().filter_map(|outcome| outcome.generation).chain(planned).max();
    status.plan_generation = newest.max(before.plan_generation);
    status.phones =
        Some(u32::try_from(outcomes.iter().map(|outcome| outcome.phones.len()).sum::<usize>()).unwrap_or(u32::MAX));
    status.url = Some(format!("{}/v1", observed.settings.gateway_url));
    status.predicted_tokens_per_second = steady(before.predicted_tokens_per_second, predicted(outcomes));
    let id = model_id(&deployment.namespace().unwrap_or_default(), &deployment.name_any());
    let measured = observed.tokens_per_second.get(&id).copied().filter(|measured| measured.is_finite());
    let measured = measured.or(before.measured_tokens_per_second).map(|measured| (measured * 100.0).round() / 100.0);
    status.measured_tokens_per_second = steady(before.measured_tokens_per_second, measured);
    let generation = |outcome: &&Outcome| outcome.summary.as_ref().map(|summary| summary.generation);
    if let Some(newest) = outcomes.iter().filter(|outcome| outcome.summary.is_some()).max_by_key(generation) {
        status.plan = newest.summary.clone();
        status.time_to_first_token_seconds = newest.time_to_first_token_seconds;
    }
    status.tokens_per_second = tokens_per_second(observed, deployment, &status, before);
    let now = condition_time(observed);
    for statement in statements(deployment, outcomes, status.ready_replicas, before) {
        condition::set(&mut status.conditions, &statement, deployment.metadata.generation, &now);
    }
    let said = condition::find(&before.conditions, "Balanced");
    if let Some(statement) = balanced(outcomes).or_else(|| said.and_then(|_| not_asked(outcomes))) {
        condition::say(&mut status.conditions, &statement, deployment.metadata.generation, &now);
    }
    status
}

/// What the balancer says of the replica that most needs it.
fn balanced(outcomes: &[Outcome]) -> Option<Statement> {
    let rank = |statement: &&Statement| match statement.status {
        Truth::False => 2,
        Truth::True => 1,
        Truth::Unknown => 0,
    };
    outcomes.iter().filter_map(|outcome| outcome.balance.as_ref()).max_by_key(rank).cloned()
}

/// What the balancer said before holds no longer when no replica is left that it could be asked about.
fn not_asked(outcomes: &[Outcome]) -> Option<Statement> {
    let message = "no replica serves as it should, so no layers are moved".to_owned();
    let statement = Statement { type_: "Balanced", status: Truth::Unknown, reason: "NotMeasured".to_owned(), message };
    outcomes.iter().all(|outcome| !outcome.is_ready || outcome.trouble.is_some()).then_some(statement)
}

/// The earlier figure while the new one is near it.
fn steady(before: Option<f64>, now: Option<f64>) -> Option<f64> {
    match (before, now) {
        (Some(before), Some(now)) if (now - before).abs() <= MEANINGFUL_PART * before => Some(before),
        (_, now) => now,
    }
}

/// What one session is expected to get from the best replica, to three figures.
fn predicted(outcomes: &[Outcome]) -> Option<f64> {
    let best = outcomes.iter().filter_map(|outcome| outcome.predicted_tokens_per_second).reduce(f64::max)?;
    Some((best * 100.0).round() / 100.0)
}

fn tokens_per_second(
    observed: &Observed,
    deployment: &InferenceDeployment,
    status: &InferenceDeploymentStatus,
    before: &InferenceDeploymentStatus,
) -> Option<String> {
    let id = model_id(&deployment.namespace().unwrap_or_default(), &deployment.name_any());
    let Some(measured) = observed.tokens_per_second.get(&id).filter(|measured| measured.is_finite()) else {
        // A figure measured before a restart is better than a prediction.
        let earlier = before.tokens_per_second.clone().filter(|text| !text.starts_with('~'));
        return earlier.or_else(|| status.predicted_tokens_per_second.map(|predicted| format!("~{predicted:.1}")));
    };
    let written = before.tokens_per_second.as_deref().and_then(|text| text.parse::<f64>().ok());
    match written {
        Some(written) if (written - measured).abs() <= MEANINGFUL_PART * written => before.tokens_per_second.clone(),
        _ => Some(format!("{measured:.1}")),
    }
}

fn statements(
    deployment: &InferenceDeployment,
    outcomes: &[Outcome],
    n_ready: u32,
    before: &InferenceDeploymentStatus,
) -> [Statement; 4] {
    let wanted = deployment.spec.replicas;
    let trouble = outcomes.iter().find_map(|outcome| outcome.trouble.clone().filter(|_| !outcome.is_ready));
    let trouble = trouble.or_else(|| outcomes.iter().find_map(|outcome| outcome.trouble.clone()));
    let waiting: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.waits_for.iter().cloned()).collect();
    let unreadable = unreadable(outcomes, before);
    // It tells of the Model's trouble, too, and stands while that changes. What is on its way to phones may be read.
    let trouble = unreadable.clone().filter(|_| waiting.is_empty()).or(trouble);
    let loading = Trouble { reason: "Loading".into(), message: format!("waits for {}", waiting.join(", ")) };
    let say = |type_, status, why: Trouble| Statement { type_, status, reason: why.reason, message: why.message };
    let plain = |reason: &str, message: String| Trouble { reason: reason.to_owned(), message };

    let leaving = deployment.metadata.deletion_timestamp.as_ref().map(|_| {
        let held = deployment.finalizers().join(", ");
        plain(
            "Deleting",
            format!(
                "it is being deleted: its sessions end and no new ones begin; it is there until these finalizers are taken off: {held}"
            ),
        )
    });
    let available = if let Some(leaving) = &leaving {
        say("Available", Truth::False, leaving.clone())
    } else if let Some(unreadable) = unreadable {
        say("Available", Truth::False, unreadable)
    } else if n_ready > 0 {
        say("Available", Truth::True, plain("Serving", serving(outcomes, n_ready, wanted)))
    } else if wanted == 0 {
        say("Available", Truth::False, plain("ScaledToZero", "no replica is asked for: raise spec.replicas".into()))
    } else {
        say("Available", Truth::False, trouble.clone().unwrap_or_else(|| loading.clone()))
    };
    // For tools that look for this name (kstatus, Flux, Argo CD): whether what runs is what the present spec asks for.
    let ready = match (&trouble, waiting.is_empty()) {
        (Some(trouble), _) => say("Ready", Truth::False, trouble.clone()),
        (None, false) => say("Ready", Truth::False, loading.clone()),
        (None, true) => say("Ready", (n_ready >= wanted).into(), plain("AsDesired", available.message.clone())),
    };
    let progressing = match (&trouble, waiting.is_empty()) {
        (Some(trouble), _) => say("Progressing", Truth::False, trouble.clone()),
        (None, false) => say("Progressing", Truth::True, loading),
        (None, true) => say("Progressing", Truth::False, plain("Complete", "every replica is as it should be".into())),
    };
    let degraded = match trouble {
        Some(trouble) => say("Degraded", Truth::True, trouble),
        None => say("Degraded", Truth::False, plain("AsDesired", String::new())),
    };
    [ready, available, progressing, degraded]
}

/// Why none of the replicas that are ready can be asked. While files are looked at, what was said before stands.
fn unreadable(outcomes: &[Outcome], before: &InferenceDeploymentStatus) -> Option<Trouble> {
    let texts = || outcomes.iter().filter(|outcome| outcome.is_ready).map(|outcome| &outcome.text);
    if texts().any(|text| *text == Text::Readable) {
        return None;
    }
    let missing = texts().find_map(|text| match text {
        Text::Missing(why) => Some(why.clone()),
        Text::Readable | Text::Awaited => None,
    });
    let said = condition::find(&before.conditions, "Available").filter(|said| said.reason == UNREADABLE);
    let said = || Some(Trouble { reason: UNREADABLE.to_owned(), message: said?.message.clone() });
    missing.or_else(|| texts().next().and_then(|_| said()))
}

fn serving(outcomes: &[Outcome], n_ready: u32, wanted: u32) -> String {
    let rings = outcomes.iter().filter(|outcome| outcome.is_ready).map(|outcome| {
        format!(
            "replica {} on {} (generation {})",
            outcome.replica,
            outcome.phones.join(", "),
            outcome.generation.unwrap_or(0)
        )
    });
    format!("{n_ready} of {wanted} replicas answer: {}", rings.collect::<Vec<_>>().join("; "))
}

/// The turns of a deployment's availability, and each new reason against it.
fn story_of(
    deployment: &InferenceDeployment,
    before: &InferenceDeploymentStatus,
    after: &InferenceDeploymentStatus,
) -> Vec<Action> {
    let of = |status: &InferenceDeploymentStatus, type_| {
        condition::find(&status.conditions, type_).map(|found| (found.status.clone(), found.reason.clone()))
    };
    let mut stories = Vec::new();
    let (was, is) = (of(before, "Available"), of(after, "Available"));
    let message =
        |type_| condition::find(&after.conditions, type_).map(|found| found.message.clone()).unwrap_or_default();
    let truth = |of: &Option<(String, String)>| of.as_ref().is_some_and(|(status, _)| status == "True");
    if truth(&is) && !truth(&was) {
        stories.push(tell(deployment, Severity::Normal, "Available", message("Available")));
    } else if truth(&was) && !truth(&is) {
        stories.push(tell(deployment, Severity::Warning, "Unavailable", message("Available")));
    }
    let (was, is) = (of(before, "Degraded"), of(after, "Degraded"));
    // A model that is read is nothing wrong.
    if let Some((status, reason)) = is.filter(|is| was.as_ref() != Some(is))
        && status == "True"
        && reason != "ModelVerifying"
    {
        stories.push(tell(deployment, Severity::Warning, reason, message("Degraded")));
    }
    stories
}
