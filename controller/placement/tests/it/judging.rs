//! The checker: it refuses every plan that was tampered with, and says why.

use polyphony_placement::{Plan, Problem, Violation, check, plan};

use crate::problems::{phone, problem, random_problem};

fn good() -> (Problem, Plan) {
    let problem = problem(vec![phone("a", 75, 1.0), phone("b", 75, 2.0), phone("c", 200, 9.0)]);
    let plan = plan(&problem).unwrap();
    assert_eq!(check(&problem, &plan), Ok(()));
    (problem, plan)
}

#[test]
fn every_mutation_is_refused_for_its_own_reason() {
    type Case = (&'static str, fn(&mut Problem, &mut Plan), fn(&Violation) -> bool);
    let cases: [Case; 16] = [
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
