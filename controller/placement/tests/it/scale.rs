//! Scale: more phones than the exact solver takes. How long it takes is for the benches.

use polyphony_placement::{Demand, Link, Method, Objective, Problem, Prompt, check, plan};

use crate::problems::{MIB, Random, phone, problem};

/// A farm with a link measured between every two of its first phones.
fn farm(n_phones: u64, n_layers: usize, n_measured: usize) -> Problem {
    let mut random = Random(n_phones);
    let phones =
        (0..n_phones).map(|i| phone(&format!("p{i}"), random.within(60, 300), random.between(0.5, 6.0))).collect();
    let mut problem = problem(phones);
    problem.model.layer_bytes = vec![20 * MIB; n_layers];
    for from in 0..n_measured {
        for to in (0..n_measured).filter(|&to| to != from) {
            let latency_seconds = random.between(1e-3, 20e-3);
            problem.links.measured.insert((from, to), Link { latency_seconds, bytes_per_second: 5e6 });
        }
    }
    problem
}

#[test]
fn many_phones_give_a_checked_plan_that_states_its_gap() {
    for objective in [Objective::Latency, Objective::Throughput] {
        for (n_phones, n_layers, n_measured) in [(20, 40, 20), (20, 40, 0), (300, 30, 20)] {
            for prompt in [None, Some(Prompt { n_tokens: 4000, chunk_tokens: 32, weight: 1.0 / 128.0 })] {
                let mut problem = farm(n_phones, n_layers, n_measured);
                problem.demand = Demand { objective, max_sessions: 8, prompt, ..problem.demand };
                let plan = plan(&problem).unwrap();
                assert_eq!(check(&problem, &plan), Ok(()));
                assert_eq!(plan.method == Method::Exact, plan.gap == 0.0);
                // What the bound leaves open is links, and of many phones parts of layers: never all that a prompt costs.
                assert!((0.0..0.5).contains(&plan.gap), "{objective:?}, {n_phones} phones, {prompt:?}: {}", plan.gap);
            }
        }
    }
}

#[test]
fn every_phone_is_used_when_memory_asks_for_it() {
    let phones = (0..24).map(|i| phone(&format!("p{i}"), 15, 1.0 + f64::from(i) / 10.0)).collect();
    let mut problem = problem(phones);
    problem.model.layer_bytes = vec![10 * MIB; 24];
    let plan = plan(&problem).unwrap();
    assert_eq!(plan.stages.len(), 24);
}
