//! Joules, worked out anew: watts that were measured, or the middle ones of those that were, times seconds.

use super::{RingTimes, Step, TOLERANCE, Violation, equal};
use crate::plan::Plan;
use crate::problem::{ASSUMED_WATTS, BELIEVED_WATTS, Objective, Problem};

/// A phone's watts where they can be believed.
fn known_watts(problem: &Problem, phone: usize) -> Option<f64> {
    problem.phones[phone].energy.active_watts.filter(|watts| BELIEVED_WATTS.contains(watts))
}

/// What counts of a second of this phone: its watts, and those weighted.
fn watts(problem: &Problem, phone: usize) -> (f64, f64) {
    let among: Vec<f64> = (0..problem.phones.len()).filter_map(|other| known_watts(problem, other)).collect();
    // The middle one: no more than half of them are below it, and fewer above.
    let is_middle = |watts: &&f64| {
        let below = among.iter().filter(|other| *other < watts).count();
        let not_above = among.iter().filter(|other| *other <= watts).count();
        below <= among.len() / 2 && not_above > among.len() / 2
    };
    let typical = among.iter().find(is_middle).copied().unwrap_or(ASSUMED_WATTS);
    let energy = problem.phones[phone].energy;
    let share = if energy.busy_share >= 1e-6 && energy.busy_share <= 1.0 { energy.busy_share } else { 1.0 };
    let weight = if energy.joule_weight >= 1e-3 && energy.joule_weight <= 1e3 { energy.joule_weight } else { 1.0 };
    let watts = known_watts(problem, phone).unwrap_or(typical) * share;
    (watts, watts * weight)
}

/// Weighted joules of one row through all stages.
pub(super) fn weighted_joules(problem: &Problem, phones: &[usize], ring: &RingTimes) -> f64 {
    phones.iter().zip(&ring.steps).map(|(&phone, step)| watts(problem, phone).1 * step.first_row).sum()
}

/// Whether no stage takes more weighted joules.
pub(super) fn is_dearest(problem: &Problem, phones: &[usize], ring: &RingTimes, at: usize) -> bool {
    let joules = |(phone, step): (&usize, &Step)| watts(problem, *phone).1 * step.first_row;
    let most = phones.iter().zip(&ring.steps).map(joules).fold(0.0, f64::max);
    problem.demand.objective == Objective::Efficiency
        && joules((&phones[at], &ring.steps[at])) >= most * (1.0 - TOLERANCE)
}

/// What is told of joules is so, and is told where joules count alone.
pub(super) fn check_joules(problem: &Problem, plan: &Plan, phones: &[usize]) -> Result<(), Violation> {
    let count = problem.demand.objective == Objective::Efficiency;
    let stated = |joules: Option<f64>| match (joules, count) {
        (Some(joules), true) => joules,
        (None, false) => 0.0,
        _ => f64::NAN,
    };
    let mut all = 0.0;
    for (stage, &phone) in plan.stages.iter().zip(phones) {
        let expected = if count { watts(problem, phone).0 * stage.predicted_seconds } else { 0.0 };
        equal(|| format!("joules of {}", stage.phone), stated(stage.predicted_joules), expected)?;
        let is_assumed = count && known_watts(problem, phone).is_none();
        if stage.are_watts_assumed != is_assumed {
            let what = format!("whether watts of {} are assumed", stage.phone);
            let as_number = |is: bool| f64::from(u8::from(is));
            let (stated, expected) = (as_number(stage.are_watts_assumed), as_number(is_assumed));
            return Err(Violation::WrongFigure { what, stated, expected });
        }
        all += expected;
    }
    equal(|| "joules a token".to_owned(), stated(plan.predicted_joules_per_token), all)
}
