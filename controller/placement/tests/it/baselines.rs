//! Baselines: each rule's plan is the one its publication gives, and every plan of every rule can be carried out.

use polyphony_placement::{
    Infeasible, Link, Method, Objective, Plan, Problem, Stage, Strategy, check, plan, plan_by, published_balancer_step,
    published_overlap,
};
use proptest::prelude::*;

use crate::lingua_linked::least_objective;
use crate::problems::{MIB, link, phone, problem, random_problem};

/// "a 0..4, b 4..10" in ring order.
fn placed(plan: &Plan) -> String {
    let stage = |s: &Stage| format!("{} {}..{}", s.phone, s.holds.layers_from, s.holds.layers_to);
    plan.stages.iter().map(stage).collect::<Vec<_>>().join(", ")
}

/// Ten layers of 10 MiB, with 5 MiB at each end; the second phone is fast, the last one slow.
fn uneven() -> Problem {
    let mut problem =
        problem(vec![phone("a", 60, 2.0), phone("b", 200, 1.0), phone("c", 200, 2.0), phone("d", 40, 8.0)]);
    problem.links.default = link(1.0);
    problem
}

#[test]
fn each_rule_places_as_its_publication_says() {
    let cases = [
        // ⌈10 ÷ 4⌉ each; the last has what is left.
        (Strategy::EqualSplit, "a 0..3, b 3..6, c 6..9, d 9..10"),
        // 60, 200, 200 and 40 of 500 MiB of 11 places.
        (Strategy::MemoryProportional, "a 0..2, b 2..6, c 6..10"),
        // 6 ms at most; a layer on the slow one would take 8.
        (Strategy::MinMax, "a 0..2, b 2..7, c 7..10"),
        // The first phone has to be the head; hops cost next to nothing, and 0.7 of 200 MiB hold nine layers.
        (Strategy::LinguaLinked, "a 0..1, b 1..10"),
        // Begun at the fastest, which holds them all.
        (Strategy::LinguaLinkedBestFirst, "b 0..10"),
        (Strategy::Optimal, "b 0..10"),
    ];
    for (strategy, expected) in cases {
        let problem = uneven();
        let plan = plan_by(strategy, &problem).unwrap();
        assert_eq!(placed(&plan), expected, "{strategy}");
        assert_eq!(check(&problem, &plan), Ok(()), "{strategy}");
        assert_eq!(plan.method == Method::Rule, strategy != Strategy::Optimal, "{strategy}");
    }
}

#[test]
fn a_rule_that_asks_nobody_about_memory_is_capped_to_the_nearest_plan_that_fits() {
    let mut problem = uneven();
    problem.phones[0].allocatable_bytes = 25 * MIB;
    assert_eq!(placed(&plan_by(Strategy::EqualSplit, &problem).unwrap()), "a 0..2, b 2..5, c 5..8, d 8..10");
    for tight in &mut problem.phones {
        tight.allocatable_bytes = 25 * MIB;
    }
    let refused = plan_by(Strategy::EqualSplit, &problem).unwrap_err();
    assert_eq!(refused.reason(), "RuleHasNoPlan");
    assert_eq!(
        refused.to_string(),
        "the rule EqualSplit gives no plan here, since no cut among its 4 phones in the order given fits their \
         memory: plan with another strategy"
    );
}

#[test]
fn the_published_programme_keeps_weights_within_its_share_of_memory() {
    // Nine layers with the output matrix are 95 MiB: 0.7 of 135.7 MiB.
    let mut problem = problem(vec![phone("a", 136, 2.0), phone("b", 136, 1.0)]);
    assert_eq!(placed(&plan_by(Strategy::LinguaLinked, &problem).unwrap()), "a 0..1, b 1..10");
    problem.phones[1].allocatable_bytes = 135 * MIB;
    assert_eq!(placed(&plan_by(Strategy::LinguaLinked, &problem).unwrap()), "a 0..2, b 2..10");
    for tight in &mut problem.phones {
        tight.allocatable_bytes = 70 * MIB;
    }
    let refused = plan_by(Strategy::LinguaLinked, &problem).unwrap_err();
    assert!(matches!(refused, Infeasible::Rule { .. }), "{refused}");
    assert!(plan(&problem).is_ok());
}

#[test]
fn a_rule_that_cannot_close_its_ring_says_which_link_fails() {
    let mut problem = uneven();
    problem.links.measured.insert((1, 2), Link::UNREACHABLE);
    let refused = plan_by(Strategy::EqualSplit, &problem).unwrap_err();
    assert!(refused.to_string().contains("b cannot reach c"), "{refused}");
}

#[test]
fn names_of_strategies_are_read_as_they_are_written() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.name().parse(), Ok(strategy));
    }
    let unknown = "best".parse::<Strategy>().unwrap_err();
    assert!(unknown.to_string().starts_with("no strategy is called best: expected one of Optimal, EqualSplit"));
}

#[test]
fn the_published_overlap_fills_what_is_left_of_the_share() {
    // a and b have 0.7 × 100 = 70 MiB for weights: their own 55, and one more layer each.
    let problem = problem(vec![phone("a", 100, 1.0), phone("b", 100, 1.0)]);
    let plan = plan_by(Strategy::EqualSplit, &problem).unwrap();
    let with = published_overlap(&problem, &plan).unwrap();
    let spans: Vec<_> = with.stages.iter().map(|stage| stage.standby).collect();
    assert_eq!(spans, [Some((0, 6)), Some((4, 10))]);
    assert_eq!(check(&problem, &with), Ok(()));
}

#[test]
fn the_published_balancer_gives_one_overlapped_layer_to_the_faster_neighbour() {
    let mut problem = problem(vec![phone("a", 90, 1.0), phone("b", 90, 1.0), phone("c", 90, 1.0)]);
    let plan = published_overlap(&problem, &plan_by(Strategy::EqualSplit, &problem).unwrap()).unwrap();
    assert_eq!(placed(&plan), "a 0..4, b 4..8, c 8..10");
    // The middle one slows down; c has less to do than a.
    problem.phones[1].seconds_per_layer *= 3.0;
    let after = published_balancer_step(&problem, &plan).unwrap();
    assert_eq!(placed(&after), "a 0..4, b 4..7, c 7..10");
    assert_eq!(check(&problem, &after), Ok(()));
    // What nobody overlaps cannot move.
    let mut bare = plan.clone();
    for stage in &mut bare.stages {
        (stage.standby, stage.standby_bytes) = (None, 0);
    }
    assert_eq!(published_balancer_step(&problem, &bare), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_accepts_every_plan_of_every_strategy_and_none_beats_ours(seed: u64) {
        let problem = random_problem(seed, 6, 12);
        let ours = plan(&problem);
        for strategy in Strategy::ALL {
            let Ok(found) = plan_by(strategy, &problem) else { continue };
            prop_assert_eq!(check(&problem, &found), Ok(()), "{} of seed {}", strategy, seed);
            let Ok(ours) = &ours else { return Err(TestCaseError::fail(format!("only {strategy} plans {seed}"))) };
            let (theirs, ours) = (found.objective_value, ours.objective_value);
            prop_assert!(theirs >= ours * (1.0 - 2e-7), "{strategy} of seed {seed}: {theirs} beats {ours}");
            prop_assert!(theirs <= ours * (1.0 + found.gap) * (1.0 + 2e-7) , "{strategy} of seed {seed} understates its gap");
            if let Some(overlapped) = published_overlap(&problem, &found) {
                prop_assert_eq!(check(&problem, &overlapped), Ok(()), "overlap of {} of seed {}", strategy, seed);
            }
        }
    }

    #[test]
    fn the_published_programme_is_solved_exactly(seed: u64) {
        let mut problem = random_problem(seed, 5, 8);
        // Its own objective knows no limits on the number of phones.
        (problem.demand.min_phones, problem.demand.max_phones) = (0, u32::MAX);
        problem.demand.objective = Objective::Latency;
        let best = least_objective(&problem);
        match (plan_by(Strategy::LinguaLinked, &problem), best) {
            (Ok(found), Some((best, value))) => {
                let found = value(&found);
                prop_assert!((found - best).abs() <= 1e-9 * best, "found {found}, best {best}, seed {seed}");
            }
            (Err(_), None) => {}
            (found, best) => {
                prop_assert!(false, "found {found:?}, best {:?}, seed {seed}", best.map(|(best, _)| best));
            }
        }
    }
}
