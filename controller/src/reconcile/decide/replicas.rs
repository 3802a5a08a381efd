//! Replicas: which plan each one runs, when a new one is made, and when the old one goes. Pure.
//!
//! A plan that works is left alone. A replica has at most two generations: one that serves, and the next.

mod ledger;
mod model_state;
mod moves;
mod plan;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use polyphony_api::InferenceDeployment;
use polyphony_api::condition::Statement;
use polyphony_api::inference_deployment::PlanSummary;
use polyphony_api::segment_placement::Phase;

use super::placements::release;
use super::{Action, Planner};
use crate::reconcile::generations::{Generation, of_deployment, phase_of};
use crate::reconcile::observe::{ObjectKey, Observed};
use ledger::Ledger;
use model_state::ModelState;
use verdict::Verdict;

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
    /// How a plan of this round came about, and what a prompt is expected to wait on it.
    pub summary: Option<PlanSummary>,
    pub time_to_first_token_seconds: Option<f64>,
    /// What the balancer says of it; `None` while it is not asked.
    pub balance: Option<Statement>,
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
    // Who matters more chooses first.
    let mut deployments: Vec<_> = observed.deployments.iter().collect();
    deployments.sort_by_key(|(_, deployment)| std::cmp::Reverse(deployment.spec.priority));
    for (key, deployment) in deployments {
        if deployment.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let mut round = Round {
            observed,
            planner,
            deployment,
            model: ModelState::of(observed, key, deployment),
            generations: of_deployment(observed, deployment),
            next_generation: plan::next_generation(observed, deployment),
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
        staying
            .flat_map(|generation| generation.phones().into_iter().map(|phone| (generation.replica, phone.to_owned())))
            .collect()
    }

    /// Replicas over the wanted number go, when their sessions have ended.
    fn scale_down(&mut self) {
        let wanted = self.deployment.spec.replicas;
        let surplus: Vec<_> = self
            .generations
            .iter()
            .filter(|generation| generation.replica >= wanted && !generation.is_leaving())
            .cloned()
            .collect();
        for generation in surplus {
            self.drain(&generation);
        }
    }

    fn replica(&mut self, replica: u32) -> Outcome {
        let of_replica: Vec<_> =
            self.generations.iter().filter(|generation| generation.replica == replica).cloned().collect();
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
                match &self.model {
                    // It answers on, for as long as no plan is needed and nobody looks for the file.
                    ModelState::Trouble(trouble) => self.outcome(newest, Some(trouble.clone())),
                    ModelState::Resolved(_) | ModelState::Pending => self.balance(newest),
                }
            }
            Verdict::Works => {
                let (serving, broken): (Vec<_>, Vec<_>) =
                    older.iter().partition(|generation| generation.is_ready(self.observed));
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

    fn outcome(&self, generation: &Generation<'_>, trouble: Option<Trouble>) -> Outcome {
        let waiting = |segment: &&&polyphony_api::SegmentPlacement| phase_of(self.observed, segment) != Phase::Ready;
        let describe = |segment: &&polyphony_api::SegmentPlacement| {
            format!("{} ({:?})", segment.spec.phone, phase_of(self.observed, segment))
        };
        Outcome {
            replica: generation.replica,
            generation: Some(generation.number),
            phones: generation.phones().into_iter().map(str::to_owned).collect(),
            predicted_tokens_per_second: generation.predicted_tokens_per_second(),
            is_ready: generation.is_ready(self.observed),
            waits_for: generation.segments.iter().filter(waiting).map(describe).collect(),
            trouble,
            ..Outcome::default()
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
