//! Joules: what a plan's tokens take out of batteries, and what keeps them from taking less.

use crate::costs::{Costs, Ring, TIE};
use crate::plan::{Bound, Plan};
use crate::problem::{Objective, Problem, watts_of};

/// `plan` with the joules of each stage and of a token, where the problem counts them.
pub(super) fn told(problem: &Problem, mut plan: Plan) -> Plan {
    if problem.demand.objective != Objective::Efficiency {
        return plan;
    }
    let watts = watts_of(&problem.phones);
    let mut all = 0.0;
    for stage in &mut plan.stages {
        let Some(at) = problem.phones.iter().position(|phone| phone.name == stage.phone) else { continue };
        let joules = watts[at].watts * stage.predicted_seconds;
        stage.predicted_joules = Some(joules);
        stage.are_watts_assumed = watts[at].is_assumed;
        all += joules;
    }
    plan.predicted_joules_per_token = Some(all);
    plan
}

/// The floor, where one phone in another's place, or one layer elsewhere, would take fewer joules and break it; `None` where none would.
pub(super) fn floor_bound(costs: &Costs<'_>, ring: &Ring) -> Option<Bound> {
    let limit = costs.round_limit()?;
    let free = costs.at_price(0.0);
    let known = free.score(ring).objective * (1.0 - TIE);
    let n = costs.n_layers;
    let alone = costs.usable.iter().map(|&phone| Ring { phones: vec![phone], ends: vec![n] });
    let unused = || costs.usable.iter().copied().filter(|phone| !ring.phones.contains(phone));
    let exchanged = (0..ring.phones.len()).flat_map(|at| {
        unused().map(move |phone| {
            let mut other = ring.clone();
            other.phones[at] = phone;
            other
        })
    });
    let shifted = (1..ring.phones.len()).flat_map(|at| {
        [-1, 1].into_iter().map(move |by: isize| {
            let mut other = ring.clone();
            other.ends[at - 1] = other.ends[at - 1].saturating_add_signed(by);
            other
        })
    });
    let would_break = |other: Ring| {
        let score = free.score(&other);
        other.phones.len() >= costs.min_stages()
            && costs.ring_fits(&other)
            && score.objective < known
            && score.round > limit * (1.0 + TIE)
    };
    let binds = alone.chain(exchanged).chain(shifted).any(would_break);
    let min_tokens_per_second = costs.problem.demand.min_tokens_per_second?;
    binds.then_some(Bound::Floor { min_tokens_per_second })
}

/// The phone whose stage takes the most, as joules count.
pub(super) fn dearest(costs: &Costs<'_>, ring: &Ring) -> Bound {
    let joules = |&(phone, from, to): &(usize, usize, usize)| costs.stage_seconds(phone, from, to);
    let dearest = ring.stages().max_by(|a, b| joules(a).total_cmp(&joules(b)));
    let phone = dearest.map_or(ring.phones[0], |(phone, ..)| phone);
    Bound::Joules { phone: costs.problem.phones[phone].name.clone() }
}
