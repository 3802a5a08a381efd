//! Decisions: small problems whose best plan a person can name.

use polyphony_placement::{
    Bound, Link, Method, Objective, PhoneCosts, Plan, Problem, Prompt, WhyLeftOut, plan, time_to_first_token_seconds,
};

use crate::problems::{MIB, link, phone, problem};

/// "a 0..4, b 4..10" in ring order.
fn placed(plan: &Plan) -> String {
    let stage = |s: &polyphony_placement::Stage| format!("{} {}..{}", s.phone, s.holds.layers_from, s.holds.layers_to);
    plan.stages.iter().map(stage).collect::<Vec<_>>().join(", ")
}

fn decide(problem: &Problem) -> Plan {
    plan(problem).unwrap()
}

/// Every layer 10 MiB, embedding and head 5 MiB each: 110 MiB in all.
#[test]
fn the_plan_is_the_one_a_person_would_choose() {
    struct Case {
        name: &'static str,
        phones: Vec<PhoneCosts>,
        change: fn(&mut Problem),
        expected: &'static str,
    }
    let same = |_: &mut Problem| {};
    let cases = [
        Case {
            name: "one phone fits, so one phone is best",
            phones: vec![phone("a", 200, 1.0), phone("b", 200, 1.0)],
            change: same,
            expected: "a 0..10",
        },
        Case {
            name: "the faster of two that fit",
            phones: vec![phone("a", 200, 2.0), phone("b", 200, 1.0)],
            change: same,
            expected: "b 0..10",
        },
        Case {
            name: "neither fits alone: the faster holds what it can",
            phones: vec![phone("a", 95, 1.0), phone("b", 95, 2.0)],
            change: same,
            expected: "a 0..9, b 9..10",
        },
        Case {
            name: "a slow phone that memory does not ask for is left out",
            phones: vec![phone("a", 75, 1.0), phone("b", 75, 1.0), phone("slow", 200, 9.0)],
            change: same,
            expected: "a 0..5, b 5..10",
        },
        Case {
            name: "two fast phones and a hop beat one slow phone that fits alone",
            phones: vec![phone("slow", 200, 9.0), phone("a", 75, 1.0), phone("b", 75, 1.0)],
            change: same,
            expected: "a 0..5, b 5..10",
        },
        Case {
            name: "with slow links the slow phone alone is better",
            phones: vec![phone("slow", 200, 9.0), phone("a", 75, 1.0), phone("b", 75, 1.0)],
            change: |p| p.links.default = link(60.0),
            expected: "slow 0..10",
        },
        Case {
            name: "spreading can be asked for",
            phones: vec![phone("a", 200, 1.0), phone("b", 200, 2.0), phone("c", 200, 3.0)],
            change: |p| p.demand.min_phones = 3,
            expected: "a 0..8, b 8..9, c 9..10",
        },
        Case {
            name: "throughput balances the stages",
            phones: vec![phone("a", 200, 1.0), phone("b", 200, 4.0)],
            change: |p| {
                p.demand.objective = Objective::Throughput;
                p.demand.max_sessions = 8;
            },
            expected: "a 0..8, b 8..10",
        },
        Case {
            name: "one session gains nothing from a second stage",
            phones: vec![phone("a", 200, 1.0), phone("b", 200, 1.0)],
            change: |p| p.demand.objective = Objective::Throughput,
            expected: "a 0..10",
        },
        Case {
            name: "the KV cache of all sessions is counted",
            // 1024 tokens × 4 sessions × 1 KiB = 4 MiB a layer: 150 MiB in all.
            phones: vec![phone("a", 149, 1.0), phone("b", 149, 1.0)],
            change: |p| {
                p.model.kv_bytes_per_token_per_layer = 1024;
                p.demand.max_sessions = 4;
            },
            expected: "a 0..5, b 5..10",
        },
        Case {
            name: "room for a second generation is kept",
            phones: vec![phone("a", 200, 1.0), phone("b", 200, 1.0)],
            change: |p| p.demand.generations_in_memory = 2.0,
            expected: "a 0..5, b 5..10",
        },
        Case {
            name: "only the allowed fraction of memory is used",
            phones: vec![phone("a", 200, 1.0), phone("b", 200, 1.0)],
            change: |p| p.demand.memory_fraction = 0.5,
            expected: "a 0..5, b 5..10",
        },
        Case {
            name: "equal phones stand in their own order",
            phones: vec![phone("p1", 50, 1.0), phone("p2", 50, 1.0), phone("p3", 50, 1.0)],
            change: same,
            expected: "p1 0..2, p2 2..6, p3 6..10",
        },
    ];
    for Case { name, phones, change, expected } in cases {
        let mut problem = problem(phones);
        change(&mut problem);
        let plan = decide(&problem);
        assert_eq!(placed(&plan), expected, "{name}");
        assert_eq!(plan.method, Method::Exact, "{name}");
    }
}

#[test]
fn a_tied_embedding_is_counted_on_head_and_tail_but_once_on_one_phone() {
    // 100 MiB of layers and a shared matrix of 30 MiB.
    let with = |first_mib: u64, second_mib: u64| {
        let mut problem = problem(vec![phone("a", first_mib, 1.0), phone("b", second_mib, 1.0)]);
        problem.model.embedding_bytes = 30 * MIB;
        problem.model.head_bytes = 30 * MIB;
        problem.model.shared_bytes = 30 * MIB;
        problem
    };
    assert_eq!(placed(&decide(&with(130, 10))), "a 0..10");
    assert_eq!(decide(&with(130, 10)).stages[0].bytes, 130 * MIB);

    let two = decide(&with(80, 80));
    assert_eq!(placed(&two), "a 0..5, b 5..10");
    assert!(two.stages.iter().all(|stage| stage.bytes == 80 * MIB));
    // One MiB less and the second copy no longer fits.
    assert_eq!(plan(&with(80, 79)).unwrap_err().shortfall_bytes(), Some(MIB));
}

#[test]
fn measured_links_decide_the_order() {
    let mut problem = problem(vec![phone("a", 50, 1.0), phone("b", 50, 1.0), phone("c", 50, 1.0)]);
    problem.links.default = link(50.0);
    for pair in [(2, 0), (0, 1), (1, 2)] {
        problem.links.measured.insert(pair, link(1.0));
    }
    let plan = decide(&problem);
    let names: String = plan.stages.iter().map(|stage| stage.phone.as_str()).collect();
    assert!(["abc", "bca", "cab"].contains(&names.as_str()), "{names}");
    assert!(plan.stages.iter().all(|stage| stage.predicted_hop_seconds < 2e-3));
}

#[test]
fn phones_that_cannot_reach_each_other_are_never_neighbours() {
    let mut problem = problem(vec![phone("a", 50, 1.0), phone("b", 50, 1.0), phone("c", 50, 1.0)]);
    problem.links.measured.insert((0, 1), Link::UNREACHABLE);
    let plan = decide(&problem);
    let names: String = plan.stages.iter().map(|stage| stage.phone.as_str()).collect();
    assert!(["acb", "cba", "bac"].contains(&names.as_str()), "{names}");
}

#[test]
fn the_previous_plan_is_kept_on_a_tie_and_left_for_a_better_one() {
    let mut problem = problem(vec![phone("a", 75, 1.0), phone("b", 75, 1.0), phone("c", 75, 1.0)]);
    let fresh = decide(&problem);
    assert_eq!(fresh.stage_of("c"), None);

    let mut other = problem.clone();
    other.phones.remove(0);
    problem.previous = Some(decide(&other));
    let kept = decide(&problem);
    assert!(kept.places_like(problem.previous.as_ref().unwrap()), "{}", placed(&kept));

    problem.phones[2].seconds_per_layer *= 1.01;
    let left = decide(&problem);
    assert_eq!(left.stage_of("c"), None, "{}", placed(&left));
}

#[test]
fn a_previous_plan_of_a_lost_phone_or_another_model_is_no_obstacle() {
    let mut problem = problem(vec![phone("a", 75, 1.0), phone("b", 75, 1.0)]);
    let plan = decide(&problem);
    let mut lost = plan.clone();
    lost.stages[0].phone = "gone".to_owned();
    let mut longer = plan.clone();
    longer.stages[1].holds.layers_to = 11;
    for previous in [lost, longer] {
        problem.previous = Some(previous);
        assert_eq!(decide(&problem), plan);
    }
}

#[test]
fn phones_left_out_are_named_with_their_reason() {
    let mut broken = phone("broken", 200, 1.0);
    broken.seconds_per_layer = f64::NAN;
    let problem = problem(vec![phone("tiny", 9, 1.0), broken, phone("a", 200, 1.0), phone("b", 200, 2.0)]);
    let plan = decide(&problem);
    let reasons: Vec<_> = plan.left_out.iter().map(|out| (out.phone.as_str(), out.why)).collect();
    assert_eq!(
        reasons,
        [("tiny", WhyLeftOut::TooLittleMemory), ("broken", WhyLeftOut::UnusableFigures), ("b", WhyLeftOut::NoGain),]
    );
}

#[test]
fn the_plan_says_what_binds() {
    let alone = problem(vec![phone("a", 200, 1.0)]);
    assert_eq!(decide(&alone).bound, Bound::Stage { phone: "a".to_owned() });

    let full = problem(vec![phone("a", 75, 1.0), phone("b", 75, 2.0)]);
    assert_eq!(decide(&full).bound, Bound::Memory { phone: "a".to_owned() });

    let mut spread = problem(vec![phone("a", 200, 1.0), phone("b", 200, 2.0)]);
    spread.demand.min_phones = 2;
    assert_eq!(decide(&spread).bound, Bound::MinPhones { min_phones: 2 });

    let mut few = problem(vec![phone("a", 200, 1.0), phone("b", 200, 1.0)]);
    few.demand.objective = Objective::Throughput;
    assert_eq!(decide(&few).bound, Bound::Stage { phone: "a".to_owned() });
    few.demand.min_phones = 2;
    assert_eq!(decide(&few).bound, Bound::Sessions { max_sessions: 1 });

    let mut wire = problem(vec![phone("a", 75, 1.0), phone("b", 75, 1.0)]);
    wire.demand.objective = Objective::Throughput;
    wire.demand.max_sessions = 8;
    wire.links.default = Link { latency_seconds: 1e-3, bytes_per_second: 10e3 };
    let hop = Bound::Hop { from: "a".to_owned(), to: "b".to_owned() };
    assert_eq!(decide(&wire).bound, hop);
}

#[test]
fn sessions_go_around_in_the_groups_that_give_the_most_tokens() {
    // Phones, sessions, a further row beside the first: alone everything goes at once; a ring is kept full; and more so where
    // a further row costs as much as the first.
    for (n_phones, max_sessions, further, expected) in
        [(1, 6, 0.4, 1), (1, 1, 0.4, 1), (2, 4, 0.4, 2), (3, 6, 0.4, 3), (2, 4, 1.0, 3), (3, 2, 0.4, 2)]
    {
        for objective in [Objective::Latency, Objective::Throughput] {
            let one = |name: &str| {
                let mut one = phone(name, 200, 1.0);
                one.seconds_per_layer_per_further_row = Some(further * one.seconds_per_layer);
                one
            };
            let mut problem = problem(["a", "b", "c"][..n_phones].iter().map(|name| one(name)).collect());
            problem.demand.objective = objective;
            problem.demand.max_sessions = max_sessions;
            problem.demand.min_phones = n_phones as u32;
            problem.links.default = Link { latency_seconds: 1e-5, bytes_per_second: 1e9 };
            let groups = decide(&problem).session_groups;
            if objective == Objective::Throughput || n_phones == 1 {
                assert_eq!(groups, expected, "{n_phones} phones, {max_sessions} sessions, {further}");
            }
            assert!((1..=max_sessions).contains(&groups));
        }
    }
}

#[test]
fn predictions_add_up() {
    let mut problem = problem(vec![phone("a", 75, 1.0), phone("b", 75, 2.0)]);
    problem.phones[0].seconds_embedding = 1e-3;
    problem.phones[0].seconds_head = 9e-3;
    problem.phones[1].seconds_head = 5e-3;
    let plan = decide(&problem);
    assert_eq!(placed(&plan), "a 0..7, b 7..10");
    // 7 + 1 ms, 3 ms + 1024 bytes at 10 MB/s, 3 × 2 + 5 ms, 3 ms back.
    let expected = 8e-3 + (3e-3 + 1024.0 / 10e6) + 11e-3 + 3e-3;
    assert!((plan.predicted_inter_token_seconds - expected).abs() < 1e-9);
    assert!((plan.predicted_tokens_per_second - 1.0 / expected).abs() < 1e-6);

    // Prefill of 100 tokens in chunks of 50: a chunk takes 35 ms on a, with the embedding 36, and 30 ms on b.
    let hop = 3e-3 + 50.0 * 1024.0 / 10e6;
    let expected = 36e-3 + (36e-3 + hop + 30e-3 + 5e-3);
    let found = time_to_first_token_seconds(&problem, &plan, 100, 50);
    assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
}

/// A token takes as long wherever phones that are nearly equal have its layers; a prompt goes through sooner where they share them.
#[test]
fn a_prompt_that_counts_evens_out_the_stages() {
    let mut problem = problem(vec![phone("a", 200, 1.0), phone("b", 200, 0.99), phone("c", 200, 1.01)]);
    problem.demand.min_phones = 3;
    assert_eq!(placed(&decide(&problem)), "b 0..8, a 8..9, c 9..10");
    let prompt = Prompt { n_tokens: 300, chunk_tokens: 32, weight: 1.0 / 128.0 };
    problem.demand.prompt = Some(prompt);
    let read = decide(&problem);
    assert_eq!((placed(&read).as_str(), read.method), ("a 0..4, b 4..8, c 8..10", Method::Exact));
    let seconds = time_to_first_token_seconds(&problem, &read, 300, 32);
    let expected = read.predicted_inter_token_seconds + seconds / 128.0;
    assert!((read.objective_value - expected).abs() < 1e-9, "{} and {expected}", read.objective_value);
    assert!((read.predicted_tokens_per_second * read.predicted_inter_token_seconds - 1.0).abs() < 1e-9);
    // One phone less is a hop less of each token, and a third more of each chunk: who waits for a long prompt wants all three.
    problem.demand.min_phones = 0;
    assert_eq!(decide(&problem).stages.len(), 1);
    problem.demand.prompt = Some(Prompt { n_tokens: 4000, ..prompt });
    assert_eq!(decide(&problem).stages.len(), 3);
    problem.demand.prompt = Some(Prompt { n_tokens: 4000, weight: 0.0, ..prompt });
    assert_eq!(decide(&problem).stages.len(), 1);
}

/// Sessions' prompts keep stages busy: the phone that reads them slowly has fewer layers of a ring that is shared.
#[test]
fn prompts_of_many_sessions_take_their_part_of_a_stage() {
    let mut problem = problem(vec![phone("a", 200, 1.0), phone("b", 200, 1.0)]);
    problem.demand.objective = Objective::Throughput;
    problem.demand.max_sessions = 8;
    problem.phones[1].prefill_seconds_per_layer_per_token *= 4.0;
    assert_eq!(placed(&decide(&problem)), "a 0..5, b 5..10");
    problem.demand.prompt = Some(Prompt { n_tokens: 1280, chunk_tokens: 32, weight: 1.0 / 128.0 });
    // Two milliseconds a layer and token on a, and five on b.
    let read = decide(&problem);
    assert_eq!(placed(&read), "a 0..7, b 7..10");
    assert!(read.predicted_tokens_per_second > 1.0 / read.objective_value, "tokens alone take less");
}
