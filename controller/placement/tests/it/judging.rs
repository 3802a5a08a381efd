//! The checker: it refuses every plan that was tampered with, and says why.

use polyphony_placement::{Bound, Objective, Plan, Problem, Violation, check, plan};

use crate::problems::{MIB, phone, problem, random_problem};

fn good() -> (Problem, Plan) {
    let problem = problem(vec![phone("a", 75, 1.0), phone("b", 75, 2.0), phone("c", 200, 9.0)]);
    let plan = plan(&problem).unwrap();
    assert_eq!(check(&problem, &plan), Ok(()));
    (problem, plan)
}

#[test]
fn every_mutation_is_refused_for_its_own_reason() {
    type Case = (&'static str, fn(&mut Problem, &mut Plan), fn(&Violation) -> bool);
    let cases: [Case; 25] = [
        ("no stages", |_, p| p.stages.clear(), |v| matches!(v, Violation::Empty)),
        ("a stage lost", |_, p| drop(p.stages.pop()), |v| matches!(v, Violation::EndMisplaced { .. })),
        (
            "an unknown phone",
            |_, p| p.stages[0].phone = "z".into(),
            |v| matches!(v, Violation::UnknownPhone { stage: 0, .. }),
        ),
        ("a phone twice", |_, p| p.stages[1].phone = "a".into(), |v| matches!(v, Violation::PhoneTwice { .. })),
        (
            "a gap",
            |_, p| p.stages[1].holds.layers_from += 1,
            |v| matches!(v, Violation::NotContiguous { stage: 1, from: 8, expected: 7 }),
        ),
        (
            "an overlap",
            |_, p| p.stages[1].holds.layers_from -= 1,
            |v| matches!(v, Violation::NotContiguous { stage: 1, .. }),
        ),
        (
            "an empty stage",
            |_, p| p.stages[1].holds.layers_to = 7,
            |v| matches!(v, Violation::EmptyStage { stage: 1, .. }),
        ),
        (
            "layers beyond the model",
            |_, p| p.stages[1].holds.layers_to = 11,
            |v| matches!(v, Violation::LayersMissing { to: 11, n_layers: 10 }),
        ),
        (
            "no embedding",
            |_, p| p.stages[0].holds.embedding = false,
            |v| matches!(v, Violation::EndMisplaced { stage: 0, .. }),
        ),
        (
            "a head in the middle",
            |_, p| p.stages[0].holds.head = true,
            |v| matches!(v, Violation::EndMisplaced { stage: 0, .. }),
        ),
        ("bytes understated", |_, p| p.stages[0].bytes -= 1, |v| matches!(v, Violation::WrongFigure { .. })),
        ("memory gone", |p, _| p.phones[0].allocatable_bytes -= 1, |v| matches!(v, Violation::OverBudget { .. })),
        ("too few stages", |p, _| p.demand.min_phones = 3, |v| matches!(v, Violation::StageCount { n_stages: 2, .. })),
        ("a flattering objective", |_, p| p.objective_value *= 0.99, |v| matches!(v, Violation::WrongFigure { .. })),
        (
            "a broken link",
            |p, _| p.links.default.latency_seconds = f64::INFINITY,
            |v| matches!(v, Violation::Unreachable { .. }),
        ),
        ("no groups", |_, p| p.session_groups = 0, |v| matches!(v, Violation::SessionGroups { groups: 0, .. })),
        ("more groups than sessions", |_, p| p.session_groups = 2, |v| matches!(v, Violation::SessionGroups { .. })),
        ("a gap of nothing known", |_, p| p.gap = f64::NAN, |v| matches!(v, Violation::Gap { .. })),
        ("a proof with a gap", |_, p| p.gap = 0.1, |v| matches!(v, Violation::Gap { .. })),
        (
            "a proof that a phone by itself belies",
            |p, _| p.phones[2].seconds_per_layer = 1e-4,
            |v| matches!(v, Violation::BetterAlone { .. }),
        ),
        (
            "bound by a stage that is not the slowest",
            |_, p| p.bound = Bound::Stage { phone: "b".into() },
            |v| matches!(v, Violation::NotBound { .. }),
        ),
        (
            "bound by memory that is there",
            |_, p| p.bound = Bound::Memory { phone: "b".into() },
            |v| matches!(v, Violation::NotBound { .. }),
        ),
        (
            "bound by a hop that is none",
            |_, p| p.bound = Bound::Hop { from: "b".into(), to: "a".into() },
            |v| matches!(v, Violation::NotBound { .. }),
        ),
        (
            "bound by sessions, for one",
            |_, p| p.bound = Bound::Sessions { max_sessions: 1 },
            |v| matches!(v, Violation::NotBound { .. }),
        ),
        ("a phone unaccounted for", |_, p| p.left_out.clear(), |v| matches!(v, Violation::LeftOut { .. })),
    ];
    for (name, mutate, expected) in cases {
        let (mut problem, mut plan) = good();
        // The head's budget is filled to the byte, so that one byte less is too little.
        problem.phones[0].allocatable_bytes = plan.stages[0].bytes;
        assert_eq!(check(&problem, &plan), Ok(()), "{name}");
        mutate(&mut problem, &mut plan);
        let violation = check(&problem, &plan).expect_err(name);
        assert!(expected(&violation), "{name}: {violation:?}");
    }
}

#[test]
fn groups_that_give_fewer_tokens_are_refused() {
    let (mut problem, _) = good();
    problem.demand.objective = Objective::Throughput;
    problem.demand.max_sessions = 8;
    for phone in &mut problem.phones {
        phone.seconds_per_layer_per_further_row = Some(phone.seconds_per_layer / 4.0);
    }
    let plan = plan(&problem).unwrap();
    assert_eq!(check(&problem, &plan), Ok(()));
    let verdict = |session_groups| check(&problem, &Plan { session_groups, ..plan.clone() });
    let others = (1..=8).filter(|groups| *groups != plan.session_groups);
    let refused = others.filter(|groups| matches!(verdict(*groups), Err(Violation::WorseGroups { .. }))).count();
    assert!(refused >= 5, "of 7 other groupings {refused} are refused");
}

#[test]
fn what_stands_by_is_a_neighbours_or_in_memory_already() {
    let mut problem = problem(vec![phone("a", 100, 1.0), phone("b", 45, 1.0), phone("c", 45, 1.0)]);
    problem.demand.min_phones = 3;
    problem.demand.overlap = true;
    let good = plan(&problem).unwrap();
    assert_eq!(check(&problem, &good), Ok(()));
    let head = &good.stages[0];
    // All layers of the second stage and one of the third.
    let to = good.stages[2].holds.layers_from + 1;
    assert_eq!(head.phone, "a");
    let mut far = good.clone();
    problem.phones[0].allocatable_bytes = 1000 * MIB;
    far.stages[0].standby = Some((0, to));
    far.stages[0].standby_bytes = u64::from(to - head.holds.layers_to) * 10 * MIB;
    let found = check(&problem, &far);
    assert_eq!(found, Err(Violation::NotANeighbours { phone: "a".into(), layer: to - 1 }));
    problem.previous = Some(far.clone());
    assert!(!matches!(check(&problem, &far), Err(Violation::NotANeighbours { .. })), "it is in its memory already");
}

#[test]
fn moving_a_boundary_without_new_figures_is_refused_on_random_plans() {
    let mut tried = 0;
    for seed in 0..200 {
        let problem = random_problem(seed, 5, 12);
        let Ok(plan) = plan(&problem) else { continue };
        for at in 1..plan.stages.len() {
            let mut moved = plan.clone();
            moved.stages[at - 1].holds.layers_to += 1;
            moved.stages[at].holds.layers_from += 1;
            assert!(check(&problem, &moved).is_err(), "seed {seed}: {moved:?}");
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} boundaries were moved");
}
