//! Writing: a plan becomes objects, and one that was written in part is written on. Pure.
//!
//! An answer that was lost, or somebody else's write that came between, says nothing against a plan. Only who plans anew for that uses up a
//! number, and loads what is loaded already.

use std::sync::Arc;

use super::{Round, Verdict};
use crate::hub::assignments::owner;
use crate::reconcile::decide::Action;
use crate::reconcile::decide::outcome::Outcome;
use crate::reconcile::decide::story::{Severity, tell};
use crate::reconcile::draft::Draft;
use crate::reconcile::generations::Generation;
use crate::reconcile::ledger;
use crate::reconcile::observe::ObjectKey;
use crate::reconcile::setbacks::Cause;

impl<'a> Round<'a, '_> {
    /// Writes a plan. `serving` goes on until it is ready.
    pub(super) fn write(&mut self, draft: Arc<Draft>, serving: Option<&Generation<'a>>) -> Outcome {
        let (number, summary) = (draft.number(), Some(draft.summary.clone()));
        let time_to_first_token_seconds = draft.time_to_first_token_seconds;
        self.next_generation = number + 1;
        for placement in &draft.placements {
            self.ledger.add(ObjectKey::of(placement), ledger::claim(self.observed, placement));
            self.taken.insert((placement.spec.replica, placement.spec.phone.clone()));
            let there = self.observed.placements.get(&ObjectKey::of(placement)).filter(|there| draft.has(there));
            if there.is_none_or(|there| there.metadata.deletion_timestamp.is_some()) {
                self.actions.push(Action::CreatePlacement(Box::new(placement.clone())));
            }
        }
        let severity = if draft.note.is_warning { Severity::Warning } else { Severity::Normal };
        self.stories.push(tell(self.deployment, severity, draft.note.reason, draft.note.words.clone()));
        let phones: Vec<_> = draft.placements.iter().map(|placement| placement.spec.phone.clone()).collect();
        let waits_for = phones.iter().map(|phone| format!("{phone} (Pending)")).collect();
        let outcome = match serving {
            Some(serving) => Outcome { waits_for, summary, time_to_first_token_seconds, ..self.outcome(serving, None) },
            None => Outcome {
                replica: draft.replica(),
                generation: Some(number),
                phones,
                predicted_tokens_per_second: draft.predicted_tokens_per_second,
                waits_for,
                summary,
                time_to_first_token_seconds,
                ..Outcome::default()
            },
        };
        self.draft = Some(draft);
        outcome
    }

    /// Writes a plan on, beside those `staying` that serve.
    pub(super) fn write_on(&mut self, draft: Arc<Draft>, staying: &[Generation<'a>]) -> Outcome {
        let (serving, useless): (Vec<_>, Vec<_>) =
            staying.iter().partition(|generation| generation.is_ready(self.observed));
        useless.into_iter().for_each(|generation| self.drop_now(generation));
        self.write(draft, serving.last().copied())
    }

    /// The plan of a replica that was written in part, where it is still needed, and as good as one that was written whole.
    pub(super) fn draft_that_will_do(&self, replica: u32, committed: &[Generation<'a>]) -> Option<Arc<Draft>> {
        let whose = Cause::PlanUnwritten.whose(ObjectKey::of(self.deployment), Some(replica));
        let setback = self.observed.setbacks.get(&whose)?;
        let is_as_asked = setback.replica == Some(replica) && setback.generation == self.deployment.metadata.generation;
        let draft = setback.draft.as_ref().filter(|_| is_as_asked)?;
        let first = draft.placements.first()?;
        // An earlier deployment of this name may have had it.
        if owner(first).map(|owner| &owner.uid) != self.deployment.metadata.uid.as_ref() {
            return None;
        }
        let may_write = self.draft.is_none() && !self.gives_way && self.refused(replica).is_none();
        // A later plan was written meanwhile, of another replica.
        let newest = self.deployment.status.as_ref().and_then(|status| status.plan_generation).unwrap_or(0);
        if !may_write || draft.number() <= newest {
            return None;
        }
        let generation =
            Generation { replica, number: draft.number(), segments: draft.placements.iter().collect::<Vec<_>>() };
        let is_taken = |phone: &&str| self.taken.iter().any(|(other, taken)| *other != replica && taken == phone);
        if generation.phones().iter().any(is_taken) || !matches!(self.verdict(&generation), Verdict::Works) {
            return None;
        }
        let mut staying = committed.iter().filter(|generation| !generation.is_leaving());
        let follows = first.spec.follows;
        let is_there = |number: u64| staying.clone().any(|it| it.number == number && it.is_ready(self.observed));
        if !follows.is_none_or(is_there) {
            return None;
        }
        let is_needed = !staying.any(|generation| matches!(self.verdict(generation), Verdict::Works));
        is_needed.then(|| draft.clone())
    }
}
