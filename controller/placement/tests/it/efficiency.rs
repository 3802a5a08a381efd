//! Efficiency: the fewest joules above a floor of speed, against brute force and by tables.

use polyphony_placement::shift::{best_shift, rebalance};
use polyphony_placement::{
    Bound, Demand, Energy, Infeasible, Method, Objective, PhoneCosts, Plan, Problem, Prompt, Strategy, Violation,
    check, plan, plan_by,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::oracle::brute_force;
use crate::problems::{MIB, Random, link, phone, problem, random_efficient_problem};
use crate::shifting::brute_force as cuts_by_force;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_261_202),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_joules_equal_brute_force_and_the_floor_is_kept(seed: u64) {
        let problem = random_efficient_problem(seed, 4, 9);
        match (plan(&problem), brute_force(&problem)) {
            (Ok(found), Some(best)) => {
                prop_assert_eq!((found.method, found.gap), (Method::Exact, 0.0), "seed {}", seed);
                // The solver's cutoff is 1e-7 of the objective.
                prop_assert!((found.objective_value - best).abs() <= 2e-7 * best,
                    "found {}, best {best}, seed {seed}", found.objective_value);
                let floor = problem.demand.min_tokens_per_second.unwrap_or(0.0);
                prop_assert!(1.0 / found.predicted_inter_token_seconds >= floor * (1.0 - 1e-8), "seed {seed}");
            }
            (Err(_), None) => {}
            (found, best) => prop_assert!(false, "found {found:?}, best {best:?}, seed {seed}"),
        }
    }

    #[test]
    fn a_floor_that_no_plan_keeps_is_told_with_the_speed_of_the_fastest(seed: u64) {
        let mut problem = random_efficient_problem(seed, 4, 8);
        problem.demand.min_tokens_per_second = None;
        let demand = Demand { objective: Objective::Latency, prompt: None, ..problem.demand.clone() };
        let fastest = brute_force(&Problem { demand, ..problem.clone() }).map(|seconds| 1.0 / seconds);
        let Some(fastest) = fastest else {
            let is_of_floor = matches!(plan(&problem), Err(Infeasible::Floor { .. }));
            prop_assert!(!is_of_floor);
            return Ok(());
        };
        problem.demand.min_tokens_per_second = Some(fastest * (1.0 + 1e-6));
        match plan(&problem) {
            Err(Infeasible::Floor { wanted_tokens_per_second, reachable_tokens_per_second: reachable, most_tokens_per_second }) => {
                prop_assert_eq!(Some(wanted_tokens_per_second), problem.demand.min_tokens_per_second);
                prop_assert!((reachable - fastest).abs() <= 2e-7 * fastest, "{reachable} {fastest}, seed {seed}");
                prop_assert_eq!(most_tokens_per_second, reachable);
            }
            found => prop_assert!(false, "{found:?}, fastest {fastest}, seed {seed}"),
        }
        problem.demand.min_tokens_per_second = Some(fastest * (1.0 - 1e-6));
        prop_assert!(plan(&problem).is_ok(), "seed {seed}");
    }

    #[test]
    fn planning_again_keeps_the_plan_and_the_checker_accepts_it(seed: u64) {
        let mut problem = random_efficient_problem(seed, 6, 16);
        if let Ok(found) = plan(&problem) {
            prop_assert_eq!(check(&problem, &found), Ok(()));
            prop_assert_eq!(plan(&problem), Ok(found.clone()));
            problem.previous = Some(found.clone());
            let again = plan(&problem).unwrap();
            prop_assert!(again.places_like(&found), "{found:?} became {again:?}");
        }
    }

    #[test]
    fn the_best_shift_equals_brute_force_within_the_floor(seed: u64) {
        let mut problem = random_efficient_problem(seed, 5, 10);
        problem.demand.overlap = true;
        let Ok(before) = plan(&problem) else { return Ok(()) };
        let mut random = Random(!seed);
        for phone in &mut problem.phones {
            *phone = phone.clone().slower(random.between(0.5, 1.6));
        }
        let in_force = Problem { previous: Some(before.clone()), ..problem.clone() };
        let shifted = best_shift(&problem, &before);
        let best = cuts_by_force(&problem, &before);
        match check(&in_force, &shifted) {
            Ok(()) => prop_assert!((shifted.objective_value - best).abs() <= 2e-9 * best,
                "found {}, best {best}, seed {seed}", shifted.objective_value),
            // No boundary that can be moved keeps the floor: it stays where it is, and is told as it is.
            Err(Violation::UnderFloor { .. }) => {
                prop_assert!(best.is_infinite() && shifted.places_like(&before), "best {best}, seed {seed}");
            }
            Err(violation) => prop_assert!(false, "{violation}, seed {seed}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_261_202),
        ..ProptestConfig::default()
    })]

    #[test]
    fn over_seven_phones_nothing_is_below_what_the_gap_leaves_room_for(seed: u64) {
        let problem = random_efficient_problem(seed, 7, 7);
        match (plan(&problem), brute_force(&problem)) {
            (Ok(found), Some(best)) => {
                prop_assert!(best >= found.objective_value / (1.0 + found.gap) * (1.0 - 2e-7), "seed {seed}: {found:?}, best {best}");
                prop_assert_eq!(found.gap, 0.0, "seed {}", seed);
            }
            (Err(_), None) => {}
            (found, best) => prop_assert!(false, "found {found:?}, best {best:?}, seed {seed}"),
        }
    }
}

fn watts(phone: PhoneCosts, watts: f64) -> PhoneCosts {
    PhoneCosts { energy: Energy { active_watts: Some(watts), ..Energy::default() }, ..phone }
}

/// A fast phone that takes much, and a slow one that takes little: 10 ms and 80 mJ, or 40 ms and 40 mJ, each by itself.
fn two() -> Problem {
    let mut problem = problem(vec![watts(phone("fast", 200, 1.0), 8.0), watts(phone("slow", 200, 4.0), 1.0)]);
    problem.demand.objective = Objective::Efficiency;
    problem
}

fn placed(problem: &Problem) -> String {
    plan(problem).unwrap().placed()
}

#[test]
fn the_fewest_joules_are_chosen_and_a_floor_asks_for_more() {
    let mut problem = two();
    let free = plan(&problem).unwrap();
    assert_eq!(free.placed(), "slow 0..10");
    assert!((free.objective_value - 0.04).abs() < 1e-12, "{}", free.objective_value);
    assert!((free.predicted_tokens_per_second - 25.0).abs() < 1e-9, "{}", free.predicted_tokens_per_second);
    assert_eq!(free.bound, Bound::Joules { phone: "slow".into() });
    problem.demand.min_tokens_per_second = Some(60.0);
    let quick = plan(&problem).unwrap();
    assert_eq!(quick.placed(), "fast 0..10");
    assert_eq!(quick.bound, Bound::Floor { min_tokens_per_second: 60.0 });
    // 33.3 ms, less 6.1 of hops, are enough for five layers of the slow phone.
    problem.demand.min_tokens_per_second = Some(30.0);
    let both = plan(&problem).unwrap();
    let of_slow = both.stage_of("slow").unwrap();
    assert_eq!(of_slow.holds.n_layers(), 5, "{}", both.placed());
    assert!((both.predicted_joules_per_token.unwrap() - 0.060).abs() < 1e-12, "{both:?}");
    let told: f64 = both.stages.iter().map(|stage| stage.predicted_joules.unwrap()).sum();
    assert!((told - 0.060).abs() < 1e-12);
}

#[test]
fn among_rings_of_as_few_joules_the_fastest_is_chosen() {
    // Two of three are needed, whatever their order: all take as much.
    let mut problem = problem(["a", "b", "c"].map(|name| watts(phone(name, 75, 1.0), 2.0)).to_vec());
    problem.demand.objective = Objective::Efficiency;
    for (from, to, milliseconds) in [(0, 1, 9.0), (1, 0, 9.0), (0, 2, 8.0), (2, 0, 8.0), (1, 2, 5.0), (2, 1, 2.0)] {
        problem.links.measured.insert((from, to), link(milliseconds));
    }
    let found = plan(&problem).unwrap();
    let phones: Vec<&str> = found.stages.iter().map(|stage| stage.phone.as_str()).collect();
    // A hop carries more than the way back, and 2 + 5 ms are as long as 5 + 2: b and c, in either order.
    assert!(phones == ["b", "c"] || phones == ["c", "b"], "{}", found.placed());
    assert_eq!(found.gap, 0.0);
    // Layers are even, though joules do not ask for that.
    assert_eq!(found.stages[0].holds.n_layers(), 5, "{}", found.placed());
}

#[test]
fn a_phone_that_charges_is_preferred_by_its_weight_and_its_joules_are_told_in_full() {
    let mut problem = two();
    problem.phones[0].energy.joule_weight = 0.25;
    let plan = plan(&problem).unwrap();
    assert_eq!(plan.placed(), "fast 0..10");
    assert!((plan.objective_value - 0.02).abs() < 1e-12);
    assert_eq!(plan.predicted_joules_per_token.map(|joules| (joules * 1e6).round()), Some(80_000.0));
}

#[test]
fn a_phone_that_tells_nothing_is_neither_free_nor_left_out() {
    let mut problem = two();
    problem.phones.push(phone("silent", 200, 2.0));
    // The middle one of 1 and 8 W is 8 W: 160 mJ.
    assert_eq!(placed(&problem), "slow 0..10");
    problem.phones[0].energy.active_watts = None;
    // All are as the one that is known: the fastest takes the least.
    let plan = plan(&problem).unwrap();
    assert_eq!(plan.placed(), "fast 0..10");
    assert!(plan.stages[0].are_watts_assumed);
}

#[test]
fn joules_are_no_more_for_a_phone_that_takes_turns() {
    let alone = two().phones[0].clone();
    let shared = alone.clone().in_turns(4);
    assert_eq!(shared.seconds_per_layer, 4.0 * alone.seconds_per_layer);
    let mut problem = two();
    problem.phones = vec![shared];
    let plan = plan(&problem).unwrap();
    assert!((plan.objective_value - 0.08).abs() < 1e-12, "{}", plan.objective_value);
}

#[test]
fn prompts_count_with_the_joules_of_reading_them_and_not_against_the_floor() {
    let mut problem = two();
    problem.demand.min_tokens_per_second = Some(20.0);
    problem.demand.prompt = Some(Prompt { n_tokens: 256, chunk_tokens: 32, weight: 1.0 / 128.0 });
    // Two tokens of prompts for each that is decoded, at a tenth of a layer's time; the slow phone reads them slowly.
    problem.phones[1].prefill_seconds_per_layer_per_token = 40e-3;
    let found = plan(&problem).unwrap();
    assert_eq!(found.placed(), "fast 0..10");
    assert!((found.objective_value - 8.0 * (0.010 + 2.0 * 0.001)).abs() < 1e-12, "{}", found.objective_value);
    assert!((found.predicted_joules_per_token.unwrap() - 0.080).abs() < 1e-12, "tokens alone");
}

#[test]
fn a_plan_in_force_that_has_become_too_slow_is_told_as_it_is_and_left_for_one_that_is_not() {
    let mut problem = two();
    problem.demand.min_tokens_per_second = Some(20.0);
    let before = plan(&problem).unwrap();
    assert_eq!(before.placed(), "slow 0..10");
    problem.phones[1] = problem.phones[1].clone().slower(2.0);
    let found = rebalance(&problem, &before, 0).unwrap().unwrap();
    assert!((found.now.predicted_tokens_per_second - 12.5).abs() < 1e-9);
    let then = found.replan.unwrap().plan;
    assert!(1.0 / then.predicted_inter_token_seconds >= 20.0, "{}", then.placed());
    problem.previous = Some(before);
    assert_eq!(plan(&problem).unwrap().placed(), then.placed(), "it is not kept");
}

#[test]
fn rules_of_others_keep_the_floor_or_give_no_plan() {
    let mut problem = two();
    problem.demand.min_tokens_per_second = Some(30.0);
    // Five layers each: 5 + 20 + 6 ms.
    let even = plan_by(Strategy::EqualSplit, &problem).unwrap();
    assert_eq!(even.stages.len(), 2);
    assert!(even.gap >= 0.0 && even.gap.is_finite());
    problem.demand.min_tokens_per_second = Some(40.0);
    let refused = plan_by(Strategy::EqualSplit, &problem).unwrap_err();
    assert_eq!(refused.reason(), "RuleHasNoPlan");
    assert!(refused.to_string().contains("spec.minTokensPerSecond asks for 40"), "{refused}");
}

#[test]
fn a_floor_that_means_nothing_is_refused_by_name() {
    let refused = |objective, tokens| {
        let mut problem = two();
        problem.demand.objective = objective;
        problem.demand.min_tokens_per_second = Some(tokens);
        plan(&problem).unwrap_err().to_string()
    };
    for tokens in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let told = refused(Objective::Efficiency, tokens);
        assert!(told.starts_with("the deployment's minTokensPerSecond is"), "{told}");
    }
    assert!(refused(Objective::Latency, 5.0).contains("the objective is not Efficiency"));
    let told = refused(Objective::Efficiency, 1000.0);
    assert_eq!(
        told,
        "at least 1000 tokens/s are asked for and the fastest plan gives 100: \
         lower minTokensPerSecond, or add faster phones, or better links between them"
    );
}

#[test]
fn every_mutation_is_refused_for_its_own_reason() {
    type Case = (&'static str, fn(&mut Problem, &mut Plan), fn(&Violation) -> bool);
    let is_figure = |v: &Violation| matches!(v, Violation::WrongFigure { .. });
    let cases: [Case; 9] = [
        ("a flattering objective", |_, p| p.objective_value *= 0.99, is_figure),
        ("flattering joules of a stage", |_, p| p.stages[0].predicted_joules = Some(0.001), is_figure),
        ("no joules of a stage", |_, p| p.stages[0].predicted_joules = None, is_figure),
        ("flattering joules of a token", |_, p| p.predicted_joules_per_token = Some(0.001), is_figure),
        ("watts that are known said to be assumed", |_, p| p.stages[0].are_watts_assumed = true, is_figure),
        (
            "a higher floor",
            |p, _| p.demand.min_tokens_per_second = Some(33.0),
            |v| matches!(v, Violation::UnderFloor { .. }),
        ),
        (
            "a proof that a phone by itself belies",
            |p, _| p.phones.push(watts(phone("thrifty", 200, 1.0), 0.1)),
            |v| matches!(v, Violation::BetterAlone { .. }),
        ),
        (
            "bound by the joules of a stage that takes less",
            |_, p| p.bound = Bound::Joules { phone: "slow".into() },
            |v| matches!(v, Violation::NotBound { .. }),
        ),
        (
            "bound by another floor",
            |_, p| p.bound = Bound::Floor { min_tokens_per_second: 7.0 },
            |v| matches!(v, Violation::NotBound { .. }),
        ),
    ];
    for (name, mutate, expected) in cases {
        let mut problem = two();
        problem.demand.min_tokens_per_second = Some(30.0);
        let mut plan = plan(&problem).unwrap();
        mutate(&mut problem, &mut plan);
        let violation = check(&problem, &plan).expect_err(name);
        assert!(expected(&violation), "{name}: {violation:?}");
    }
}

#[test]
fn many_phones_give_a_checked_plan_that_states_its_gap() {
    for (n_phones, n_layers, n_measured) in [(20, 40, 20), (20, 40, 0), (300, 30, 20)] {
        let mut random = Random(n_phones);
        let with_watts = |i: u64, random: &mut Random| {
            let costs = phone(&format!("p{i}"), random.within(60, 300), random.between(0.5, 6.0));
            watts(costs, random.between(1.0, 9.0))
        };
        let mut problem = problem((0..n_phones).map(|i| with_watts(i, &mut random)).collect());
        problem.model.layer_bytes = vec![20 * MIB; n_layers];
        for from in 0..n_measured {
            for to in (0..n_measured).filter(|&to| to != from) {
                let mut link = problem.links.default;
                link.latency_seconds = random.between(1e-3, 20e-3);
                problem.links.measured.insert((from, to), link);
            }
        }
        let fastest = plan(&problem).unwrap();
        problem.demand.objective = Objective::Efficiency;
        let thriftiest = plan(&problem).unwrap();
        let mut before = thriftiest.objective_value;
        for part in [0.5, 0.8, 0.95] {
            problem.demand.min_tokens_per_second = Some(part * fastest.predicted_tokens_per_second);
            let found = plan(&problem).unwrap();
            assert_eq!(check(&problem, &found), Ok(()));
            assert_eq!(found.method == Method::Exact, found.gap == 0.0);
            assert!((0.0..0.5).contains(&found.gap), "{n_phones} phones, {part}: {}", found.gap);
            assert!(found.objective_value >= before / (1.0 + found.gap) * (1.0 - 1e-6), "more speed takes more joules");
            before = found.objective_value;
        }
    }
}
