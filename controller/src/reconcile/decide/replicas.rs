//! Replicas: which plan each one runs, when a new one is made, and when the old one goes. Pure.
//!
//! A plan that works is left alone. A replica has at most two generations: one that serves, and the next.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;
use polyphony_api::InferenceDeployment;
use polyphony_api::segment_placement::Phase;
use polyphony_placement::Infeasible;

use super::placements::release;
use super::story::{Severity, tell};
use super::Action;
use crate::models::{Progress, Resolved};
use crate::reconcile::generations::{Generation, of_deployment, phase_of};
use crate::reconcile::observe::{Health, ObjectKey, Observed};
use crate::reconcile::problem::{self, Planned, Planner, Request, matches_selector};
use crate::reconcile::segments;

/// A failed plan is replaced by one without the phones that failed after this, by one with them after the second.
const FAILURE_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const FAILURE_RETRY: SignedDuration = SignedDuration::from_secs(30);

/// How one replica is after this round's actions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub replica: u32,
    /// The generation that serves, else the one being loaded.
    pub generation: Option<u64>,
    /// Phones of that generation, by stage.
    pub phones: Vec<String>,
    pub predicted_tokens_per_second: Option<f64>,
    pub is_ready: bool,
    /// What has still to happen: which phones load.
    pub waits_for: Vec<String>,
    /// Why it is not as it should be.
    pub trouble: Option<Trouble>,
}

/// A reason for machines, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub reason: String,
    pub message: String,
}

/// All replicas of all deployments.
pub type Outcomes = BTreeMap<ObjectKey, Vec<Outcome>>;

pub(super) fn decide(observed: &Observed, planner: Planner<'_>, actions: &mut Vec<Action>) -> Outcomes {
    let mut ledger = Ledger::of(observed, actions);
    let mut outcomes = Outcomes::new();
    for (key, deployment) in &observed.deployments {
        if deployment.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let mut round = Round {
            observed,
            planner,
            deployment,
            model: ModelState::of(observed, key, deployment),
            generations: of_deployment(observed, deployment),
            next_generation: next_generation(observed, deployment),
            taken: BTreeSet::new(),
            ledger: &mut ledger,
            actions,
        };
        round.taken = round.phones_of_replicas();
        round.scale_down();
        outcomes.insert(key.clone(), (0..deployment.spec.replicas).map(|replica| round.replica(replica)).collect());
    }
    outcomes
}

/// Bytes that placements take on each phone.
struct Ledger(BTreeMap<String, u64>);

impl Ledger {
    /// Of every placement but those that this round releases.
    fn of(observed: &Observed, actions: &[Action]) -> Self {
        let is_released = |key: &ObjectKey| actions.iter().any(|action| matches!(action, Action::ReleasePlacement { key: released, .. } if released == key));
        let mut bytes = BTreeMap::new();
        for (_, placement) in observed.placements.iter().filter(|(key, _)| !is_released(key)) {
            *bytes.entry(placement.spec.phone.clone()).or_default() += placement.spec.planned_bytes;
        }
        Self(bytes)
    }

    fn without<'a>(&self, generations: impl IntoIterator<Item = &'a Generation<'a>>) -> Self {
        let mut bytes = self.0.clone();
        for segment in generations.into_iter().flat_map(|generation| &generation.segments) {
            if let Some(taken) = bytes.get_mut(&segment.spec.phone) {
                *taken = taken.saturating_sub(segment.spec.planned_bytes);
            }
        }
        Self(bytes)
    }
}

/// The model of a deployment.
enum ModelState<'a> {
    Resolved(&'a Resolved),
    /// Nothing is known yet in this process's life.
    Pending,
    Trouble(Trouble),
}

impl<'a> ModelState<'a> {
    fn of(observed: &'a Observed, key: &ObjectKey, deployment: &InferenceDeployment) -> Self {
        let name = &deployment.spec.model;
        let Some(seen) = observed.models.get(&ObjectKey::new(&key.namespace, name)) else {
            return Self::Trouble(Trouble {
                reason: "ModelNotFound".into(),
                message: format!("there is no Model {name} in the namespace {}: create it, or correct spec.model", key.namespace),
            });
        };
        match &seen.progress {
            Some(Progress::Resolved(resolved)) => Self::Resolved(resolved),
            Some(Progress::Refused(refusal)) => Self::Trouble(Trouble {
                reason: "ModelNotResolved".into(),
                message: format!("Model {name}: {}: {}", refusal.reason, refusal.message),
            }),
            Some(Progress::Verifying) | None => Self::Pending,
        }
    }
}

/// Whether a replica's newest generation will do.
enum Verdict {
    Works,
    /// A new plan is needed, because of this.
    Needs { cause: String, avoid: BTreeSet<String> },
    /// A new plan is needed, but not yet.
    Later(Trouble),
}

/// One deployment in one round.
struct Round<'a, 'b> {
    observed: &'a Observed,
    planner: Planner<'b>,
    deployment: &'a InferenceDeployment,
    model: ModelState<'a>,
    generations: Vec<Generation<'a>>,
    next_generation: u64,
    /// Phones by the replica that uses them.
    taken: BTreeSet<(u32, String)>,
    ledger: &'b mut Ledger,
    actions: &'b mut Vec<Action>,
}

impl<'a> Round<'a, '_> {
    fn phones_of_replicas(&self) -> BTreeSet<(u32, String)> {
        let staying = self.generations.iter().filter(|generation| !generation.is_leaving());
        staying.flat_map(|generation| generation.phones().into_iter().map(|phone| (generation.replica, phone.to_owned()))).collect()
    }

    /// Replicas over the wanted number go, when their sessions have ended.
    fn scale_down(&mut self) {
        let wanted = self.deployment.spec.replicas;
        let surplus: Vec<_> = self.generations.iter().filter(|generation| generation.replica >= wanted && !generation.is_leaving()).cloned().collect();
        for generation in surplus {
            self.drain(&generation);
        }
    }

    fn replica(&mut self, replica: u32) -> Outcome {
        let of_replica: Vec<_> = self.generations.iter().filter(|generation| generation.replica == replica).cloned().collect();
        // A generation of which a person deleted a part goes as a whole.
        for torn in of_replica.iter().filter(|generation| generation.is_leaving()) {
            self.drain(torn);
        }
        let staying: Vec<_> = of_replica.iter().filter(|generation| !generation.is_leaving()).cloned().collect();
        let Some((newest, older)) = staying.split_last() else {
            let cause = if of_replica.is_empty() { "" } else { "the earlier generation was deleted" };
            return self.plan(replica, cause, BTreeSet::new(), &[]);
        };
        match self.verdict(newest) {
            Verdict::Works if newest.is_ready(self.observed) => {
                older.iter().for_each(|generation| self.drain(generation));
                self.outcome(newest, None)
            }
            Verdict::Works => {
                let (serving, broken): (Vec<_>, Vec<_>) = older.iter().partition(|generation| generation.is_ready(self.observed));
                broken.into_iter().for_each(|generation| self.drop_now(generation));
                let mut outcome = self.outcome(newest, None);
                if let Some(serving) = serving.last() {
                    let waits_for = std::mem::take(&mut outcome.waits_for);
                    outcome = Outcome { waits_for, ..self.outcome(serving, None) };
                }
                outcome
            }
            Verdict::Later(trouble) => self.outcome(newest, Some(trouble)),
            Verdict::Needs { cause, avoid } => self.plan(replica, &cause, avoid, &staying),
        }
    }

    fn verdict(&self, newest: &Generation<'_>) -> Verdict {
        let needs = |cause: String| Verdict::Needs { cause, avoid: BTreeSet::new() };
        if !newest.is_whole() {
            return needs(format!("generation {} was not written to its end", newest.number));
        }
        if let Some(change) = self.change(newest) {
            return needs(change);
        }
        let lost = newest.lost_phones(self.observed);
        if !lost.is_empty() {
            let what = lost.iter().map(|phone| format!("{phone} is gone ({})", self.observed.health(phone).story()));
            return needs(what.collect::<Vec<_>>().join(", "));
        }
        let failures = newest.failures(self.observed);
        if failures.is_empty() {
            return Verdict::Works;
        }
        let texts: Vec<_> = failures.iter().map(|(phone, why)| format!("{phone} failed: {why}")).collect();
        let made = newest.segments.iter().filter_map(|segment| segment.metadata.creation_timestamp.as_ref()).max();
        let age = made.map_or(FAILURE_RETRY, |made| self.observed.now.duration_since(made.0));
        if age < FAILURE_PAUSE {
            return Verdict::Later(Trouble { reason: "SegmentFailed".into(), message: texts.join("; ") });
        }
        let avoid = if age < FAILURE_RETRY { failures.iter().map(|(phone, _)| (*phone).to_owned()).collect() } else { BTreeSet::new() };
        Verdict::Needs { cause: texts.join("; "), avoid }
    }

    /// What a person has changed since this generation was planned.
    fn change(&self, newest: &Generation<'_>) -> Option<String> {
        let wanted = &self.deployment.spec;
        let planned = &newest.segments.first()?.spec;
        let n_phones = planned.stages;
        if planned.model != wanted.model {
            return Some(format!("spec.model is now {}", wanted.model));
        }
        if let ModelState::Resolved(resolved) = &self.model
            && resolved.digest != planned.manifest_digest
        {
            return Some(format!("the file of Model {} has changed", wanted.model));
        }
        if planned.context_length != wanted.context_length {
            return Some(format!("spec.contextLength is now {}", wanted.context_length));
        }
        if planned.max_sessions != wanted.max_sessions {
            return Some(format!("spec.maxSessions is now {}", wanted.max_sessions));
        }
        if planned.activation_type != wanted.transport.activation_type {
            return Some("spec.transport.activationType has changed".into());
        }
        if n_phones < wanted.placement.min_phones {
            return Some(format!("spec.placement.minPhones is now {}", wanted.placement.min_phones));
        }
        if wanted.placement.max_phones.is_some_and(|most| n_phones > most) {
            return Some("spec.placement.maxPhones is now lower".into());
        }
        let is_outside = |phone: &&str| {
            let object = self.observed.phones.get(*phone).and_then(|seen| seen.object.as_ref());
            object.is_some_and(|object| !matches_selector(object, self.deployment))
        };
        let outside = newest.phones().into_iter().find(is_outside)?;
        Some(format!("{outside} does not have the labels of spec.placement.phoneSelector any more"))
    }

    /// Makes a new generation, or says why there is none. `staying` are the generations that the replica has.
    fn plan(&mut self, replica: u32, cause: &str, avoid: BTreeSet<String>, staying: &[Generation<'a>]) -> Outcome {
        let without_plan = |trouble| match staying.iter().rev().find(|generation| generation.is_ready(self.observed)).or(staying.last()) {
            Some(generation) => self.outcome(generation, Some(trouble)),
            None => Outcome { replica, trouble: Some(trouble), ..Outcome::default() },
        };
        let resolved = match &self.model {
            ModelState::Resolved(resolved) => *resolved,
            ModelState::Trouble(trouble) => return without_plan(trouble.clone()),
            ModelState::Pending => {
                let message = format!("Model {} is being verified", self.deployment.spec.model);
                return without_plan(Trouble { reason: "ModelNotResolved".into(), message });
            }
        };
        let (serving, useless): (Vec<_>, Vec<_>) = staying.iter().partition(|generation| generation.is_ready(self.observed));
        let mut excluded: BTreeSet<String> =
            self.taken.iter().filter(|(other, _)| *other != replica).map(|(_, phone)| phone.clone()).collect();
        excluded.extend(avoid);
        let ask = |ledger: &Ledger| {
            let request = Request {
                deployment: self.deployment,
                manifest: &resolved.manifest,
                manifest_digest: &resolved.digest,
                excluded: &excluded,
                used: &ledger.0,
            };
            problem::plan(self.observed, &request, self.planner)
        };
        let beside = ask(&self.ledger.without(useless.iter().copied()));
        // Where two generations do not fit side by side, the serving one makes room.
        let (planned, makes_room) = match beside {
            Err(_) if !serving.is_empty() => (ask(&self.ledger.without(staying.iter())), true),
            beside => (beside, false),
        };
        match planned {
            Err(infeasible) => {
                let trouble = self.trouble_of(&infeasible, cause);
                without_plan(trouble)
            }
            Ok(planned) => {
                let leaving = if makes_room { staying.iter().collect() } else { useless };
                leaving.into_iter().for_each(|generation| self.drop_now(generation));
                self.create(replica, cause, &planned, resolved, if makes_room { None } else { serving.last().copied() })
            }
        }
    }

    fn trouble_of(&self, infeasible: &Infeasible, cause: &str) -> Trouble {
        let awaited: Vec<_> = self.observed.phones.keys().filter(|phone| self.observed.health(phone) == Health::Awaited).cloned().collect();
        if !awaited.is_empty() {
            let message = format!("the controller has started and waits for {}", awaited.join(", "));
            return Trouble { reason: "WaitingForPhones".into(), message };
        }
        let message = if cause.is_empty() { format!("no plan: {infeasible}") } else { format!("{cause}; no other plan: {infeasible}") };
        Trouble { reason: infeasible.reason().into(), message }
    }

    fn create(&mut self, replica: u32, cause: &str, planned: &Planned, resolved: &Resolved, serving: Option<&Generation<'a>>) -> Outcome {
        let number = self.next_generation;
        self.next_generation += 1;
        let (severity, reason) = if cause.is_empty() { (Severity::Normal, "Planned") } else { (Severity::Warning, "Replanned") };
        self.actions.push(tell(self.deployment, severity, reason, story(number, replica, cause, planned)));
        let made = segments::placements(self.deployment, replica, number, planned, &resolved.digest);
        let phones: Vec<_> = made.iter().map(|placement| placement.spec.phone.clone()).collect();
        for placement in made {
            *self.ledger.0.entry(placement.spec.phone.clone()).or_default() += placement.spec.planned_bytes;
            self.taken.insert((replica, placement.spec.phone.clone()));
            self.actions.push(Action::CreatePlacement(Box::new(placement)));
        }
        let waits_for = phones.iter().map(|phone| format!("{phone} (Pending)")).collect();
        match serving {
            Some(serving) => Outcome { waits_for, ..self.outcome(serving, None) },
            None => Outcome {
                replica,
                generation: Some(number),
                phones,
                predicted_tokens_per_second: Some(planned.plan.predicted_inter_token_seconds).filter(|seconds| *seconds > 0.0).map(|seconds| 1.0 / seconds),
                is_ready: false,
                waits_for,
                trouble: None,
            },
        }
    }

    fn outcome(&self, generation: &Generation<'_>, trouble: Option<Trouble>) -> Outcome {
        let waiting = |segment: &&&polyphony_api::SegmentPlacement| phase_of(self.observed, segment) != Phase::Ready;
        let describe = |segment: &&polyphony_api::SegmentPlacement| format!("{} ({:?})", segment.spec.phone, phase_of(self.observed, segment));
        Outcome {
            replica: generation.replica,
            generation: Some(generation.number),
            phones: generation.phones().into_iter().map(str::to_owned).collect(),
            predicted_tokens_per_second: generation.predicted_tokens_per_second(),
            is_ready: generation.is_ready(self.observed),
            waits_for: generation.segments.iter().filter(waiting).map(describe).collect(),
            trouble,
        }
    }

    /// Deletes a generation whose sessions may end first.
    fn drain(&mut self, generation: &Generation<'_>) {
        for segment in generation.segments.iter().filter(|segment| segment.metadata.deletion_timestamp.is_none()) {
            self.actions.push(Action::DeletePlacement { key: ObjectKey::of(*segment) });
        }
    }

    /// Deletes a generation that serves nobody, or has to make room, at once.
    fn drop_now(&mut self, generation: &Generation<'_>) {
        *self.ledger = self.ledger.without([generation]);
        for segment in &generation.segments {
            let key = ObjectKey::of(*segment);
            self.actions.push(release(&key, segment));
            self.actions.push(Action::DeletePlacement { key });
        }
    }
}

/// Counts up over all plans that the deployment ever had.
fn next_generation(observed: &Observed, deployment: &InferenceDeployment) -> u64 {
    let written = deployment.status.as_ref().and_then(|status| status.plan_generation).unwrap_or(0);
    let key = ObjectKey::of(deployment);
    let own = observed.placements.iter().filter(|(placement_key, placement)| {
        placement_key.namespace == key.namespace && placement.spec.deployment == key.name
    });
    own.map(|(_, placement)| placement.spec.plan_generation).max().unwrap_or(0).max(written) + 1
}

fn story(number: u64, replica: u32, cause: &str, planned: &Planned) -> String {
    let plan = &planned.plan;
    let stages = plan.stages.iter().map(|stage| format!("{} holds {}", stage.phone, segments::holds(&stage.holds).summary));
    let mut note = format!("generation {number} of replica {replica}: {}", stages.collect::<Vec<_>>().join(", "));
    if plan.predicted_inter_token_seconds > 0.0 {
        note.push_str(&format!("; {:.1} tokens/s expected, bound by {}", 1.0 / plan.predicted_inter_token_seconds, plan.bound));
    }
    for left_out in &plan.left_out {
        note.push_str(&format!("; {} is left out: {}", left_out.phone, left_out.why));
    }
    if cause.is_empty() { note } else { format!("{cause}: {note}") }
}
