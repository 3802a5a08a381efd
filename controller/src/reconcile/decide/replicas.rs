//! Replicas: which plan each one runs, when a new one is made, and when the old one goes. Pure.
//!
//! A plan that works is left alone. A replica has at most two generations: one that serves, and the next. Each deployment is decided on
//! apart: what breaks down over one touches no other. A round writes the plan of one replica of a deployment at most, and commits it: what
//! the API refuses one replica, the others have. What was written of a plan in part, and nobody refused, is written on.

mod model_state;
mod moves;
mod plan;
mod verdict;
mod writing;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use polyphony_api::condition::Statement;
use polyphony_api::segment_placement::Phase;
use polyphony_api::{InferenceDeployment, SegmentPlacement};

use super::outcome::{Outcome, Text, Trouble};
use super::placements::{has_finalizer, last_words, release};
use super::{Action, Decision, Planner, Subject, status};
use crate::reconcile::draft::Draft;
use crate::reconcile::generations::{Generation, of_deployment, phase_of};
use crate::reconcile::ledger::{self, Ledger};
use crate::reconcile::observe::{Health, ObjectKey, Observed};
use crate::reconcile::problem::brief::Brief;
use crate::reconcile::problem::census::{Census, LeftOut};
use crate::reconcile::setbacks::Cause;
use model_state::{ModelState, text_of};
use verdict::{Need, Verdict};

/// A deployment waits this long at most for those that matter more, and holds up others no longer, however many plans it still needs.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Decides on every deployment apart. Gives what the balancer says of rings, by the placement of their head.
pub(super) fn decide(
    observed: &Observed,
    planner: Planner<'_>,
    decision: &mut Decision,
) -> BTreeMap<ObjectKey, Statement> {
    let mut ledger = ledger_after(observed, decision);
    let mut leaving = leaving_after(observed, decision);
    let census = Census::of(observed);
    decision.failed.extend(census.left_out.iter().map(|(what, words)| {
        let subject = match what {
            LeftOut::Phone(name) => Subject::Phone(name.clone()),
            LeftOut::Placement(key) => Subject::Placement(key.clone()),
        };
        (subject, words.clone())
    }));
    let mut balances = BTreeMap::new();
    // Who matters more chooses first.
    let mut deployments: Vec<_> = observed.deployments.iter().collect();
    deployments.sort_by_key(|(_, deployment)| std::cmp::Reverse(deployment.spec.priority));
    let held = |key: &ObjectKey, deployment: &InferenceDeployment, cause: Cause| {
        let setback = observed.setbacks.get(&cause.whose(key.clone(), None)).filter(|setback| setback.cause == cause);
        setback.filter(|setback| setback.holds(deployment.metadata.generation, observed.uptime))
    };
    let waits_long = |key: &ObjectKey| {
        let since = observed.waiting.get(key);
        since.is_some_and(|since| observed.uptime.saturating_sub(*since) >= LONGEST_WAIT)
    };
    // The priority of who still waits for its plan: it chooses before those that matter less.
    let mut chooses: Option<i32> = None;
    for (key, deployment) in deployments {
        // What the API could not take, it is spared for a moment.
        if held(key, deployment, Cause::PlanUnwritten).is_some() {
            decision.waiting.extend(observed.waiting.contains_key(key).then(|| key.clone()));
            continue;
        }
        let subject = Subject::Deployment(key.clone());
        let decided = match held(key, deployment, Cause::DecisionFailed) {
            Some(setback) => Err(setback.words.clone()),
            None => decision.apart(subject.clone(), |actions| {
                let mut round = Round::new(observed, planner, key, deployment, &mut ledger, &census, actions);
                round.leaving = std::mem::take(&mut leaving);
                round.gives_way =
                    chooses.is_some_and(|priority| deployment.spec.priority < priority) && !waits_long(key);
                let outcomes = round.all_replicas();
                let balances = round.balances(&outcomes);
                let (stories, awaits_plan) = (std::mem::take(&mut round.stories), round.awaits_plan);
                let draft = round.draft.take();
                let waits = awaits_plan || round.has_given_way;
                leaving = std::mem::take(&mut round.leaving);
                status::decide(observed, key, deployment, &outcomes, actions);
                actions.extend(stories);
                (balances, awaits_plan, waits, draft)
            }),
        };
        match decided {
            Ok((of_rings, awaits_plan, waits, draft)) => {
                decision.drafts.extend(draft.map(|draft| (key.clone(), draft)));
                balances.extend(of_rings);
                chooses = chooses.or((awaits_plan && !waits_long(key)).then_some(deployment.spec.priority));
                decision.waiting.extend(waits.then(|| key.clone()));
            }
            Err(words) => {
                // What it had reserved by then is not reserved.
                ledger = ledger_after(observed, decision);
                leaving = leaving_after(observed, decision);
                let _ =
                    decision.apart(subject, |actions| status::broken_down(observed, key, deployment, &words, actions));
            }
        }
    }
    balances
}

/// What is spoken for after all that has been decided so far.
fn ledger_after(observed: &Observed, decision: &Decision) -> Ledger {
    let released = decision.actions().filter_map(|action| match action {
        Action::ReleasePlacement { key, .. } => Some(key),
        _ => None,
    });
    let mut ledger = ledger::of_all(observed, &released.collect());
    for action in decision.actions() {
        if let Action::CreatePlacement(placement) = action {
            ledger.add(ObjectKey::of(placement.as_ref()), ledger::claim(observed, placement));
        }
    }
    ledger
}

/// Placements whose sessions end, and whose memory then comes back by itself.
fn leaving_after(observed: &Observed, decision: &Decision) -> BTreeSet<ObjectKey> {
    let mut leaving: BTreeSet<ObjectKey> = BTreeSet::new();
    let is_deleted = |placement: &SegmentPlacement| placement.metadata.deletion_timestamp.is_some();
    let deleted = observed.placements.iter().filter(|(_, placement)| is_deleted(placement) && has_finalizer(placement));
    leaving.extend(deleted.map(|(key, _)| key.clone()));
    for action in decision.actions() {
        match action {
            Action::DeletePlacement { key } => drop(leaving.insert(key.clone())),
            Action::ReleasePlacement { key, .. } => drop(leaving.remove(key)),
            _ => {}
        }
    }
    leaving
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
    /// Placements whose memory comes back by itself.
    leaving: BTreeSet<ObjectKey>,
    census: &'b Census<'a>,
    /// What it asks of phones, once it asks.
    brief: OnceCell<Brief<'a>>,
    actions: &'b mut Vec<Action>,
    /// What is told of a plan when its deployment's status says that it is written.
    stories: Vec<Action>,
    /// The plan that this round writes: the next one is written when this one is committed.
    draft: Option<Arc<Draft>>,
    /// A deployment that matters more waits for its plan, and chooses first.
    gives_way: bool,
    /// It has, with a plan that it needs.
    has_given_way: bool,
    /// The planner is at a plan of this one, or one is still to be written.
    awaits_plan: bool,
}

impl<'a, 'b> Round<'a, 'b> {
    fn new(
        observed: &'a Observed,
        planner: Planner<'b>,
        key: &ObjectKey,
        deployment: &'a InferenceDeployment,
        ledger: &'b mut Ledger,
        census: &'b Census<'a>,
        actions: &'b mut Vec<Action>,
    ) -> Self {
        let generations = of_deployment(observed, deployment);
        let staying = generations.iter().filter(|generation| !generation.is_leaving());
        let phones = |generation: &Generation<'_>| {
            let replica = generation.replica;
            generation.phones().into_iter().map(|phone| (replica, phone.to_owned())).collect::<Vec<_>>()
        };
        Self {
            observed,
            planner,
            deployment,
            model: ModelState::of(observed, &key.namespace, &deployment.spec.model),
            next_generation: plan::next_generation(observed, deployment),
            taken: staying.flat_map(phones).collect(),
            generations,
            ledger,
            leaving: BTreeSet::new(),
            census,
            brief: OnceCell::new(),
            actions,
            stories: Vec::new(),
            draft: None,
            gives_way: false,
            has_given_way: false,
            awaits_plan: false,
        }
    }

    fn all_replicas(&mut self) -> Vec<Outcome> {
        let wanted = self.wanted_replicas();
        let surplus: Vec<_> = self
            .generations
            .iter()
            .filter(|generation| !wanted.contains(&generation.replica) && !generation.is_leaving())
            .cloned()
            .collect();
        // They go when their sessions have ended.
        surplus.iter().for_each(|generation| self.drain(generation));
        self.taken.retain(|(replica, _)| wanted.contains(replica));
        let mut outcomes: Vec<Outcome> =
            self.in_turn(wanted).into_iter().map(|replica| self.replica(replica)).collect();
        outcomes.sort_by_key(|outcome| outcome.replica);
        outcomes
    }

    /// Replicas in the order in which they have their plans written: after the one whose plan could not be, which comes last.
    fn in_turn(&self, wanted: BTreeSet<u32>) -> Vec<u32> {
        let whose = Cause::PlanUnwritten.whose(ObjectKey::of(self.deployment), None);
        let setback = self.observed.setbacks.get(&whose).filter(|setback| setback.cause == Cause::PlanUnwritten);
        let Some(unwritten) = setback.and_then(|setback| setback.replica) else { return wanted.into_iter().collect() };
        let (before, after): (Vec<u32>, Vec<u32>) = wanted.into_iter().partition(|replica| *replica <= unwritten);
        after.into_iter().chain(before).collect()
    }

    /// The replicas that stay, the sound ones before others, and new ones in free places. None of a deployment that is being deleted.
    fn wanted_replicas(&self) -> BTreeSet<u32> {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return BTreeSet::new();
        }
        let mut present: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
        for generation in self.generations.iter().filter(|generation| !generation.is_leaving()) {
            let is_ready = generation.is_ready(self.observed);
            let is_well = generation.phones().iter().all(|phone| self.observed.health(phone) == Health::Well);
            let best = present.entry(generation.replica).or_default();
            *best = (*best).max((is_ready, is_well));
        }
        let mut ranked: Vec<_> = present.into_iter().collect();
        ranked.sort_by_key(|&(replica, soundness)| (std::cmp::Reverse(soundness), replica));
        let wanted = self.deployment.spec.replicas as usize;
        let mut chosen: BTreeSet<u32> = ranked.into_iter().take(wanted).map(|(replica, _)| replica).collect();
        for free in 0.. {
            if chosen.len() >= wanted {
                break;
            }
            chosen.insert(free);
        }
        chosen
    }

    fn replica(&mut self, replica: u32) -> Outcome {
        let of_replica: Vec<_> =
            self.generations.iter().filter(|generation| generation.replica == replica).cloned().collect();
        let (of_replica, unfinished): (Vec<_>, Vec<_>) =
            of_replica.into_iter().partition(|generation| generation.is_committed(self.deployment));
        let draft = self.draft_that_will_do(replica, &of_replica);
        // What was not written to its end serves nobody; where it is not written on, the next plan is another one.
        let is_written_on = |generation: &&Generation<'_>| {
            draft.as_ref().is_some_and(|draft| generation.segments.iter().all(|segment| draft.has(segment)))
        };
        unfinished.iter().filter(|one| !is_written_on(one)).for_each(|generation| self.drop_now(generation));
        // A generation of which a person deleted a part goes as a whole.
        for torn in of_replica.iter().filter(|generation| generation.is_leaving()) {
            self.drain(torn);
        }
        let staying: Vec<_> = of_replica.iter().filter(|generation| !generation.is_leaving()).cloned().collect();
        if let Some(draft) = draft {
            return self.write_on(draft, &staying);
        }
        let Some((newest, older)) = staying.split_last() else {
            let cause = match unfinished.last() {
                Some(unfinished) => format!("generation {} was not written to its end", unfinished.number),
                None if of_replica.is_empty() => String::new(),
                None => "the earlier generation was deleted".to_owned(),
            };
            return self.plan(replica, &Need::of(cause), &[]);
        };
        let need = match self.verdict(newest) {
            Verdict::Works if newest.is_ready(self.observed) => {
                older.iter().for_each(|generation| self.drain(generation));
                return match &self.model {
                    // It answers on, for as long as no plan is needed and nobody looks for the file.
                    ModelState::Trouble(trouble) => self.outcome(newest, Some(trouble.clone())),
                    ModelState::Resolved(_) | ModelState::Pending => self.balance(newest),
                };
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
                return outcome;
            }
            Verdict::Needs(need) => need,
        };
        // A successor that nobody needs is no reason for a plan: what serves is as it should be.
        let serving = older.iter().rev().find(|generation| generation.is_ready(self.observed));
        if let Some(serving) = serving.filter(|serving| matches!(self.verdict(serving), Verdict::Works)) {
            let others = staying.iter().filter(|generation| generation.number != serving.number);
            others.for_each(|generation| self.drop_now(generation));
            return self.outcome(serving, None);
        }
        self.plan(replica, &need, &staying)
    }

    /// What the balancer says, by the placement that is the head of the ring it says it of.
    fn balances(&self, outcomes: &[Outcome]) -> BTreeMap<ObjectKey, Statement> {
        let of_ring = |outcome: &Outcome| {
            let is_it = |generation: &&Generation<'_>| {
                generation.replica == outcome.replica && Some(generation.number) == outcome.generation
            };
            let head = self.generations.iter().find(is_it)?.segments.first()?;
            Some((ObjectKey::of(*head), outcome.balance.clone()?))
        };
        outcomes.iter().filter_map(of_ring).collect()
    }

    /// Why no plan of a replica is written now, while the API refuses it.
    fn refused(&self, replica: u32) -> Option<Trouble> {
        let whose = Cause::PlacementRefused.whose(ObjectKey::of(self.deployment), Some(replica));
        let setback = self.observed.setbacks.get(&whose)?;
        let holds = setback.holds(self.deployment.metadata.generation, self.observed.uptime);
        holds.then(|| Trouble {
            reason: "PlacementRefused".to_owned(),
            message: format!(
                "the API takes no placements of the plan of replica {replica}: {}; mend that, it is tried again after pauses that grow",
                setback.words
            ),
        })
    }

    fn outcome(&self, generation: &Generation<'_>, trouble: Option<Trouble>) -> Outcome {
        let waiting = |segment: &&&SegmentPlacement| phase_of(self.observed, segment) != Phase::Ready;
        let describe =
            |segment: &&SegmentPlacement| format!("{} ({:?})", segment.spec.phone, phase_of(self.observed, segment));
        Outcome {
            replica: generation.replica,
            generation: Some(generation.number),
            phones: generation.phones().into_iter().map(str::to_owned).collect(),
            predicted_tokens_per_second: generation.predicted_tokens_per_second(),
            is_ready: generation.is_ready(self.observed),
            text: generation.segments.first().map_or(Text::Readable, |head| text_of(self.observed, head)),
            waits_for: generation.segments.iter().filter(waiting).map(describe).collect(),
            trouble,
            ..Outcome::default()
        }
    }

    /// Deletes a generation whose sessions may end first.
    fn drain(&mut self, generation: &Generation<'_>) {
        for segment in generation.segments.iter().filter(|segment| segment.metadata.deletion_timestamp.is_none()) {
            let key = ObjectKey::of(*segment);
            self.leaving.insert(key.clone());
            self.actions.push(Action::DeletePlacement { key });
        }
    }

    /// Deletes a generation that serves nobody, or has to make room, at once. What became of it is told, since no status will.
    fn drop_now(&mut self, generation: &Generation<'_>) {
        ledger::keys([generation]).for_each(|key| self.ledger.remove(&key));
        for segment in &generation.segments {
            let key = ObjectKey::of(*segment);
            self.actions.push(release(&key, segment));
            self.actions.push(Action::DeletePlacement { key });
            self.actions.extend(last_words(self.observed, segment));
        }
    }
}
