//! Refusals: what is said when there is no plan.

use polyphony_placement::{Infeasible, Link, Problem, plan};

use crate::problems::{MIB, phone, problem};

fn refusal(problem: &Problem) -> Infeasible {
    plan(problem).unwrap_err()
}

#[test]
fn too_little_memory_names_the_shortfall() {
    let refusal = refusal(&problem(vec![phone("a", 40, 1.0), phone("b", 30, 1.0)]));
    assert_eq!(refusal.reason(), "InsufficientMemory");
    assert_eq!(refusal.shortfall_bytes(), Some(40 * MIB));
    assert_eq!(
        refusal.to_string(),
        "the model with its KV cache takes 110.0 MiB and 2 phones can give 70.0 MiB, 40.0 MiB short: \
         add phones, or raise memoryFraction or maxPhones, or lower contextLength, maxSessions or the model's size"
    );
}

#[test]
fn a_limit_on_phones_counts_only_the_roomiest() {
    let mut problem = problem(vec![phone("a", 40, 1.0), phone("b", 60, 1.0), phone("c", 40, 1.0)]);
    assert!(plan(&problem).is_ok());
    problem.demand.max_phones = 2;
    assert_eq!(
        refusal(&problem),
        Infeasible::Memory {
            needed_bytes: 110 * MIB,
            available_bytes: 100 * MIB,
            shortfall_bytes: 10 * MIB,
            n_phones: 2
        }
    );
}

#[test]
fn a_layer_over_every_budget_is_named() {
    let mut problem = problem(vec![phone("a", 60, 1.0), phone("b", 70, 1.0), phone("c", 60, 1.0)]);
    problem.model.layer_bytes[3] = 80 * MIB;
    let refusal = refusal(&problem);
    assert_eq!(refusal.reason(), "PieceTooLarge");
    assert!(
        refusal
            .to_string()
            .starts_with("layer 3 takes 80.0 MiB and the largest budget is 70.0 MiB on b, 10.0 MiB short")
    );
}

#[test]
fn whole_layers_that_leave_no_split_are_told_from_too_little_memory() {
    // Eight phones of 19 MiB hold one layer each; ten layers need ten.
    let phones = (0..8).map(|i| phone(&format!("p{i}"), 19, 1.0)).collect();
    assert_eq!(refusal(&problem(phones)).reason(), "LayersDoNotFit");
}

#[test]
fn a_broken_demand_or_an_empty_house_is_refused_by_name() {
    let two = || problem(vec![phone("a", 200, 1.0), phone("b", 200, 1.0)]);
    let with = |change: fn(&mut Problem)| {
        let mut problem = two();
        change(&mut problem);
        problem
    };
    let cases = [
        (problem(vec![]), "NoPhones"),
        (with(|p| p.demand.min_phones = 3), "TooFewPhones"),
        (with(|p| p.phones.iter_mut().for_each(|p| p.is_trusted = false)), "NoTrustedPhones"),
        (
            with(|p| {
                p.phones[0].is_trusted = false;
                p.phones[1].allocatable_bytes = 14 * MIB;
            }),
            "TrustedPhonesTooSmall",
        ),
        (with(|p| p.demand.max_phones = 0), "InvalidDemand"),
        (with(|p| (p.demand.min_phones, p.demand.max_phones) = (2, 1)), "InvalidDemand"),
        (with(|p| p.demand.memory_fraction = 0.0), "InvalidDemand"),
        (with(|p| p.demand.memory_fraction = f64::NAN), "InvalidDemand"),
        (with(|p| p.demand.generations_in_memory = 0.5), "InvalidDemand"),
        (with(|p| p.model.layer_bytes.clear()), "NoLayers"),
        (with(|p| (p.model.layer_bytes, p.demand.min_phones) = (vec![MIB], 2)), "TooFewLayers"),
        (with(|p| p.phones.iter_mut().for_each(|p| p.seconds_per_layer = -1.0)), "NoUsablePhones"),
        (with(|p| p.model.kv_bytes_per_token_per_layer = u64::MAX), "TooManyBytes"),
        (with(|p| p.model.layer_bytes[3] = u64::MAX), "TooManyBytes"),
        (with(|p| p.phones.iter_mut().for_each(|p| p.allocatable_bytes = 0)), "InsufficientMemory"),
        (with(|p| (p.links.default, p.demand.min_phones) = (Link::UNREACHABLE, 2)), "PhonesUnreachable"),
    ];
    for (problem, reason) in cases {
        let refusal = refusal(&problem);
        assert_eq!(refusal.reason(), reason, "{refusal}");
        let text = refusal.to_string();
        assert!(text.contains(": ") && !text.ends_with('.'), "no remedy in: {text}");
    }
}
