//! Moves: what the balancer is shown of a replica that serves, and how its answer becomes a new generation. Pure.

use std::collections::BTreeSet;

use polyphony_api::condition::{self, Statement, Truth};
use polyphony_api::inference_deployment::{BalancingStrategy, InferenceDeploymentSpec, Objective, Strategy};
use polyphony_placement::shift::{best_shift, cost_of_move, reprice};
use polyphony_placement::{Bound, Holds, Method, Plan, Problem, Stage, check, published_balancer_step};

use super::Round;
use super::model_state::ModelState;
use super::plan::Told;
use crate::models::Resolved;
use crate::reconcile::decide::balance::{Move, Offer, Promise, QUIET_COOL_DOWNS, Scene, cool_down_seconds, weigh};
use crate::reconcile::decide::outcome::Outcome;
use crate::reconcile::elapsed::seconds_since;
use crate::reconcile::generations::Generation;
use crate::reconcile::ledger::{self, Taken};
use crate::reconcile::observe::{Health, ObjectKey};
use crate::reconcile::problem::measured::Figures;
use crate::reconcile::problem::{self, Asked, Planned, Question, Unplanned};
use crate::reconcile::segments;

/// What a move takes at least, whatever travels for it.
const LEAST_SECONDS: f64 = 0.1;

impl<'a> Round<'a, '_> {
    /// Judges a generation that serves, and replaces it where that pays.
    pub(super) fn balance(&mut self, serving: &Generation<'a>) -> Outcome {
        let mut outcome = self.outcome(serving, None);
        // Whoever has just come back after a start has not spoken yet; and a phone holds two generations at most.
        let is_awaited = |phone: &&str| self.observed.health(phone) == Health::Awaited;
        let is_leaving = |other: &Generation<'_>| other.replica == serving.replica && other.is_leaving();
        if serving.phones().iter().any(is_awaited) || self.generations.iter().any(is_leaving) {
            return outcome;
        }
        let ModelState::Resolved(resolved) = &self.model else { return outcome };
        let resolved = *resolved;
        let rules = &self.deployment.spec.load_balancing;
        let strategy = self.deployment.spec.placement.strategy;
        let not_asked = |reason: &str, message: String| {
            Some(Statement { type_: "Balanced", status: Truth::Unknown, reason: reason.to_owned(), message })
        };
        let excluded: BTreeSet<String> =
            self.taken.iter().filter(|(other, _)| *other != serving.replica).map(|(_, phone)| phone.clone()).collect();
        let without = self.ledger.without(ledger::keys([serving]));
        let phones = serving.phones();
        // What the plan itself is worth, and what its phones could make of it, is a matter of these phones alone.
        let ask = |figures| self.asked(resolved, &excluded, &without, Some(&phones), serving, figures);
        let settled = ask(Figures::Settled);
        let current = plan_of(serving);
        // By the last figures of all, the cost model says what the plan is worth now.
        let raw = ask(Figures::Raw).and_then(|raw| reprice(&raw.problem, &current));
        if self.is_measured(serving)
            && let Some(raw) = raw
            && raw.predicted_inter_token_seconds > 0.0
        {
            outcome.predicted_tokens_per_second = Some(1.0 / raw.predicted_inter_token_seconds);
        }
        if rules.enabled && resolved.manifest.hyperparameters.encoder.is_some() {
            let message =
                "layers of an encoder–decoder model stay where they are: its sessions do not move yet".to_owned();
            outcome.balance = not_asked("Disabled", message);
            return outcome;
        }
        let is_balanced =
            matches!(strategy, Strategy::Optimal | Strategy::LinguaLinked | Strategy::LinguaLinkedBestFirst);
        if rules.enabled && !is_balanced {
            outcome.balance = not_asked("Disabled", format!("the strategy {strategy:?} is kept as it is"));
            return outcome;
        }
        let priced = settled.as_ref().and_then(|settled| reprice(&settled.problem, &current));
        let (Some(settled), Some(priced), true) = (settled, priced, self.is_measured(serving)) else {
            let message = "not every phone of the plan is measured and may take segments now".to_owned();
            outcome.balance = not_asked("NotMeasured", message);
            return outcome;
        };
        let is_published = problem::balancer(&self.deployment.spec) == BalancingStrategy::LinguaLinked;
        let shifted = if is_published {
            published_balancer_step(&settled.problem, &current)
        } else {
            Some(best_shift(&settled.problem, &current)).filter(|plan| !plan.places_like(&current))
        };
        let whole = if rules.enabled && !is_published {
            self.whole_plan(resolved, &excluded, &without, serving, &current)
        } else {
            Ok(None)
        };
        // While the planner is at it, what was said before stands.
        let Ok(whole) = whole else { return outcome };
        // Sessions are half-way through what they may hold, as a rule.
        let live_tokens = settled.problem.demand.kv_tokens() / 2;
        let offer = |plan: &Plan, asked: &Asked, fits: bool| Offer {
            objective: plan.objective_value,
            fits,
            move_seconds: LEAST_SECONDS + cost_of_move(&asked.problem, &priced, plan.clone(), live_tokens).seconds,
        };
        let mut rules = rules.clone();
        if is_published {
            // The published balancer asks for no gain.
            rules.minimum_gain_percent = 0;
        }
        let scene = Scene {
            rules,
            age_seconds: self.age_seconds(serving),
            // Nor does it wait longer each time.
            moves: if is_published { 0 } else { moves(serving) },
            imbalanced_seconds: self.imbalanced_seconds(serving),
            serving_objective: priced.objective_value,
            is_under_floor: is_under_floor(&settled.problem, &priced),
            promises: promise(&self.deployment.spec),
            shift: shifted
                .as_ref()
                .filter(|plan| !is_under_floor(&settled.problem, plan))
                .map(|plan| offer(plan, &settled, true)),
            whole: whole.as_ref().map(|whole| offer(&whole.plan, &whole.asked, whole.fits)),
        };
        let judgement = weigh(&scene);
        outcome.balance = Some(judgement.statement);
        let chosen = match judgement.to_do {
            None => return outcome,
            Some(Move::Shift) => shifted.map(|plan| (plan, settled)),
            Some(Move::Whole) => whole.map(|whole| (whole.plan, whole.asked)),
        };
        let may_write = self.draft.is_none() && !self.gives_way && self.refused(serving.replica).is_none();
        let Some((plan, asked)) = chosen.filter(|_| may_write) else { return outcome };
        let in_force = Problem { previous: Some(current.clone()), ..asked.problem.clone() };
        if let Err(violation) = check(&in_force, &plan) {
            let message = format!("the plan that layers were to move to breaks the planner's own rules: {violation}");
            outcome.balance = not_asked("PlanRejected", message);
            return outcome;
        }
        let (plan, priced) = (asked.as_expected(plan), asked.as_expected(priced));
        let why = cause(&current, &priced, &plan, &asked, serving);
        let numerics_class = serving.numerics_class().to_owned();
        let planned = Planned { plan, numerics_class, asked };
        let created =
            self.create(serving.replica, &Told::Rebalanced(why), &planned, resolved, Some(serving), Some(serving));
        Outcome {
            balance: outcome.balance,
            predicted_tokens_per_second: outcome.predicted_tokens_per_second,
            ..created
        }
    }

    /// What the planner is asked for phones of the serving plan's arithmetic; `None` when one of its phones takes nothing.
    fn asked(
        &self,
        resolved: &'a Resolved,
        excluded: &BTreeSet<String>,
        taken: &Taken<'_>,
        within: Option<&[&str]>,
        serving: &Generation<'_>,
        figures: Figures,
    ) -> Option<Asked> {
        let request = self.request(resolved, excluded, taken, within);
        let mut problems = problem::problems(self.observed, &request, figures);
        let asked = problems.remove(serving.numerics_class())?;
        let is_there = |phone: &&str| asked.problem.phones.iter().any(|costs| costs.name == **phone);
        serving.phones().iter().all(is_there).then_some(asked)
    }

    /// The best plan of all: with the serving plan's memory where it fits beside that all the same, else without. `None` where no other
    /// is as good as what serves.
    ///
    /// # Errors
    /// When the planner is still at it.
    fn whole_plan(
        &self,
        resolved: &'a Resolved,
        excluded: &BTreeSet<String>,
        without: &Taken<'_>,
        serving: &Generation<'a>,
        current: &Plan,
    ) -> Result<Option<Whole>, Unplanned> {
        let rule = problem::rule(self.deployment.spec.placement.strategy);
        let deployment = ObjectKey::of(self.deployment).to_string();
        let ask = |taken: &Taken<'_>| {
            let Some(mut asked) = self.asked(resolved, excluded, taken, None, serving, Figures::Settled) else {
                return Ok(None);
            };
            asked.problem.previous = Some(current.clone());
            match (self.planner)(Question { deployment: &deployment, rule, problem: &asked.problem }) {
                Ok(plan) => Ok(Some((plan, asked)).filter(|(plan, _)| !plan.places_like(current))),
                Err(Unplanned::Infeasible(_)) => Ok(None),
                Err(underway) => Err(underway),
            }
        };
        let Some((ideal, asked)) = ask(without)? else { return Ok(None) };
        if let Some(plan) = self.beside(resolved, serving, &asked, ideal.clone()) {
            return Ok(Some(Whole { plan, asked, fits: true }));
        }
        Ok(Some(match ask(&self.ledger.all())? {
            Some((plan, asked)) => Whole { plan, asked, fits: true },
            None => Whole { plan: ideal, asked, fits: false },
        }))
    }

    /// The plan, without what stands by where there is no room for that; `None` when it does not fit beside the serving one.
    fn beside(&self, resolved: &Resolved, serving: &Generation<'a>, asked: &Asked, mut plan: Plan) -> Option<Plan> {
        for _ in 0..=plan.stages.len() {
            let planned = Planned {
                plan: plan.clone(),
                numerics_class: serving.numerics_class().to_owned(),
                asked: asked.clone(),
            };
            let number = self.next_generation;
            let made = segments::placements(self.deployment, serving.replica, number, &planned, resolved, None);
            let taken = self.ledger.all().and(made.iter().map(|placement| ledger::claim(self.observed, placement)));
            let is_over = |stage: &&mut Stage| {
                let budget = self.observed.budget_bytes(&stage.phone, asked.problem.demand.memory_fraction);
                taken.bytes(&stage.phone) > budget.unwrap_or(0)
            };
            let over: Vec<&mut Stage> = plan.stages.iter_mut().filter(is_over).collect();
            if over.is_empty() {
                return Some(plan);
            }
            for stage in over {
                stage.standby.take()?;
                stage.standby_bytes = 0;
            }
        }
        None
    }

    /// Whether every phone of the generation has timed its layers.
    fn is_measured(&self, generation: &Generation<'_>) -> bool {
        let report = |segment: &polyphony_api::SegmentPlacement| self.observed.report_of(segment);
        generation
            .segments
            .iter()
            .all(|segment| report(segment).is_some_and(|report| report.seconds_per_layer.is_some()))
    }

    /// Moves in a row, with one from the serving plan.
    pub(super) fn moves_with_one_more(&self, serving: &Generation<'_>) -> u32 {
        self.moves_of_late(serving).saturating_add(1)
    }

    /// Moves in a row that led to a generation; none when it has been quiet for long. A plan made for another reason does not end the row.
    pub(super) fn moves_of_late(&self, generation: &Generation<'_>) -> u32 {
        let cool_down = cool_down_seconds(&self.deployment.spec.load_balancing, moves(generation));
        if self.age_seconds(generation) >= cool_down * QUIET_COOL_DOWNS { 0 } else { moves(generation) }
    }

    /// A plan of the future is as old as can be: a clock was set back, and it must not cool down for years.
    fn age_seconds(&self, generation: &Generation<'_>) -> i64 {
        let made = generation.segments.iter().filter_map(|segment| segment.metadata.creation_timestamp.as_ref()).max();
        made.map_or(0, |made| seconds_since(made.0, self.observed.now).unwrap_or(i64::MAX))
    }

    /// Since when a better plan has been known for this ring; the condition of its head remembers it.
    fn imbalanced_seconds(&self, serving: &Generation<'_>) -> Option<i64> {
        let status = serving.segments.first()?.status.as_ref()?;
        let balanced = condition::find(&status.conditions, "Balanced").filter(|found| found.status == "False")?;
        Some(seconds_since(balanced.last_transition_time.0, self.observed.now).unwrap_or(i64::MAX))
    }
}

/// The best plan of all, what was asked for it, and whether there is room for it beside the serving one.
struct Whole {
    plan: Plan,
    asked: Asked,
    fits: bool,
}

/// Whether a session gets fewer tokens a second than are asked for, beyond what rounding makes of a plan that is just fast enough.
fn is_under_floor(problem: &Problem, plan: &Plan) -> bool {
    let limit = problem.demand.round_limit_seconds();
    limit.is_some_and(|limit| plan.predicted_inter_token_seconds > limit * (1.0 + 1e-6))
}

fn promise(spec: &InferenceDeploymentSpec) -> Promise {
    match (spec.objective, spec.prompt_tokens) {
        (Objective::Efficiency, _) => Promise::TokensOfAJoule,
        (Objective::Latency | Objective::Throughput, None) => Promise::Tokens,
        (Objective::Latency | Objective::Throughput, Some(_)) => Promise::Answers,
    }
}

/// Moves that led to the generation one soon after the other.
fn moves(generation: &Generation<'_>) -> u32 {
    generation.segments.iter().map(|segment| segment.spec.moves).max().unwrap_or(0)
}

/// A generation as the planner would have written it; what it predicts is for [`reprice`] to say.
fn plan_of(generation: &Generation<'_>) -> Plan {
    let stage = |segment: &&polyphony_api::SegmentPlacement| {
        let spec = &segment.spec;
        Stage {
            phone: spec.phone.clone(),
            holds: Holds {
                embedding: spec.holds.embedding,
                layers_from: spec.holds.from,
                layers_to: spec.holds.to,
                head: spec.holds.head,
            },
            bytes: spec.planned_bytes,
            standby: spec.standby.as_ref().map(|kept| (kept.from, kept.to)),
            standby_bytes: 0,
            predicted_seconds: 0.0,
            predicted_hop_seconds: 0.0,
            predicted_joules: None,
            are_watts_assumed: false,
        }
    };
    Plan {
        stages: generation.segments.iter().map(stage).collect(),
        objective_value: 0.0,
        predicted_tokens_per_second: 0.0,
        predicted_inter_token_seconds: 0.0,
        predicted_joules_per_token: None,
        session_groups: generation.segments.first().map_or(0, |segment| segment.spec.session_groups),
        bound: Bound::Sessions { max_sessions: 0 },
        gap: f64::INFINITY,
        method: Method::Heuristic,
        left_out: Vec::new(),
    }
}

/// Why layers move, for people: who became slower or faster, and what is expected.
fn cause(from: &Plan, priced: &Plan, to: &Plan, asked: &Asked, serving: &Generation<'_>) -> String {
    let changed = serving.segments.iter().filter_map(|segment| {
        let planned = segment.spec.planned_layer_microseconds as f64 / 1e3;
        let now = asked.alone(&segment.spec.phone)? * 1e3;
        let is_news = planned > 0.0 && (now - planned).abs() > 0.01 * planned;
        is_news.then(|| format!("{} takes {now:.2} ms a layer, {planned:.2} were planned", segment.spec.phone))
    });
    let mut parts: Vec<String> = changed.collect();
    if parts.is_empty() {
        parts.push("there is a better plan now".to_owned());
    }
    let spans = |plan: &Plan| {
        let span = |stage: &Stage| {
            format!("{} {}-{}", stage.phone, stage.holds.layers_from, stage.holds.layers_to.saturating_sub(1))
        };
        plan.stages.iter().map(span).collect::<Vec<_>>().join(", ")
    };
    let joules = match (to.predicted_joules_per_token, priced.predicted_joules_per_token) {
        (Some(to), Some(from)) => format!(", {to:.3} J a token instead of {from:.3}"),
        _ => String::new(),
    };
    format!(
        "{}; layers of {} become {}: {:.1} tokens/s expected instead of {:.1}{joules}",
        parts.join(", "),
        spans(from),
        spans(to),
        1.0 / to.predicted_inter_token_seconds.max(1e-9),
        1.0 / priced.predicted_inter_token_seconds.max(1e-9),
    )
}
