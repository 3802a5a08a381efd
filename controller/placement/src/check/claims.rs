//! Claims: what a plan says of itself, held against figures worked out anew: that its sessions travel in the best groups, that nothing is
//! better than its gap leaves room for, and what binds it.

use super::joules::is_dearest;
use super::{RingTimes, Step, TOLERANCE, Violation, objective, prompt_row_seconds};
use crate::plan::{Bound, Method, Plan};
use crate::problem::{Demand, MAX_SECONDS, MIN_LAYER_SECONDS, Objective, Problem};

/// The prompt that tokens are weighed with: whole chunks, and a last one that is no longer.
pub(super) struct Reading {
    pub(super) weight: f64,
    n_tokens: f64,
    n_whole: f64,
    whole: f64,
    last: f64,
}

// === impl Reading ===

impl Reading {
    pub(super) fn of(demand: &Demand) -> Option<Self> {
        let prompt = demand.prompt?;
        if prompt.n_tokens == 0 || prompt.weight <= 0.0 {
            return None;
        }
        let (n_tokens, whole) =
            (f64::from(prompt.n_tokens), f64::from(prompt.chunk_tokens.max(1).min(prompt.n_tokens)));
        let n_whole = (n_tokens / whole).ceil() - 1.0;
        Some(Self { weight: prompt.weight, n_tokens, n_whole, whole, last: n_tokens - n_whole * whole })
    }

    /// Until the first token: the last chunk through all stages and hops, and the slowest of these once for each chunk before.
    pub(super) fn seconds(&self, ring: &RingTimes) -> f64 {
        let (mut pass, mut slowest) = (0.0, 0.0f64);
        for step in &ring.steps {
            pass += step.prompt_besides + self.last * step.prompt_row + step.head;
            // A hop of one row has one row's time on the wire in it.
            pass += step.hop + (self.last - 1.0) * step.wire;
            slowest = slowest.max(step.prompt_besides + self.whole * step.prompt_row).max(self.whole * step.wire);
        }
        pass + self.n_whole * slowest
    }

    /// The ring as if each row read its part of a prompt as well.
    pub(super) fn beside(&self, ring: &RingTimes) -> RingTimes {
        let read = |step: &Step| self.weight * self.n_tokens * step.prompt_row;
        let steps = ring.steps.iter().map(|step| Step {
            first_row: step.first_row + read(step),
            further_row: step.further_row + read(step),
            ..*step
        });
        RingTimes { round: ring.round + ring.steps.iter().map(read).sum::<f64>(), steps: steps.collect() }
    }
}

/// Seconds a token of all sessions together, in the number of equal groups that suits them best: 1 to 32, or each
/// session by itself. A group of n rows takes each stage's step; the slowest of stages and wires paces the ring, unless
/// there are too few groups to fill it.
pub(super) fn best_throughput(n_sessions: u32, steps: &[Step], round: f64) -> f64 {
    groupings(n_sessions).map(|groups| throughput(n_sessions, groups, steps, round)).fold(f64::INFINITY, f64::min)
}

fn groupings(n_sessions: u32) -> impl Iterator<Item = u32> {
    (1..=n_sessions.min(32)).chain([n_sessions])
}

/// Seconds a token of all sessions together, in so many groups.
fn throughput(n_sessions: u32, groups: u32, steps: &[Step], round: f64) -> f64 {
    let rows = f64::from(n_sessions) / f64::from(groups);
    let mut whole_round = round;
    let mut pace = 0.0f64;
    for Step { first_row, further_row, wire, .. } in steps {
        let further = (rows - 1.0) * further_row;
        pace = pace.max(first_row + further).max(rows * wire);
        whole_round += further + (rows - 1.0) * wire;
    }
    // Further groups do not fill the ring as the first does: docs/placement.md.
    pace.max(whole_round / (1.0 + 0.7 * f64::from(groups - 1))) / rows
}

pub(super) fn check_groups(problem: &Problem, plan: &Plan, ring: &RingTimes) -> Result<(), Violation> {
    let n_sessions = problem.demand.max_sessions.max(1);
    let groups = plan.session_groups;
    if !groupings(n_sessions).any(|known| known == groups) {
        return Err(Violation::SessionGroups { groups, n_sessions });
    }
    let seconds = throughput(n_sessions, groups, &ring.steps, ring.round);
    let best_seconds = best_throughput(n_sessions, &ring.steps, ring.round);
    if seconds > best_seconds * (1.0 + TOLERANCE) {
        return Err(Violation::WorseGroups { groups, seconds, best_seconds });
    }
    Ok(())
}

/// What the gap says, that nothing is better than it leaves room for, is held against each phone by itself.
pub(super) fn check_gap(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let Plan { method, gap, .. } = *plan;
    if gap.is_nan() || gap < 0.0 || (method == Method::Exact && gap != 0.0) {
        return Err(Violation::Gap { method, gap });
    }
    let demand = &problem.demand;
    // Of the rules of others, and of boundaries that were moved, nothing is proven.
    if demand.min_phones > 1 || gap.is_infinite() {
        return Ok(());
    }
    let least = plan.objective_value / (1.0 + gap);
    for (at, phone) in problem.phones.iter().enumerate() {
        let Some(found) = alone(problem, at) else { continue };
        if found < least * (1.0 - TOLERANCE) {
            return Err(Violation::BetterAlone { phone: phone.name.clone(), found, least });
        }
    }
    Ok(())
}

/// The objective of a ring of this phone alone; `None` where it is none.
fn alone(problem: &Problem, at: usize) -> Option<f64> {
    let (model, demand, phone) = (&problem.model, &problem.demand, &problem.phones[at]);
    let n_layers = model.layer_bytes.len();
    let kv_bytes_per_layer = u128::from(model.kv_bytes_per_token_per_layer)
        * u128::from(demand.context_length)
        * u128::from(demand.max_sessions);
    let weights: u128 = model.layer_bytes.iter().map(|&bytes| u128::from(bytes) + kv_bytes_per_layer).sum();
    let ends = u128::from(model.embedding_bytes) + u128::from(model.head_bytes);
    let bytes = weights + ends.saturating_sub(u128::from(model.shared_bytes)) + u128::from(model.activation_bytes);
    let budget = (phone.allocatable_bytes as f64 * demand.memory_fraction / demand.generations_in_memory) as u128;
    let further_layer = phone.seconds_per_layer_per_further_row.unwrap_or(phone.seconds_per_layer);
    let further_head = phone.seconds_head_per_further_row.unwrap_or(phone.seconds_head);
    let figures = [phone.seconds_per_step, phone.seconds_embedding, phone.seconds_head, further_layer, further_head];
    let is_believed = (MIN_LAYER_SECONDS..=MAX_SECONDS).contains(&phone.seconds_per_layer)
        && figures.iter().all(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    if bytes > budget || !is_believed || !phone.is_trusted {
        return None;
    }
    let first_row = phone.seconds_per_step
        + phone.seconds_embedding
        + phone.seconds_head
        + n_layers as f64 * phone.seconds_per_layer;
    let step = Step {
        first_row,
        further_row: n_layers as f64 * further_layer + further_head,
        wire: 0.0,
        hop: 0.0,
        prompt_row: n_layers as f64 * prompt_row_seconds(phone),
        prompt_besides: phone.seconds_per_step + phone.seconds_embedding,
        head: phone.seconds_head,
    };
    let ring = RingTimes { steps: vec![step], round: first_row };
    super::check_floor(problem, &ring).ok()?;
    Some(objective(problem, &[at], &ring))
}

/// Whether what is said to keep the plan from being better does.
pub(super) fn check_bound(problem: &Problem, plan: &Plan, phones: &[usize], ring: &RingTimes) -> Result<(), Violation> {
    let reading = Reading::of(&problem.demand).filter(|_| problem.demand.objective != Objective::Latency);
    let busy = reading.map(|reading| reading.beside(ring));
    let ring = busy.as_ref().unwrap_or(ring);
    let at = |name: &str| plan.stages.iter().position(|stage| stage.phone == name);
    let is_true = match &plan.bound {
        Bound::Memory { phone } => at(phone).is_some_and(|at| phones.len() > 1 && is_full(problem, plan, phones, at)),
        Bound::MinPhones { min_phones } => {
            *min_phones == problem.demand.min_phones && plan.stages.len() == (*min_phones).max(1) as usize
        }
        Bound::Stage { phone } => at(phone).is_some_and(|at| is_slowest(problem, &ring.steps, ring.round, at)),
        Bound::Floor { min_tokens_per_second } => {
            problem.demand.min_tokens_per_second == Some(*min_tokens_per_second)
                && problem.demand.objective == Objective::Efficiency
        }
        Bound::Joules { phone } => at(phone).is_some_and(|at| is_dearest(problem, phones, ring, at)),
        Bound::Hop { from, to } => match (at(from), at(to)) {
            (Some(from), Some(to)) if from + 1 == to => {
                let longest = |of: fn(&Step) -> f64| {
                    let most = ring.steps.iter().map(of).fold(0.0, f64::max);
                    of(&ring.steps[from]) >= most * (1.0 - TOLERANCE)
                };
                match problem.demand.objective {
                    Objective::Latency => longest(|step| step.hop),
                    // Hops take no joules.
                    Objective::Efficiency => false,
                    Objective::Throughput => longest(|step| step.wire),
                }
            }
            _ => false,
        },
        Bound::Sessions { max_sessions } => {
            *max_sessions == problem.demand.max_sessions && problem.demand.objective == Objective::Throughput
        }
    };
    if is_true { Ok(()) } else { Err(Violation::NotBound { bound: plan.bound.clone() }) }
}

/// Whether one layer more, as large as its last one, would not fit.
fn is_full(problem: &Problem, plan: &Plan, phones: &[usize], at: usize) -> bool {
    let (model, demand) = (&problem.model, &problem.demand);
    let stage = &plan.stages[at];
    let kv_bytes = u128::from(model.kv_bytes_per_token_per_layer)
        * u128::from(demand.context_length)
        * u128::from(demand.max_sessions);
    let last = model.layer_bytes[stage.holds.layers_to as usize - 1];
    let allocatable = problem.phones[phones[at]].allocatable_bytes as f64;
    let budget = (allocatable * demand.memory_fraction / demand.generations_in_memory) as u128;
    u128::from(stage.bytes) + u128::from(last) + kv_bytes > budget
}

/// Whether no stage takes longer: of one row for Latency, and in groups that suit all sessions for Throughput.
fn is_slowest(problem: &Problem, steps: &[Step], round: f64, at: usize) -> bool {
    let n_sessions = problem.demand.max_sessions.max(1);
    let is_slowest_of = |rows: f64| {
        let seconds = |step: &Step| step.first_row + (rows - 1.0) * step.further_row;
        let most = steps.iter().map(seconds).fold(0.0, f64::max);
        seconds(&steps[at]) >= most * (1.0 - TOLERANCE)
    };
    match problem.demand.objective {
        Objective::Efficiency => false,
        Objective::Latency => is_slowest_of(1.0),
        Objective::Throughput => {
            let best = best_throughput(n_sessions, steps, round);
            let as_good = |groups: &u32| throughput(n_sessions, *groups, steps, round) <= best * (1.0 + TOLERANCE);
            groupings(n_sessions).filter(as_good).any(|groups| is_slowest_of(f64::from(n_sessions) / f64::from(groups)))
        }
    }
}
