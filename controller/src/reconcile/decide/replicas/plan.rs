//! A new plan for a replica: asked of the planner, and written as placements. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use polyphony_api::inference_deployment::PlanSummary;
use polyphony_api::segment_placement::Standby;
use polyphony_api::{InferenceDeployment, SegmentPlacement, condition};
use polyphony_model::STEP_ROWS;
use polyphony_placement::{Infeasible, time_to_first_token_seconds};

use super::Round;
use super::model_state::ModelState;
use super::verdict::Need;
use crate::models::Resolved;
use crate::reconcile::class;
use crate::reconcile::decide::outcome::{Outcome, Trouble};
use crate::reconcile::draft::{Draft, Note};
use crate::reconcile::facts::three_figures;
use crate::reconcile::generations::Generation;
use crate::reconcile::ledger::{self, Taken, covers, loaded};
use crate::reconcile::observe::{Health, ObjectKey, Observed};
use crate::reconcile::problem::brief::Brief;
use crate::reconcile::problem::{self, Planned, Request, Unplanned};
use crate::reconcile::segments;
use crate::reconcile::ways::Ways;

/// The prompt whose time to first token the status tells, where the deployment names none.
const PROMPT_TOKENS: u32 = 512;
/// Phones that a message names.
const NAMED_PHONES: usize = 4;

impl<'a> Round<'a, '_> {
    /// Makes a new generation, or says why there is none. `staying` are the generations that the replica has.
    pub(super) fn plan(&mut self, replica: u32, need: &Need, staying: &[Generation<'a>]) -> Outcome {
        let as_it_is = |round: &Self| match staying
            .iter()
            .rev()
            .find(|generation| generation.is_ready(round.observed))
            .or(staying.last())
        {
            Some(generation) => round.outcome(generation, None),
            None => Outcome { replica, ..Outcome::default() },
        };
        let without_plan = |round: &Self, trouble| Outcome { trouble: Some(trouble), ..as_it_is(round) };
        let waiting = |round: &Self, what: &str| {
            let waits_for = if need.cause.is_empty() { what.to_owned() } else { format!("{what}: {}", need.cause) };
            Outcome { waits_for: vec![waits_for], ..as_it_is(round) }
        };
        let resolved = match &self.model {
            ModelState::Resolved(resolved) => *resolved,
            ModelState::Trouble(trouble) => return without_plan(self, trouble.clone()),
            ModelState::Pending => {
                let message = format!("Model {} is being verified", self.deployment.spec.model);
                return without_plan(self, Trouble { reason: "ModelVerifying".into(), message });
            }
        };
        if let Some(refused) = self.refused(replica) {
            return without_plan(self, refused);
        }
        if self.draft.is_some() {
            // Its turn comes with the next round: until then what it may need is not for others to take.
            self.awaits_plan = true;
            return waiting(self, "the plan of another replica to be written");
        }
        if self.gives_way {
            self.has_given_way = true;
            return waiting(self, "the plan of a deployment of a higher priority");
        }
        let (serving, useless): (Vec<_>, Vec<_>) =
            staying.iter().partition(|generation| generation.is_ready(self.observed));
        let mut excluded: BTreeSet<String> =
            self.taken.iter().filter(|(other, _)| *other != replica).map(|(_, phone)| phone.clone()).collect();
        excluded.extend(need.avoid.iter().cloned());
        let ask = |taken: &Taken<'_>| {
            problem::plan(self.observed, &self.request(resolved, &excluded, taken, None), self.planner)
        };
        // Where two generations do not fit side by side, the serving one makes room. A phone that has to give memory back has none left.
        let (planned, makes_room) = match ask(&self.ledger.without(ledger::keys(useless.iter().copied()))) {
            Err(Unplanned::Infeasible(_)) if !serving.is_empty() => {
                (ask(&self.ledger.without(ledger::keys(staying))), true)
            }
            beside => (beside, false),
        };
        match planned {
            Err(Unplanned::Underway) => {
                self.awaits_plan = true;
                waiting(self, "its plan to be computed")
            }
            Err(Unplanned::Infeasible(infeasible)) => {
                let freed = ledger::keys(staying).chain(self.leaving.iter().cloned());
                let later = (!self.leaving.is_empty()).then(|| ask(&self.ledger.without(freed)));
                let taken = self.ledger.all();
                let refused = problem::refusals(self.observed, &self.request(resolved, &excluded, &taken, None));
                let trouble = self.trouble_of(&infeasible, need, &refused);
                // Those that matter less leave it what comes back, as long as they wait for anybody.
                match later {
                    Some(Ok(planned)) => {
                        self.awaits_plan = true;
                        waiting(self, &self.given_back(&planned))
                    }
                    // What has long been said stands until it is known better.
                    Some(Err(Unplanned::Underway)) if !self.has_said(&trouble) => {
                        self.awaits_plan = true;
                        waiting(self, "its plan to be computed")
                    }
                    Some(Err(_)) | None => without_plan(self, trouble),
                }
            }
            Ok(planned) => {
                let leaving = if makes_room { staying.iter().collect() } else { useless };
                let newest_leaves =
                    leaving.iter().any(|leaving| Some(leaving.number) == staying.last().map(|it| it.number));
                leaving.into_iter().for_each(|generation| self.drop_now(generation));
                if need.frees && newest_leaves {
                    // What a phone has loaded it would keep for the next plan: it is planned when that is given back, and not to others.
                    self.awaits_plan = true;
                    let waits_for = vec![format!("memory to be given back: {}", need.cause)];
                    return match serving.last().filter(|_| !makes_room) {
                        Some(serving) => Outcome { waits_for, ..self.outcome(serving, None) },
                        None => Outcome { replica, waits_for, ..Outcome::default() },
                    };
                }
                let told = if need.cause.is_empty() { Told::Planned } else { Told::Replanned(need.cause.clone()) };
                let serving = if makes_room { None } else { serving.last().copied() };
                self.create(replica, &told, &planned, resolved, serving, staying.last())
            }
        }
    }

    /// Whether the deployment's status tells of this trouble.
    fn has_said(&self, trouble: &Trouble) -> bool {
        let status = self.deployment.status.as_ref();
        let degraded = status.and_then(|status| condition::find(&status.conditions, "Degraded"));
        degraded.is_some_and(|said| said.status == "True" && said.reason == trouble.reason)
    }

    /// Which memory a plan waits for.
    fn given_back(&self, planned: &Planned) -> String {
        let is_used = |phone: &str| planned.plan.stages.iter().any(|stage| stage.phone == phone);
        let leaving = self.leaving.iter().filter_map(|key| Some((key, self.observed.placements.get(key)?)));
        let leaving = leaving.filter(|(_, placement)| is_used(&placement.spec.phone));
        let named: BTreeSet<String> = leaving
            .map(|(key, placement)| {
                format!("{}/{} on {}", key.namespace, placement.spec.deployment, placement.spec.phone)
            })
            .collect();
        let named = named.into_iter().collect::<Vec<_>>().join(", ");
        format!("memory that is given back when the sessions of an earlier generation have ended: {named}")
    }

    /// What a replica asks of the phones, or of those in `within` alone.
    pub(super) fn request<'r>(
        &'r self,
        resolved: &'a Resolved,
        excluded: &'r BTreeSet<String>,
        taken: &'r Taken<'r>,
        within: Option<&'r [&'r str]>,
    ) -> Request<'r> {
        let brief = || Brief::of(self.observed, self.census, self.deployment, &resolved.manifest, &resolved.digest);
        Request { brief: self.brief.get_or_init(brief), census: self.census, excluded, taken, within }
    }

    /// Whether the phone was there when the controller's last life ended, and has not come back yet.
    fn is_expected_back(&self, phone: &str) -> bool {
        let object = self.observed.phones.get(phone).and_then(|seen| seen.object.as_ref());
        let conditions = object.and_then(|object| object.status.as_ref()).map(|status| &status.conditions);
        let was_gone = conditions
            .and_then(|conditions| condition::find(conditions, "Ready"))
            .is_some_and(|ready| ready.status == "False");
        self.observed.health(phone) == Health::Awaited && !was_gone
    }

    fn trouble_of(&self, infeasible: &Infeasible, need: &Need, refused: &[(String, &str)]) -> Trouble {
        let phones = self.observed.phones.keys();
        let awaited: Vec<_> = phones.filter(|phone| self.is_expected_back(phone)).cloned().collect();
        if !awaited.is_empty() {
            let message = format!("the controller has started and waits for {}", awaited.join(", "));
            return Trouble { reason: "WaitingForPhones".into(), message };
        }
        let (reason, why) = explained(infeasible, refused);
        let cause = &need.cause;
        let message =
            if cause.is_empty() { format!("no plan: {why}") } else { format!("{cause}; no other plan: {why}") };
        Trouble { reason: need.reason.unwrap_or(reason).into(), message }
    }

    /// Writes a new generation. `serving` goes on until it is ready, and its sessions move to it; `before` is the newest one of the
    /// replica, whether it serves or not.
    pub(super) fn create(
        &mut self,
        replica: u32,
        told: &Told,
        planned: &Planned,
        resolved: &Resolved,
        serving: Option<&Generation<'a>>,
        before: Option<&Generation<'a>>,
    ) -> Outcome {
        let number = self.free_generation(replica, planned);
        let follows = serving.filter(|serving| self.can_take_over(serving, planned, resolved));
        let follows = follows.map(|serving| serving.number);
        let mut made = segments::placements(self.deployment, replica, number, planned, resolved, follows);
        if let Some(serving) = serving.filter(|_| follows.is_some()) {
            made.iter_mut().for_each(|placement| keep_loaded(placement, serving));
        }
        let moves = before.map_or(0, |before| match told {
            Told::Rebalanced(_) => self.moves_with_one_more(before),
            Told::Planned | Told::Replanned(_) => self.moves_of_late(before),
        });
        made.iter_mut().for_each(|placement| placement.spec.moves = moves);
        segments::lead(&mut made, &Ways::of(self.observed));
        segments::seal(&mut made);
        let digest = made.first().and_then(|placement| placement.spec.plan_digest.clone());
        let (is_warning, reason, cause) = match told {
            Told::Planned => (false, "Planned", None),
            Told::Replanned(cause) => (true, "Replanned", Some(cause)),
            Told::Rebalanced(why) => (false, "Rebalanced", Some(why)),
        };
        let story = story(number, replica, planned);
        let words = cause.map_or_else(|| story.clone(), |cause| format!("{cause}: {story}"));
        let draft = Draft {
            placements: made,
            summary: summary(self.deployment, number, digest, planned),
            predicted_tokens_per_second: Some(planned.plan.predicted_inter_token_seconds)
                .filter(|seconds| *seconds > 0.0)
                .map(|seconds| 1.0 / seconds),
            time_to_first_token_seconds: time_to_first_token(planned, self.deployment.spec.prompt_tokens),
            note: Note { is_warning, reason, words },
        };
        self.write(Arc::new(draft), serving)
    }

    /// The next number whose names nobody has, not even an object that somebody else has made.
    fn free_generation(&self, replica: u32, planned: &Planned) -> u64 {
        let namespace = self.deployment.namespace().unwrap_or_default();
        let n_stages = u32::try_from(planned.plan.stages.len()).unwrap_or(u32::MAX);
        let is_free = |number: &u64| {
            let name = |stage| segments::name_of(&self.deployment.name_any(), replica, *number, stage);
            let mut names = (0..n_stages).map(|stage| ObjectKey::new(&namespace, name(stage)));
            names.all(|key| !self.observed.placements.contains_key(&key))
        };
        // There are fewer objects than numbers.
        (self.next_generation..).find(is_free).unwrap_or(u64::MAX)
    }

    /// Whether a KV cache of the serving generation is one of the planned generation too, in a model whose sessions move.
    fn can_take_over(&self, serving: &Generation<'a>, planned: &Planned, resolved: &Resolved) -> bool {
        let wanted = &self.deployment.spec;
        resolved.manifest.hyperparameters.encoder.is_none()
            && serving.is_ready(self.observed)
            && serving.segments.iter().all(|segment| {
                let spec = &segment.spec;
                spec.manifest_digest == resolved.digest
                    && spec.context_length == wanted.context_length
                    && spec.max_sessions == wanted.max_sessions
                    && spec.activation_type == wanted.activation_type()
                    && spec.numerics_class == planned.numerics_class
                    // What a device keeps that was found wrong speaks in no other's tokens.
                    && self.observed.phones.get(&spec.phone).is_none_or(|seen| {
                        seen.fault_of(class::numerics(&spec.numerics_class)).is_none()
                    })
            })
    }
}

/// Reason and message, with the phones that the planner was not asked about: they may be what is missing.
fn explained(infeasible: &Infeasible, refused: &[(String, &str)]) -> (&'static str, String) {
    let named: Vec<_> = refused.iter().take(NAMED_PHONES).map(|(phone, why)| format!("{phone}: {why}")).collect();
    let more = refused.len().saturating_sub(NAMED_PHONES);
    let phones = if more > 0 { format!("{}, and {more} more", named.join(", ")) } else { named.join(", ") };
    match infeasible {
        Infeasible::NoPhones if !refused.is_empty() => (
            "NoUsablePhones",
            format!("no phone takes segments of it now ({phones}): mend one of these, or join another phone"),
        ),
        Infeasible::Rejected { .. } => (infeasible.reason(), infeasible.to_string()),
        _ if refused.is_empty() => (infeasible.reason(), infeasible.to_string()),
        _ => (infeasible.reason(), format!("{infeasible}; not counted: {phones}")),
    }
}

/// What is loaded stays loaded: a placement within what its phone holds of the serving generation shares that.
fn keep_loaded(placement: &mut SegmentPlacement, serving: &Generation<'_>) {
    let on_phone = |segment: &&&SegmentPlacement| segment.spec.phone == placement.spec.phone;
    let Some(held) = serving.segments.iter().find(on_phone) else { return };
    if !covers(held, placement) {
        return;
    }
    let (from, to) = loaded(held);
    let own = &placement.spec.holds;
    placement.spec.standby = ((from, to) != (own.from, own.to)).then(|| Standby::new(from, to));
    placement.spec.planned_bytes = held.spec.planned_bytes;
}

/// Why a generation is made, as its event tells it.
pub(super) enum Told {
    Planned,
    Replanned(String),
    Rebalanced(String),
}

/// How a plan came about, for the status.
fn summary(
    deployment: &InferenceDeployment,
    generation: u64,
    digest: Option<String>,
    planned: &Planned,
) -> PlanSummary {
    let plan = &planned.plan;
    PlanSummary {
        generation,
        digest,
        strategy: deployment.spec.placement.strategy,
        method: format!("{:?}", plan.method),
        gap_percent: if plan.gap.is_finite() { (plan.gap * 1000.0).round() / 10.0 } else { 0.0 },
        limited_by: plan.bound.to_string(),
        joules_per_token: plan.predicted_joules_per_token.map(three_figures),
    }
}

/// What a prompt of some length is expected to wait for its first token, to three decimals.
fn time_to_first_token(planned: &Planned, prompt_tokens: Option<u32>) -> Option<f64> {
    let n_tokens = prompt_tokens.unwrap_or(PROMPT_TOKENS);
    let seconds = time_to_first_token_seconds(&planned.asked.expected(), &planned.plan, n_tokens, STEP_ROWS);
    seconds.is_finite().then(|| (seconds * 1e3).round() / 1e3)
}

/// Counts up over all plans that the deployment ever had.
pub(super) fn next_generation(observed: &Observed, deployment: &InferenceDeployment) -> u64 {
    let written = deployment.status.as_ref().and_then(|status| status.plan_generation).unwrap_or(0);
    let key = ObjectKey::of(deployment);
    let own = observed.placements.iter().filter(|(placement_key, placement)| {
        placement_key.namespace == key.namespace && placement.spec.deployment == key.name
    });
    own.map(|(_, placement)| placement.spec.plan_generation).max().unwrap_or(0).max(written) + 1
}

fn story(number: u64, replica: u32, planned: &Planned) -> String {
    let plan = &planned.plan;
    let stages =
        plan.stages.iter().map(|stage| format!("{} holds {}", stage.phone, segments::holds(&stage.holds).summary));
    let mut note = format!("generation {number} of replica {replica}: {}", stages.collect::<Vec<_>>().join(", "));
    if plan.predicted_inter_token_seconds > 0.0 {
        note.push_str(&format!(
            "; {:.1} tokens/s expected, limited by: {}",
            1.0 / plan.predicted_inter_token_seconds,
            plan.bound
        ));
    }
    for left_out in &plan.left_out {
        note.push_str(&format!("; {} is left out: {}", left_out.phone, left_out.why));
    }
    note
}
