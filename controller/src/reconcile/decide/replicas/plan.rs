//! A new plan for a replica: asked of the planner, and written as placements. Pure.

use std::collections::BTreeSet;

use polyphony_api::{InferenceDeployment, condition};
use polyphony_placement::Infeasible;

use super::ledger::Ledger;
use super::model_state::ModelState;
use super::{Outcome, Round, Trouble};
use crate::models::Resolved;
use crate::reconcile::decide::Action;
use crate::reconcile::decide::story::{Severity, tell};
use crate::reconcile::generations::Generation;
use crate::reconcile::observe::{Health, ObjectKey, Observed};
use crate::reconcile::problem::{self, Planned, Request};
use crate::reconcile::segments;

impl<'a> Round<'a, '_> {
    /// Makes a new generation, or says why there is none. `staying` are the generations that the replica has.
    pub(super) fn plan(
        &mut self,
        replica: u32,
        cause: &str,
        avoid: BTreeSet<String>,
        staying: &[Generation<'a>],
    ) -> Outcome {
        let without_plan = |trouble| match staying
            .iter()
            .rev()
            .find(|generation| generation.is_ready(self.observed))
            .or(staying.last())
        {
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
        let (serving, useless): (Vec<_>, Vec<_>) =
            staying.iter().partition(|generation| generation.is_ready(self.observed));
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

    /// Whether the phone was there when the controller's last life ended, and has not come back yet.
    fn is_expected_back(&self, phone: &str) -> bool {
        let object = self.observed.phones.get(phone).and_then(|seen| seen.object.as_ref());
        let conditions = object.and_then(|object| object.status.as_ref()).map(|status| &status.conditions);
        let was_gone = conditions
            .and_then(|conditions| condition::find(conditions, "Ready"))
            .is_some_and(|ready| ready.status == "False");
        self.observed.health(phone) == Health::Awaited && !was_gone
    }

    fn trouble_of(&self, infeasible: &Infeasible, cause: &str) -> Trouble {
        let phones = self.observed.phones.keys();
        let awaited: Vec<_> = phones.filter(|phone| self.is_expected_back(phone)).cloned().collect();
        if !awaited.is_empty() {
            let message = format!("the controller has started and waits for {}", awaited.join(", "));
            return Trouble { reason: "WaitingForPhones".into(), message };
        }
        let message = if cause.is_empty() {
            format!("no plan: {infeasible}")
        } else {
            format!("{cause}; no other plan: {infeasible}")
        };
        Trouble { reason: infeasible.reason().into(), message }
    }

    fn create(
        &mut self,
        replica: u32,
        cause: &str,
        planned: &Planned,
        resolved: &Resolved,
        serving: Option<&Generation<'a>>,
    ) -> Outcome {
        let number = self.next_generation;
        self.next_generation += 1;
        let (severity, reason) =
            if cause.is_empty() { (Severity::Normal, "Planned") } else { (Severity::Warning, "Replanned") };
        let made = segments::placements(self.deployment, replica, number, planned, &resolved.digest);
        let phones: Vec<_> = made.iter().map(|placement| placement.spec.phone.clone()).collect();
        for placement in made {
            *self.ledger.0.entry(placement.spec.phone.clone()).or_default() += placement.spec.planned_bytes;
            self.taken.insert((replica, placement.spec.phone.clone()));
            self.actions.push(Action::CreatePlacement(Box::new(placement)));
        }
        self.actions.push(tell(self.deployment, severity, reason, story(number, replica, cause, planned)));
        let waits_for = phones.iter().map(|phone| format!("{phone} (Pending)")).collect();
        match serving {
            Some(serving) => Outcome { waits_for, ..self.outcome(serving, None) },
            None => Outcome {
                replica,
                generation: Some(number),
                phones,
                predicted_tokens_per_second: Some(planned.plan.predicted_inter_token_seconds)
                    .filter(|seconds| *seconds > 0.0)
                    .map(|seconds| 1.0 / seconds),
                is_ready: false,
                waits_for,
                trouble: None,
            },
        }
    }
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

fn story(number: u64, replica: u32, cause: &str, planned: &Planned) -> String {
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
    if cause.is_empty() { note } else { format!("{cause}: {note}") }
}
