//! Standby and shifts: what can move without moving weights, and how far.

use std::collections::BTreeSet;

use polyphony_placement::shift::{best_shift, cost_of_move, rebalance, reprice};
use polyphony_placement::{Objective, Plan, Problem, Stage, check, plan};
use proptest::prelude::*;

use crate::problems::{MIB, Random, phone, problem, random_problem};

fn placed(plan: &Plan) -> String {
    let stage = |s: &Stage| format!("{} {}..{}", s.phone, s.holds.layers_from, s.holds.layers_to);
    plan.stages.iter().map(stage).collect::<Vec<_>>().join(", ")
}

fn spans(plan: &Plan) -> Vec<Option<(u32, u32)>> {
    plan.stages.iter().map(|stage| stage.standby).collect()
}

/// Throughput over `memory_mib`; ten layers of 10 MiB, 5 MiB at each end.
fn even(memory_mib: [u64; 3]) -> Problem {
    let [a, b, c] = memory_mib;
    let mut problem = problem(vec![phone("a", a, 1.0), phone("b", b, 1.0), phone("c", c, 1.0)]);
    problem.demand.objective = Objective::Throughput;
    problem.demand.max_sessions = 8;
    problem.demand.overlap = true;
    problem
}

#[test]
fn memory_that_is_left_holds_layers_of_the_neighbours() {
    let problem = even([60, 60, 60]);
    let plan = plan(&problem).unwrap();
    assert_eq!(placed(&plan), "a 0..2, b 2..6, c 6..10");
    // a has 35 MiB left, b 20 and c 15; and a giver keeps a layer.
    assert_eq!(spans(&plan), [Some((0, 5)), Some((1, 7)), Some((5, 10))]);
    assert_eq!(plan.stages[1].standby_bytes, 20 * MIB);
    assert_eq!(check(&problem, &plan), Ok(()));
}

#[test]
fn nothing_stands_by_where_that_is_not_asked_for() {
    let mut problem = even([60, 60, 60]);
    problem.demand.overlap = false;
    let plan = plan(&problem).unwrap();
    assert!(plan.stages.iter().all(|stage| stage.standby.is_none() && stage.standby_bytes == 0));
}

#[test]
fn a_slowed_phone_gives_layers_away_as_far_as_they_stand_by() {
    let mut problem = even([70, 70, 70]);
    let plan = plan(&problem).unwrap();
    problem.phones[1].seconds_per_layer *= 3.0;
    let shifted = best_shift(&problem, &plan);
    assert_eq!(placed(&shifted), "a 0..4, b 4..5, c 5..10");
    assert_eq!(spans(&shifted), spans(&plan));
    assert_eq!(check(&problem, &shifted), Ok(()));
    assert!(shifted.objective_value < reprice(&problem, &plan).unwrap().objective_value);
}

#[test]
fn the_sum_of_a_session_is_shifted_to_the_faster_phone() {
    let mut problem = even([70, 70, 70]);
    problem.demand.objective = Objective::Latency;
    problem.demand.min_phones = 3;
    let plan = plan(&problem).unwrap();
    problem.phones[0].seconds_per_layer = 9e-3;
    let shifted = best_shift(&problem, &plan);
    let kept = plan.stages[1].standby.unwrap();
    assert_eq!(shifted.stages[0].holds.layers_to, kept.0, "{}", placed(&shifted));
}

#[test]
fn a_plan_of_another_problem_is_left_alone() {
    let problem = even([60, 60, 60]);
    let mut plan = plan(&problem).unwrap();
    plan.stages[1].phone = "gone".to_owned();
    assert_eq!(best_shift(&problem, &plan), plan);
    assert_eq!(reprice(&problem, &plan), None);
    assert_eq!(rebalance(&problem, &plan, 100), Ok(None));
}

#[test]
fn a_shift_moves_caches_but_no_weights_and_a_new_phone_moves_both() {
    let mut problem = even([70, 70, 70]);
    problem.model.kv_bytes_per_token_per_layer = 100;
    problem.demand.context_length = 16;
    problem.phones.push(phone("d", 70, 4.0));
    let before = plan(&problem).unwrap();
    assert_eq!(before.stages.len(), 3);
    problem.phones[1].seconds_per_layer *= 10.0;
    problem.phones[3].seconds_per_layer = 0.5e-3;
    let found = rebalance(&problem, &before, 50).unwrap().unwrap();
    let (shift, replan) = (found.shift.unwrap(), found.replan.unwrap());
    assert_eq!(shift.weight_bytes, 0);
    assert!(shift.kv_bytes > 0 && shift.kv_bytes % (100 * 50) == 0, "{shift:?}");
    assert!(replan.plan.stage_of("d").is_some(), "{:#?}", replan.plan);
    assert!(replan.weight_bytes >= 10 * MIB);
    assert!(replan.gain > shift.gain && shift.gain > 0.0, "{} and {}", replan.gain, shift.gain);
    assert!(replan.seconds > shift.seconds);
    // Staying takes nothing.
    let stay = cost_of_move(&problem, &found.now, found.now.clone(), 50);
    assert_eq!((stay.gain, stay.weight_bytes, stay.kv_bytes, stay.seconds), (0.0, 0, 0, 0.0));
}

/// The least objective of any cuts of the plan's order within its spans that keep the floor, by trying them all.
pub(crate) fn brute_force(problem: &Problem, plan: &Plan) -> f64 {
    let n = problem.model.layer_bytes.len() as u32;
    let spans: Vec<(u32, u32)> = plan
        .stages
        .iter()
        .map(|stage| stage.standby.unwrap_or((stage.holds.layers_from, stage.holds.layers_to)))
        .collect();
    let mut cuts: BTreeSet<Vec<u32>> = BTreeSet::from([vec![]]);
    for (at, &(span_from, span_to)) in spans.iter().enumerate() {
        let extend = |ends: &Vec<u32>| {
            let from = ends.last().copied().unwrap_or(0);
            let tos = if at + 1 == spans.len() { n..=n } else { from + 1..=n - 1 };
            let may = move |&to: &u32| from >= span_from && from < to && to <= span_to;
            tos.filter(may).map(|to| [&ends[..], &[to]].concat()).collect::<Vec<_>>()
        };
        cuts = cuts.iter().flat_map(extend).collect();
    }
    let value = |ends: &Vec<u32>| {
        let mut cut = plan.clone();
        let mut from = 0;
        for (stage, &to) in cut.stages.iter_mut().zip(ends) {
            (stage.holds.layers_from, stage.holds.layers_to) = (from, to);
            from = to;
        }
        let plan = reprice(problem, &cut).unwrap();
        let floor = problem.demand.min_tokens_per_second.unwrap_or(0.0);
        let is_kept = 1.0 / plan.predicted_inter_token_seconds >= floor * (1.0 - 1e-9);
        if is_kept { plan.objective_value } else { f64::INFINITY }
    };
    cuts.iter().map(value).fold(f64::INFINITY, f64::min)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_best_shift_equals_brute_force_and_passes_the_checker(seed: u64) {
        let mut problem = random_problem(seed, 5, 10);
        problem.demand.overlap = true;
        let Ok(before) = plan(&problem) else { return Ok(()) };
        prop_assert_eq!(check(&problem, &before), Ok(()));
        let mut random = Random(!seed);
        for phone in &mut problem.phones {
            let slower = random.between(0.3, 4.0);
            phone.seconds_per_layer *= slower;
            phone.seconds_per_layer_per_further_row = phone.seconds_per_layer_per_further_row.map(|s| s * slower);
        }
        let shifted = best_shift(&problem, &before);
        // What stands by stays where it was, though a boundary beyond a neighbour has moved.
        let in_force = polyphony_placement::Problem { previous: Some(before.clone()), ..problem.clone() };
        prop_assert_eq!(check(&in_force, &shifted), Ok(()));
        let best = brute_force(&problem, &before);
        prop_assert!((shifted.objective_value - best).abs() <= 2e-9 * best,
            "found {}, best {best}, seed {seed}", shifted.objective_value);
    }
}
