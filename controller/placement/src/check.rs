//! The checker: judges a plan against its problem with arithmetic of its own. It shares no code with the
//! solvers, so that one mistake does not hide another.

mod claims;
mod joules;

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Bound, Method, Plan, Stage};
use crate::problem::{Link, MAX_SECONDS, MIN_LAYER_SECONDS, Objective, PhoneCosts, Problem};
use claims::{Reading, best_throughput, check_bound, check_gap, check_groups};
use joules::{check_joules, weighted_joules};

/// Predictions may differ from the checker's by this part, for the order of sums.
const TOLERANCE: f64 = 1e-6;

/// What is wrong with a plan. It must not be carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Violation {
    #[error("the plan has no stages")]
    Empty,
    #[error("stage {stage} names {phone}, which is not among the problem's phones")]
    UnknownPhone { stage: usize, phone: String },
    #[error("{phone} holds two stages, one is the most")]
    PhoneTwice { phone: String },
    #[error("stage {stage} holds layers {from}..{to}, expected at least one")]
    EmptyStage { stage: usize, from: u32, to: u32 },
    #[error("stage {stage} starts at layer {from}, expected {expected}")]
    NotContiguous { stage: usize, from: u32, expected: u32 },
    #[error("the last stage ends at layer {to}, the model has {n_layers}")]
    LayersMissing { to: u32, n_layers: usize },
    #[error(
        "stage {stage} has embedding: {embedding} and head: {head}, but the first alone holds the embedding and the last alone the head"
    )]
    EndMisplaced { stage: usize, embedding: bool, head: bool },
    #[error("{phone} would hold {bytes} bytes and may hold {budget_bytes}")]
    OverBudget { phone: String, bytes: u64, budget_bytes: u64 },
    #[error("{phone} would have layer {layer}, and layers that see text are for trusted phones")]
    NotTrusted { phone: String, layer: u32 },
    #[error(
        "{phone} would keep layers {from}..{to} ready, which must contain its own {own_from}..{own_to} and end with the model"
    )]
    Standby { phone: String, from: u32, to: u32, own_from: u32, own_to: u32 },
    #[error("{phone} would keep layer {layer} ready, which is neither a neighbour's nor in its memory already")]
    NotANeighbours { phone: String, layer: u32 },
    #[error("the plan has {n_stages} stages, expected {min_phones} to {max_phones}")]
    StageCount { n_stages: usize, min_phones: u32, max_phones: u32 },
    #[error("{from} cannot reach {to}")]
    Unreachable { from: String, to: String },
    #[error("{phone} has figures outside of what can be believed")]
    UnusableFigures { phone: String },
    #[error("{what} is stated as {stated}, expected {expected}")]
    WrongFigure { what: String, stated: f64, expected: f64 },
    #[error(
        "a session gets {tokens_per_second} tokens/s, and spec.minTokensPerSecond asks for {min_tokens_per_second}"
    )]
    UnderFloor { tokens_per_second: f64, min_tokens_per_second: f64 },
    #[error("{n_sessions} sessions cannot travel in {groups} groups")]
    SessionGroups { groups: u32, n_sessions: u32 },
    #[error("a token takes {seconds} s with the sessions in {groups} groups, and {best_seconds} s is the best")]
    WorseGroups { groups: u32, seconds: f64, best_seconds: f64 },
    #[error("the plan is stated as {method:?} with a gap of {gap}")]
    Gap { method: Method, gap: f64 },
    #[error("no objective is said to be below {least}, and that of {phone} alone is {found}")]
    BetterAlone { phone: String, found: f64, least: f64 },
    #[error("the plan is said to be bound by {bound}, and it is not")]
    NotBound { bound: Bound },
    #[error("{phone} is neither in a stage nor stated as left out, or is in both")]
    LeftOut { phone: String },
}

/// Judges `plan` against every constraint of `problem`, and its predictions against the problem's figures.
///
/// # Errors
/// The first violation found.
pub fn check(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let phones = stages_phones(problem, plan)?;
    check_counts(problem, plan)?;
    check_layers(problem, plan)?;
    check_trust(problem, plan, &phones)?;
    check_memory(problem, plan, &phones)?;
    check_standby(problem, plan)?;
    let ring = check_predictions(problem, plan, &phones)?;
    check_joules(problem, plan, &phones)?;
    check_floor(problem, &ring)?;
    check_groups(problem, plan, &ring)?;
    check_gap(problem, plan)?;
    check_bound(problem, plan, &phones, &ring)?;
    check_left_out(problem, plan)
}

/// The index of each stage's phone.
fn stages_phones(problem: &Problem, plan: &Plan) -> Result<Vec<usize>, Violation> {
    if plan.stages.is_empty() {
        return Err(Violation::Empty);
    }
    let mut seen = BTreeSet::new();
    let mut phones = Vec::new();
    for (stage, Stage { phone, .. }) in plan.stages.iter().enumerate() {
        let Some(index) = problem.phones.iter().position(|known| known.name == *phone) else {
            return Err(Violation::UnknownPhone { stage, phone: phone.clone() });
        };
        if !seen.insert(index) {
            return Err(Violation::PhoneTwice { phone: phone.clone() });
        }
        phones.push(index);
    }
    Ok(phones)
}

fn check_counts(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let (min_phones, max_phones) = (problem.demand.min_phones, problem.demand.max_phones);
    let n_stages = plan.stages.len();
    if n_stages < min_phones as usize || n_stages > max_phones as usize {
        return Err(Violation::StageCount { n_stages, min_phones, max_phones });
    }
    Ok(())
}

fn check_layers(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let last = plan.stages.len() - 1;
    let mut expected = 0;
    for (stage, Stage { holds, .. }) in plan.stages.iter().enumerate() {
        if holds.layers_from != expected {
            return Err(Violation::NotContiguous { stage, from: holds.layers_from, expected });
        }
        if holds.layers_to <= holds.layers_from {
            return Err(Violation::EmptyStage { stage, from: holds.layers_from, to: holds.layers_to });
        }
        if holds.embedding != (stage == 0) || holds.head != (stage == last) {
            return Err(Violation::EndMisplaced { stage, embedding: holds.embedding, head: holds.head });
        }
        expected = holds.layers_to;
    }
    let n_layers = problem.model.layer_bytes.len();
    if expected as usize != n_layers {
        return Err(Violation::LayersMissing { to: expected, n_layers });
    }
    Ok(())
}

/// Where text is read and written, phones are trusted: also with what stands by.
fn check_trust(problem: &Problem, plan: &Plan, phones: &[usize]) -> Result<(), Violation> {
    let ends = [0, problem.model.layer_bytes.len() as u32 - 1];
    let seeing = || ends.into_iter().chain(problem.model.second_embedding);
    for (stage, &phone) in plan.stages.iter().zip(phones) {
        let (from, to) = stage.standby.unwrap_or((stage.holds.layers_from, stage.holds.layers_to));
        let seen = seeing().find(|layer| (from..to).contains(layer));
        if let Some(layer) = seen.filter(|_| !problem.phones[phone].is_trusted) {
            return Err(Violation::NotTrusted { phone: stage.phone.clone(), layer });
        }
    }
    Ok(())
}

fn check_memory(problem: &Problem, plan: &Plan, phones: &[usize]) -> Result<(), Violation> {
    let (model, demand) = (&problem.model, &problem.demand);
    let kv_bytes_per_layer = u128::from(model.kv_bytes_per_token_per_layer)
        * u128::from(demand.context_length)
        * u128::from(demand.max_sessions);
    for (stage, &phone) in plan.stages.iter().zip(phones) {
        let holds = stage.holds;
        let layers = &model.layer_bytes[holds.layers_from as usize..holds.layers_to as usize];
        let mut bytes = u128::from(model.activation_bytes);
        for &layer in layers {
            bytes += u128::from(layer) + kv_bytes_per_layer;
        }
        if holds.embedding {
            bytes += u128::from(model.embedding_bytes);
        }
        if holds.head {
            bytes += u128::from(model.head_bytes);
        }
        if holds.embedding && holds.head {
            bytes -= u128::from(model.shared_bytes).min(bytes);
        }
        if u128::from(stage.bytes) != bytes {
            let what = format!("bytes of {}", stage.phone);
            return Err(Violation::WrongFigure { what, stated: stage.bytes as f64, expected: bytes as f64 });
        }
        let (from, to) = stage.standby.unwrap_or((holds.layers_from, holds.layers_to));
        if from > holds.layers_from || to < holds.layers_to || to as usize > model.layer_bytes.len() {
            let (own_from, own_to) = (holds.layers_from, holds.layers_to);
            return Err(Violation::Standby { phone: stage.phone.clone(), from, to, own_from, own_to });
        }
        let beside = (from..holds.layers_from).chain(holds.layers_to..to);
        let standby_bytes: u128 =
            beside.map(|layer| u128::from(model.layer_bytes[layer as usize]) + kv_bytes_per_layer).sum();
        if u128::from(stage.standby_bytes) != standby_bytes {
            let what = format!("standby bytes of {}", stage.phone);
            let (stated, expected) = (stage.standby_bytes as f64, standby_bytes as f64);
            return Err(Violation::WrongFigure { what, stated, expected });
        }
        let allocatable = problem.phones[phone].allocatable_bytes as f64;
        let budget_bytes = (allocatable * demand.memory_fraction / demand.generations_in_memory) as u64;
        let all_bytes = stage.bytes.saturating_add(stage.standby_bytes);
        if all_bytes > budget_bytes {
            return Err(Violation::OverBudget { phone: stage.phone.clone(), bytes: all_bytes, budget_bytes });
        }
    }
    Ok(())
}

/// What stands by is a neighbour's, or what the plan in force has the phone keep already.
fn check_standby(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    for (at, stage) in plan.stages.iter().enumerate() {
        let Some((from, to)) = stage.standby else { continue };
        let kept = problem.previous.as_ref().and_then(|previous| previous.stage_of(&stage.phone)).map(|before| {
            let (from, to) = before.standby.unwrap_or((before.holds.layers_from, before.holds.layers_to));
            from..to
        });
        let left = at.checked_sub(1).map(|left| plan.stages[left].holds);
        let right = plan.stages.get(at + 1).map(|right| right.holds);
        let is_of = |neighbour: Option<crate::Holds>, layer: u32| {
            neighbour.is_some_and(|holds| (holds.layers_from..holds.layers_to).contains(&layer))
        };
        let is_foreign = |layer: &u32| {
            let is_neighbours =
                if *layer < stage.holds.layers_from { is_of(left, *layer) } else { is_of(right, *layer) };
            !is_neighbours && !kept.as_ref().is_some_and(|kept| kept.contains(layer))
        };
        let beside = (from..stage.holds.layers_from).chain(stage.holds.layers_to..to);
        if let Some(layer) = beside.into_iter().find(is_foreign) {
            return Err(Violation::NotANeighbours { phone: stage.phone.clone(), layer });
        }
    }
    Ok(())
}

/// What is to be believed of the way between two phones.
fn link_between(problem: &Problem, from: usize, to: usize) -> Link {
    let access = |phone: usize| problem.links.access.get(phone).copied().flatten();
    match (problem.links.measured.get(&(from, to)), access(from), access(to)) {
        (Some(measured), _, _) => *measured,
        (None, Some(from), Some(to)) => Link {
            latency_seconds: from.delay_seconds + to.delay_seconds,
            bytes_per_second: from.bytes_per_second.min(to.bytes_per_second),
        },
        (None, _, _) => problem.links.default,
    }
}

fn check_predictions(problem: &Problem, plan: &Plan, phones: &[usize]) -> Result<RingTimes, Violation> {
    let mut round = 0.0;
    let mut steps = Vec::new();
    for (at, stage) in plan.stages.iter().enumerate() {
        let costs = &problem.phones[phones[at]];
        let PhoneCosts { seconds_per_layer, seconds_per_step, seconds_embedding, seconds_head, .. } = *costs;
        let further = [costs.seconds_per_layer_per_further_row, costs.seconds_head_per_further_row];
        let [further_layer, further_head] = further.map(|seconds| seconds.unwrap_or(0.0));
        let figures = [
            seconds_per_layer - MIN_LAYER_SECONDS,
            seconds_per_step,
            seconds_embedding,
            seconds_head,
            further_layer,
            further_head,
        ];
        if figures.iter().any(|f| !f.is_finite() || *f < 0.0 || *f > MAX_SECONDS) {
            return Err(Violation::UnusableFigures { phone: stage.phone.clone() });
        }
        let n_layers = f64::from(stage.holds.layers_to - stage.holds.layers_from);
        let seconds = seconds_per_step
            + n_layers * seconds_per_layer
            + if stage.holds.embedding { seconds_embedding } else { 0.0 }
            + if stage.holds.head { seconds_head } else { 0.0 };
        equal(|| format!("stage seconds of {}", stage.phone), stage.predicted_seconds, seconds)?;

        let next = (at + 1) % phones.len();
        let link = link_between(problem, phones[at], phones[next]);
        let wire = if next == 0 { 0.0 } else { problem.model.hop_bytes as f64 / link.bytes_per_second };
        let hop = match (phones.len(), next) {
            (1, _) => 0.0,
            // The token: a few bytes.
            (_, 0) => link.latency_seconds,
            _ => link.latency_seconds + wire,
        };
        if !(hop >= 0.0 && wire >= 0.0 && hop <= MAX_SECONDS) {
            let (from, to) = (stage.phone.clone(), plan.stages[next].phone.clone());
            return Err(Violation::Unreachable { from, to });
        }
        equal(|| format!("hop seconds of {}", stage.phone), stage.predicted_hop_seconds, hop)?;
        round += seconds + hop;
        steps.push(Step {
            first_row: seconds,
            further_row: n_layers * costs.seconds_per_layer_per_further_row.unwrap_or(seconds_per_layer)
                + if stage.holds.head { costs.seconds_head_per_further_row.unwrap_or(seconds_head) } else { 0.0 },
            wire,
            hop: if next == 0 { 0.0 } else { hop },
            prompt_row: n_layers * prompt_row_seconds(costs),
            prompt_besides: seconds_per_step + if stage.holds.embedding { seconds_embedding } else { 0.0 },
            head: if stage.holds.head { seconds_head } else { 0.0 },
        });
    }
    let ring = RingTimes { steps, round };
    equal(|| "inter-token seconds".to_owned(), plan.predicted_inter_token_seconds, round)?;
    equal(|| "the objective".to_owned(), plan.objective_value, objective(problem, phones, &ring))?;
    let of_tokens = seconds_per_token(problem, &ring);
    equal(|| "tokens/s".to_owned(), plan.predicted_tokens_per_second, 1.0 / of_tokens)?;
    Ok(ring)
}

/// What is minimised of a ring of these phones, in seconds or joules.
fn objective(problem: &Problem, phones: &[usize], ring: &RingTimes) -> f64 {
    match (Reading::of(&problem.demand), problem.demand.objective) {
        (reading, Objective::Efficiency) => {
            let busy = reading.map(|reading| reading.beside(ring));
            weighted_joules(problem, phones, busy.as_ref().unwrap_or(ring))
        }
        (None, _) => seconds_per_token(problem, ring),
        (Some(reading), Objective::Latency) => ring.round + reading.weight * reading.seconds(ring),
        (Some(reading), Objective::Throughput) => seconds_per_token(problem, &reading.beside(ring)),
    }
}

/// Seconds a token of all sessions, without their prompts.
fn seconds_per_token(problem: &Problem, ring: &RingTimes) -> f64 {
    match problem.demand.objective {
        Objective::Latency | Objective::Efficiency => ring.round,
        Objective::Throughput => best_throughput(problem.demand.max_sessions.max(1), &ring.steps, ring.round),
    }
}

/// A session is as fast as is asked for.
fn check_floor(problem: &Problem, ring: &RingTimes) -> Result<(), Violation> {
    let tokens_per_second = 1.0 / ring.round;
    match problem.demand.min_tokens_per_second {
        Some(min_tokens_per_second) if tokens_per_second < min_tokens_per_second * (1.0 - TOLERANCE) => {
            Err(Violation::UnderFloor { tokens_per_second, min_tokens_per_second })
        }
        _ => Ok(()),
    }
}

/// Prefill: one token through one layer; as slow as decoding, where no figure can be believed.
fn prompt_row_seconds(costs: &PhoneCosts) -> f64 {
    let seconds = costs.prefill_seconds_per_layer_per_token;
    if seconds.is_finite() && (0.0..=MAX_SECONDS).contains(&seconds) { seconds } else { costs.seconds_per_layer }
}

/// Seconds of all stages and of a round of one session.
struct RingTimes {
    steps: Vec<Step>,
    round: f64,
}

/// Seconds of one stage and of its hop.
struct Step {
    first_row: f64,
    further_row: f64,
    /// Of one row.
    wire: f64,
    /// Of one row, to the next stage; the token's way back is none.
    hop: f64,
    /// Prefill: of one row, and of a chunk whatever its rows.
    prompt_row: f64,
    prompt_besides: f64,
    /// Of the output matrix, once.
    head: f64,
}

fn equal(what: impl FnOnce() -> String, stated: f64, expected: f64) -> Result<(), Violation> {
    let near = (stated - expected).abs() <= TOLERANCE * expected.abs();
    if near { Ok(()) } else { Err(Violation::WrongFigure { what: what(), stated, expected }) }
}

fn check_left_out(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    let placed = plan.stages.iter().map(|stage| &stage.phone);
    for phone in placed.chain(plan.left_out.iter().map(|out| &out.phone)) {
        *times.entry(phone).or_default() += 1;
    }
    match problem.phones.iter().find(|phone| times.get(phone.name.as_str()) != Some(&1)) {
        Some(phone) => Err(Violation::LeftOut { phone: phone.name.clone() }),
        None => Ok(()),
    }
}
