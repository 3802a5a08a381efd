//! Fleets: the important ones first, and phones of their own unless all agree.

use std::collections::BTreeMap;

use polyphony_placement::{FleetDeployment, FleetPlan, check, plan, plan_fleet};

use crate::problems::{Random, phone, problem};

/// A deployment over four phones, of which one holds the model: 110 MiB.
fn deployment(name: &str, priority: i32, replicas: u32, shares_phones: bool) -> FleetDeployment {
    let phones =
        vec![phone("slow", 240, 4.0), phone("fast", 120, 1.0), phone("faster", 120, 0.5), phone("small", 60, 0.2)];
    let mut problem = problem(phones);
    problem.demand.max_phones = 1;
    FleetDeployment { name: name.to_owned(), priority, replicas, shares_phones, problem }
}

/// "name/replica: phones", in the order of the answers.
fn told(plans: &[FleetPlan]) -> Vec<String> {
    let phones = |one: &FleetPlan| match &one.planned {
        Ok(plan) => plan.stages.iter().map(|stage| stage.phone.clone()).collect::<Vec<_>>().join(", "),
        Err(why) => why.reason().to_owned(),
    };
    plans.iter().map(|one| format!("{}/{}: {}", one.deployment, one.replica, phones(one))).collect()
}

#[test]
fn a_higher_priority_chooses_first_and_replicas_take_phones_of_their_own() {
    let plans = plan_fleet(&[deployment("low", 0, 1, false), deployment("high", 5, 2, false)]);
    assert_eq!(told(&plans), ["low/0: slow", "high/0: faster", "high/1: fast"]);
}

#[test]
fn who_comes_too_late_is_told_what_is_short() {
    let plans = plan_fleet(&[deployment("first", 0, 3, false), deployment("second", 0, 1, false)]);
    assert_eq!(told(&plans), ["first/0: faster", "first/1: fast", "first/2: slow", "second/0: InsufficientMemory"]);
}

#[test]
fn phones_are_shared_only_where_all_allow_it() {
    let plans = plan_fleet(&[deployment("a", 1, 3, true), deployment("b", 0, 1, true)]);
    // Of the fast ones no room is left; the slow one holds both.
    assert_eq!(told(&plans), ["a/0: faster", "a/1: fast", "a/2: slow", "b/0: slow"]);
    let alone = plans[2].planned.as_ref().unwrap().predicted_inter_token_seconds;
    let beside = plans[3].planned.as_ref().unwrap().predicted_inter_token_seconds;
    assert!((beside - 2.0 * alone).abs() < 1e-9, "{beside} and {alone}");

    let plans = plan_fleet(&[deployment("a", 1, 3, true), deployment("b", 0, 1, false)]);
    assert_eq!(told(&plans)[3], "b/0: InsufficientMemory");
}

#[test]
fn one_deployment_of_one_replica_is_planned_as_by_itself() {
    let mut one = deployment("one", 0, 1, false);
    one.problem.demand.max_phones = 4;
    let expected = plan(&one.problem);
    assert_eq!(plan_fleet(&[one])[0].planned, expected);
}

#[test]
fn measured_links_stay_with_their_phones() {
    let mut first = deployment("first", 1, 1, false);
    let mut second = deployment("second", 0, 1, false);
    for one in [&mut first, &mut second] {
        one.problem =
            problem(vec![phone("a", 200, 0.1), phone("b", 75, 1.0), phone("c", 75, 1.0), phone("d", 75, 1.0)]);
        one.problem.links.measured.insert((3, 1), crate::problems::link(0.1));
        one.problem.links.measured.insert((1, 3), crate::problems::link(0.1));
    }
    let plans = plan_fleet(&[first, second]);
    assert_eq!(told(&plans)[0], "first/0: a");
    assert!(["second/0: b, d", "second/0: d, b"].contains(&told(&plans)[1].as_str()), "{:?}", told(&plans));
}

#[test]
fn a_large_fleet_gets_checked_plans_on_phones_of_their_own() {
    let mut random = Random(3);
    let phones: Vec<_> =
        (0..200).map(|i| phone(&format!("p{i}"), random.within(20, 90), random.between(0.3, 5.0))).collect();
    let deployments: Vec<_> = (0..12)
        .map(|i| {
            let mut one = deployment(&format!("d{i}"), i % 3, 2, false);
            one.problem = problem(phones.clone());
            one
        })
        .collect();
    let plans = plan_fleet(&deployments);
    assert_eq!(plans.len(), 24);
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for (one, deployment) in plans.iter().zip(deployments.iter().flat_map(|one| [one, one])) {
        let plan = one.planned.as_ref().unwrap();
        for stage in &plan.stages {
            *uses.entry(&stage.phone).or_default() += 1;
        }
        // Over the whole fleet the plan is right too, once the phones it was not asked about are named.
        let mut whole = plan.clone();
        whole.left_out = (deployment.problem.phones.iter())
            .filter(|phone| plan.stage_of(&phone.name).is_none())
            .map(|phone| polyphony_placement::LeftOut {
                phone: phone.name.clone(),
                why: polyphony_placement::WhyLeftOut::NoGain,
            })
            .collect();
        assert_eq!(check(&deployment.problem, &whole), Ok(()));
    }
    assert!(uses.values().all(|n| *n == 1));
    assert_eq!(plan_fleet(&deployments), plans);
}
