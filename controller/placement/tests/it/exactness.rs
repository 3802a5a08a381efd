//! Plans against brute force, and what must hold of every plan.

use polyphony_placement::{Method, check, plan};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::oracle::brute_force;
use crate::problems::{Random, random_problem, spoil};

proptest! {
    // The same instances each time; `PROPTEST_RNG_SEED` does not reach them, another number here does.
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_261_124),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_objective_equals_brute_force(seed: u64) {
        let problem = random_problem(seed, 4, 9);
        match (plan(&problem), brute_force(&problem)) {
            (Ok(found), Some(best)) => {
                prop_assert_eq!(found.method, Method::Exact);
                prop_assert_eq!(found.gap, 0.0);
                // The solver's cutoff is 1e-7 of the objective.
                prop_assert!((found.objective_value - best).abs() <= 2e-7 * best,
                    "found {}, best {best}, seed {seed}", found.objective_value);
            }
            (Err(_), None) => {}
            (found, best) => prop_assert!(false, "found {found:?}, best {best:?}, seed {seed}"),
        }
    }

    #[test]
    fn seven_phones_are_solved_exactly_too(seed: u64) {
        // Every phone may take part: as many orders as there are, and few layers to cut.
        let mut problem = random_problem(seed, 7, 7);
        problem.demand.max_sessions = problem.demand.max_sessions.min(3);
        match (plan(&problem), brute_force(&problem)) {
            (Ok(found), Some(best)) => {
                prop_assert_eq!(found.gap, 0.0, "seed {}", seed);
                prop_assert!((found.objective_value - best).abs() <= 2e-7 * best,
                    "found {}, best {best}, seed {seed}", found.objective_value);
            }
            (Err(_), None) => {}
            (found, best) => prop_assert!(false, "found {found:?}, best {best:?}, seed {seed}"),
        }
    }

    #[test]
    fn figures_that_nobody_can_believe_change_nothing_for_the_others(seed: u64) {
        let mut problem = random_problem(seed, 4, 7);
        spoil(&mut problem, &mut Random(!seed));
        let found = plan(&problem).ok().map(|plan| plan.objective_value);
        let best = brute_force(&problem);
        prop_assert_eq!(found.is_some(), best.is_some(), "found {:?}, best {:?}, seed {}", found, best, seed);
        if let (Some(found), Some(best)) = (found, best) {
            prop_assert!((found - best).abs() <= 2e-7 * best, "found {found}, best {best}, seed {seed}");
        }
    }

    #[test]
    fn the_checker_accepts_every_plan_and_planning_again_keeps_it(seed: u64) {
        let mut problem = random_problem(seed, 6, 16);
        if let Ok(found) = plan(&problem) {
            prop_assert_eq!(check(&problem, &found), Ok(()));
            prop_assert_eq!(plan(&problem), Ok(found.clone()));
            problem.previous = Some(found.clone());
            let again = plan(&problem).unwrap();
            prop_assert!(again.places_like(&found), "{found:?} became {again:?}");
        }
    }
}
