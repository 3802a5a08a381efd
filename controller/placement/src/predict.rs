//! From a ring to a plan: what each stage holds, what is expected of it, and what binds.

mod joules;

use crate::costs::{Costs, Ring, Score};
use crate::plan::{Bound, Holds, LeftOut, Method, Plan, Stage, WhyLeftOut};
use crate::problem::{Objective, Problem};

/// The plan that carries out `ring`.
pub(crate) fn plan_of(costs: &Costs<'_>, ring: &Ring, method: Method, gap: f64) -> Plan {
    let problem = costs.problem;
    // Of a plan in force it is told what it takes, whatever it should.
    let (grouped, score) = costs.unlimited().judge(ring);
    let objective_value = score.objective / grouped.rows;
    let limited = costs;
    // What tokens take, whatever their prompts do; and what a person sees of one session: steps of one row.
    let of_tokens = costs.clone().of_tokens_alone();
    let (at, of_all) = of_tokens.judge(ring);
    let costs = &of_tokens.clone().in_groups(problem.demand.max_sessions.max(1));
    let last = ring.phones.len() - 1;
    let mut stages = Vec::new();
    for (at, (phone, from, to)) in ring.stages().enumerate() {
        let predicted_hop_seconds = if at == last {
            costs.back_seconds(phone, ring.phones[0])
        } else {
            costs.hop_seconds(phone, ring.phones[at + 1])
        };
        stages.push(Stage {
            phone: problem.phones[phone].name.clone(),
            holds: Holds { embedding: at == 0, layers_from: from as u32, layers_to: to as u32, head: at == last },
            bytes: costs.segment_bytes(from, to),
            standby: None,
            standby_bytes: 0,
            predicted_seconds: costs.stage_seconds(phone, from, to),
            predicted_hop_seconds,
            predicted_joules: None,
            are_watts_assumed: false,
        });
    }
    let plan = Plan {
        stages,
        objective_value,
        predicted_joules_per_token: None,
        predicted_tokens_per_second: at.rows / of_all.objective,
        predicted_inter_token_seconds: costs.score(ring).round,
        session_groups: costs.best_grouping(ring),
        bound: match problem.demand.objective {
            Objective::Latency => bound_of(&at, ring, of_all),
            Objective::Throughput => bound_of(&grouped, ring, score),
            Objective::Efficiency => bound_of_joules(limited, ring),
        },
        gap,
        method,
        left_out: left_out(costs, ring),
    };
    joules::told(problem, plan)
}

/// `plan` with the layers of `spans` standing by, stage by stage; each span contains what its stage holds.
pub(crate) fn with_standby(costs: &Costs<'_>, mut plan: Plan, spans: &[(usize, usize)]) -> Plan {
    for (stage, &span) in plan.stages.iter_mut().zip(spans) {
        let own = (stage.holds.layers_from as usize, stage.holds.layers_to as usize);
        stage.standby = (own != span).then_some((span.0 as u32, span.1 as u32));
        stage.standby_bytes = costs.span_bytes(own, span).saturating_sub(stage.bytes);
    }
    plan
}

/// The plan of `ring`, whose stages are those of `plan` with other boundaries and keep the same layers in memory.
pub(crate) fn shifted(costs: &Costs<'_>, ring: &Ring, plan: &Plan) -> Plan {
    let kept = spans_of(plan);
    let span = |((_, from, to), kept): ((usize, usize, usize), &(usize, usize))| (from.min(kept.0), to.max(kept.1));
    let spans: Vec<(usize, usize)> = ring.stages().zip(&kept).map(span).collect();
    // Whatever was proven of the plan was proven of other figures or other boundaries.
    let (method, gap) = match plan.method {
        Method::Rule => (Method::Rule, f64::INFINITY),
        Method::Exact | Method::Heuristic => (Method::Heuristic, f64::INFINITY),
    };
    with_standby(costs, plan_of(costs, ring, method, gap), &spans)
}

/// The layers `[from, to)` that each stage of `plan` has in memory.
pub(crate) fn spans_of(plan: &Plan) -> Vec<(usize, usize)> {
    let kept = |stage: &Stage| stage.standby.unwrap_or((stage.holds.layers_from, stage.holds.layers_to));
    plan.stages.iter().map(kept).map(|(from, to)| (from as usize, to as usize)).collect()
}

/// The ring that `plan` places, None when a phone is gone or the plan is not one of this problem. A plan that is slower than its floor is
/// one all the same, which others are better than.
pub(crate) fn ring_of(costs: &Costs<'_>, plan: &Plan) -> Option<Ring> {
    let mut phones = Vec::new();
    let mut ends = Vec::new();
    let mut from = 0u32;
    for stage in &plan.stages {
        let phone = costs.usable.iter().copied().find(|&i| costs.problem.phones[i].name == stage.phone)?;
        if stage.holds.layers_from != from || stage.holds.layers_to <= from || phones.contains(&phone) {
            return None;
        }
        from = stage.holds.layers_to;
        phones.push(phone);
        ends.push(from as usize);
    }
    let ring = Ring { phones, ends };
    let n_stages = ring.phones.len();
    let counts = n_stages >= costs.min_stages() && n_stages <= costs.max_stages();
    let is_closed = || costs.hops_seconds(&ring.phones).is_finite();
    (counts && from as usize == costs.n_layers && costs.ring_fits(&ring) && is_closed()).then_some(ring)
}

/// Seconds until the first token of a prompt, prefilled in chunks that keep all stages busy.
///
/// The last chunk passes every stage and hop; each chunk before it adds the slowest stage's, or wire's, time for a
/// whole chunk, as in any pipeline; the last chunk may be short. A chunk is a step, so the fixed costs of stages and
/// the embedding count for each. The head's time counts once, since the last token alone gets logits.
pub fn time_to_first_token_seconds(problem: &Problem, plan: &Plan, prompt_tokens: u32, chunk_tokens: u32) -> f64 {
    if prompt_tokens == 0 {
        return 0.0;
    }
    let chunk_tokens = chunk_tokens.clamp(1, prompt_tokens);
    let n_chunks = prompt_tokens.div_ceil(chunk_tokens);
    let last_chunk = prompt_tokens - (n_chunks - 1) * chunk_tokens;
    let index = |name: &str| problem.phones.iter().position(|phone| phone.name == name);
    let (mut last_pass, mut slowest) = (0.0, 0.0f64);
    for (at, stage) in plan.stages.iter().enumerate() {
        let Some(here) = index(&stage.phone) else {
            return f64::INFINITY;
        };
        let phone = &problem.phones[here];
        let per_token = f64::from(stage.holds.n_layers()) * phone.reading_seconds();
        let besides = phone.seconds_per_step + if stage.holds.embedding { phone.seconds_embedding } else { 0.0 };
        let chunk = |n_tokens: u32| besides + f64::from(n_tokens) * per_token;
        slowest = slowest.max(chunk(chunk_tokens));
        last_pass += chunk(last_chunk);
        if stage.holds.head {
            last_pass += phone.seconds_head;
        }
        if let Some(there) = plan.stages.get(at + 1).and_then(|next| index(&next.phone)) {
            let link = problem.links.between(here, there);
            let wire = link.wire_seconds(problem.model.hop_bytes);
            slowest = slowest.max(f64::from(chunk_tokens) * wire);
            last_pass += link.delay_seconds() + f64::from(last_chunk) * wire;
        }
    }
    last_pass + f64::from(n_chunks - 1) * slowest
}

fn left_out(costs: &Costs<'_>, ring: &Ring) -> Vec<LeftOut> {
    let phones = &costs.problem.phones;
    (0..phones.len())
        .filter(|phone| !ring.phones.contains(phone))
        .map(|phone| {
            let why = if !costs.has_usable_figures(phone) {
                WhyLeftOut::UnusableFigures
            } else if costs.n_layers <= 2 && !costs.is_trusted(phone) {
                WhyLeftOut::NotTrusted
            } else if costs.usable.binary_search(&phone).is_err() {
                WhyLeftOut::TooLittleMemory
            } else {
                WhyLeftOut::NoGain
            };
            LeftOut { phone: phones[phone].name.clone(), why }
        })
        .collect()
}

fn bound_of(costs: &Costs<'_>, ring: &Ring, score: Score) -> Bound {
    let phones = &costs.problem.phones;
    let demand = &costs.problem.demand;
    let name = |phone: usize| phones[phone].name.clone();
    let (slowest, slowest_seconds) = slowest_stage(costs, ring);
    let hops = || ring.phones.windows(2).map(|pair| (pair[0], pair[1]));
    if demand.objective == Objective::Throughput {
        if slowest_seconds >= score.objective * (1.0 - 1e-9) {
            return memory_bound(costs, ring).unwrap_or(Bound::Stage { phone: name(slowest) });
        }
        let busy = hops().find(|&(from, to)| costs.wire_seconds(from, to) >= score.objective * (1.0 - 1e-9));
        return match busy {
            Some((from, to)) => Bound::Hop { from: name(from), to: name(to) },
            None => Bound::Sessions { max_sessions: demand.max_sessions },
        };
    }
    if let Some(asked) = min_phones_bound(costs, ring) {
        return asked;
    }
    if let Some(memory) = memory_bound(costs, ring) {
        return memory;
    }
    let worst_hop = hops()
        .max_by(|a, b| costs.hop_seconds(a.0, a.1).total_cmp(&costs.hop_seconds(b.0, b.1)))
        .filter(|&(from, to)| costs.hop_seconds(from, to) > slowest_seconds);
    match worst_hop {
        Some((from, to)) => Bound::Hop { from: name(from), to: name(to) },
        None => Bound::Stage { phone: name(slowest) },
    }
}

fn bound_of_joules(costs: &Costs<'_>, ring: &Ring) -> Bound {
    let bound = min_phones_bound(costs, ring).or_else(|| joules::floor_bound(costs, ring));
    bound.or_else(|| memory_bound(costs, ring)).unwrap_or_else(|| joules::dearest(costs, ring))
}

fn min_phones_bound(costs: &Costs<'_>, ring: &Ring) -> Option<Bound> {
    let is_asked = ring.phones.len() > 1 && ring.phones.len() == costs.min_stages();
    is_asked.then_some(Bound::MinPhones { min_phones: costs.problem.demand.min_phones })
}

fn slowest_stage(costs: &Costs<'_>, ring: &Ring) -> (usize, f64) {
    let mut from = 0;
    let mut worst = (ring.phones[0], 0.0);
    for (&phone, &to) in ring.phones.iter().zip(&ring.ends) {
        let seconds = costs.stage_seconds(phone, from, to);
        if seconds > worst.1 {
            worst = (phone, seconds);
        }
        from = to;
    }
    worst
}

/// The fastest phone that is full while a slower one also holds layers; where joules count, the cheapest one and a dearer one.
fn memory_bound(costs: &Costs<'_>, ring: &Ring) -> Option<Bound> {
    let per_layer = |phone: usize| costs.layer_seconds(phone);
    let slowest = ring.phones.iter().map(|&phone| per_layer(phone)).fold(0.0f64, f64::max);
    let mut from = 0;
    let mut full: Option<usize> = None;
    for (&phone, &to) in ring.phones.iter().zip(&ring.ends) {
        let more = costs.segment_bytes(from, to).saturating_add(costs.layers_bytes(to - 1, to));
        let is_full = ring.phones.len() > 1 && more > costs.budget[phone];
        let alone_or_faster = per_layer(phone) < slowest || ring.phones.iter().all(|&p| per_layer(p) == slowest);
        if is_full && alone_or_faster && full.is_none_or(|known| per_layer(phone) < per_layer(known)) {
            full = Some(phone);
        }
        from = to;
    }
    full.map(|phone| Bound::Memory { phone: costs.problem.phones[phone].name.clone() })
}
