//! How long the planner takes and how good its plans are known to be: `cargo run -p polyphony-placement --example
//! planner_speed`, in the profile that the controller is built in; `-- WORD` measures the problems with that word in their names alone. Asserts
//! nothing about time.

use std::collections::BTreeMap;
use std::time::Instant;

use polyphony_placement::{
    Demand, Energy, FleetDeployment, Link, Links, Method, ModelCosts, Objective, PhoneCosts, Problem, Prompt, plan,
    plan_fleet,
};

const MIB: u64 = 1 << 20;
const RUNS: u64 = 9;

fn main() {
    println!(
        "{:54} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "problem", "median ms", "worst ms", "mean gap", "worst gap", "proven"
    );
    for (n_phones, n_layers) in [(4, 30), (7, 24), (10, 32), (16, 32), (32, 80)] {
        for objective in [Objective::Latency, Objective::Throughput] {
            for is_measured in [false, true] {
                let links = if is_measured { "every link measured" } else { "equal links" };
                let name = format!("{n_phones} phones × {n_layers} layers, {objective:?}, {links}");
                one(&name, |seed| farm(seed, n_phones, n_layers, objective, is_measured));
            }
        }
    }
    for (n_phones, n_layers) in [(4, 30), (7, 24), (10, 32), (32, 80)] {
        for is_measured in [false, true] {
            let links = if is_measured { "every link measured" } else { "equal links" };
            one(&format!("{n_phones} phones × {n_layers} layers, prompts of 300, {links}"), |seed| {
                let mut problem = farm(seed, n_phones, n_layers, Objective::Latency, is_measured);
                problem.demand.prompt = Some(Prompt { n_tokens: 300, chunk_tokens: 32, weight: 1.0 / 128.0 });
                problem
            });
        }
    }
    for (n_phones, n_layers) in [(4, 30), (7, 24), (10, 32), (32, 80)] {
        for is_measured in [false, true] {
            let links = if is_measured { "every link measured" } else { "equal links" };
            one(&format!("{n_phones} phones × {n_layers} layers, Efficiency with a floor, {links}"), |seed| {
                efficient(farm(seed, n_phones, n_layers, Objective::Latency, is_measured), seed)
            });
        }
    }
    one("32 phones × 80 uneven layers, prompts of 300, every link measured", |seed| {
        let mut problem = farm(seed, 32, 80, Objective::Latency, true);
        problem.demand.prompt = Some(Prompt { n_tokens: 300, chunk_tokens: 32, weight: 1.0 / 128.0 });
        problem.model.layer_bytes.iter_mut().step_by(3).for_each(|bytes| *bytes += *bytes / 5);
        problem
    });
    one("7 phones × 24 layers, 64 sessions, every link measured", |seed| {
        let mut problem = farm(seed, 7, 24, Objective::Throughput, true);
        problem.demand.max_sessions = 64;
        problem
    });
    if std::env::args().nth(1).is_none() {
        fleet();
    }
}

fn one(name: &str, problem: impl Fn(u64) -> Problem) {
    if std::env::args().nth(1).is_some_and(|word| !name.contains(&word)) {
        return;
    }
    let mut milliseconds = Vec::new();
    let mut gaps = Vec::new();
    let mut proven = 0;
    for seed in 0..RUNS {
        let problem = problem(seed);
        let began = Instant::now();
        let answer = plan(&problem);
        milliseconds.push(began.elapsed().as_secs_f64() * 1e3);
        match answer {
            Ok(plan) => {
                gaps.push(plan.gap);
                proven += u32::from(plan.method == Method::Exact);
            }
            Err(error) => println!("{name}, seed {seed}: {error}"),
        }
    }
    milliseconds.sort_by(f64::total_cmp);
    let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
    let worst = gaps.iter().fold(0.0f64, |a, &b| a.max(b));
    println!(
        "{name:54} {:9.1} {:9.1} {:8.2}% {:8.2}% {proven:>3}/{RUNS}",
        milliseconds[milliseconds.len() / 2],
        milliseconds[milliseconds.len() - 1],
        mean * 100.0,
        worst * 100.0
    );
}

fn fleet() {
    for shares_phones in [false, true] {
        let deployments = deployments(1_000, 40, shares_phones);
        let began = Instant::now();
        let plans = plan_fleet(&deployments);
        let seconds = began.elapsed().as_secs_f64();
        let gaps: Vec<f64> = plans.iter().filter_map(|one| Some(one.planned.as_ref().ok()?.gap)).collect();
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        for stage in plans.iter().filter_map(|one| one.planned.as_ref().ok()).flat_map(|plan| &plan.stages) {
            *uses.entry(&stage.phone).or_default() += 1;
        }
        println!(
            "fleet of 1000 phones, 40 deployments, {}: {seconds:.2} s, {} of {} replicas placed on {} phones, \
             gap mean {:.2}% worst {:.2}%, {} proven",
            if shares_phones { "phones shared" } else { "phones of their own" },
            gaps.len(),
            plans.len(),
            uses.len(),
            gaps.iter().sum::<f64>() / gaps.len().max(1) as f64 * 100.0,
            gaps.iter().fold(0.0f64, |a, &b| a.max(b)) * 100.0,
            gaps.iter().filter(|gap| **gap == 0.0).count(),
        );
    }
}

/// Phones of uneven speed and memory, of which several are needed.
fn farm(seed: u64, n_phones: usize, n_layers: usize, objective: Objective, is_measured: bool) -> Problem {
    let mut random = Random(seed * 1_000 + n_phones as u64);
    let model = model(n_layers, 20 * MIB);
    // On average a third of the phones are enough.
    let mean_mib = (n_layers as u64 * 20 + 100) * 3 / n_phones as u64 + 60;
    let phones = (0..n_phones).map(|i| phone(&mut random, i, mean_mib)).collect();
    let mut links = Links::uniform(Link { latency_seconds: 3e-3, bytes_per_second: 10e6 });
    if is_measured {
        for from in 0..n_phones {
            for to in (0..n_phones).filter(|&to| to != from) {
                let link =
                    Link { latency_seconds: random.between(1e-3, 15e-3), bytes_per_second: random.between(1e6, 20e6) };
                links.measured.insert((from, to), link);
            }
        }
    }
    Problem { model, phones, links, demand: demand(objective, 8), previous: None }
}

/// The same for the fewest joules, at two thirds of the highest speed.
fn efficient(mut problem: Problem, seed: u64) -> Problem {
    let mut random = Random(!seed);
    let fastest = plan(&problem).map_or(0.0, |plan| plan.predicted_inter_token_seconds);
    for phone in &mut problem.phones {
        let joule_weight = if random.below(3) == 0 { 0.25 } else { 1.0 };
        phone.energy = Energy { active_watts: Some(random.between(1.0, 9.0)), joule_weight, ..Energy::default() };
    }
    problem.demand.objective = Objective::Efficiency;
    problem.demand.min_tokens_per_second = (fastest > 0.0).then(|| 2.0 / 3.0 / fastest);
    problem
}

fn deployments(n_phones: usize, n_deployments: usize, shares_phones: bool) -> Vec<FleetDeployment> {
    let mut random = Random(7);
    let phones: Vec<PhoneCosts> = (0..n_phones).map(|i| phone(&mut random, i, 300)).collect();
    let mut links = Links::uniform(Link { latency_seconds: 3e-3, bytes_per_second: 10e6 });
    for _ in 0..n_phones * 4 {
        let (from, to) = (random.below(n_phones), random.below(n_phones));
        let link = Link { latency_seconds: random.between(1e-3, 15e-3), bytes_per_second: 10e6 };
        links.measured.insert((from, to), link);
    }
    let one = |i: usize| {
        let n_layers = 22 + random.below(42);
        let objective = if i.is_multiple_of(2) { Objective::Latency } else { Objective::Throughput };
        let problem = Problem {
            model: model(n_layers, 10 * MIB + random.below(40) as u64 * MIB),
            phones: phones.clone(),
            links: links.clone(),
            demand: demand(objective, 4),
            previous: None,
        };
        let (priority, replicas) = (random.below(5) as i32, 1 + random.below(3) as u32);
        FleetDeployment { name: format!("deployment-{i}"), priority, replicas, shares_phones, problem }
    };
    (0..n_deployments).map(one).collect()
}

fn model(n_layers: usize, layer_bytes: u64) -> ModelCosts {
    ModelCosts {
        layer_bytes: vec![layer_bytes; n_layers],
        embedding_bytes: 30 * MIB,
        head_bytes: 30 * MIB,
        shared_bytes: 30 * MIB,
        kv_bytes_per_token_per_layer: 512,
        activation_bytes: MIB,
        hop_bytes: 1186,
        layer_multiply_adds: 3_500_000,
        head_multiply_adds: 28_000_000,
        logits_bytes: 196_608,
        second_embedding: None,
        experts: None,
    }
}

fn phone(random: &mut Random, i: usize, mean_mib: u64) -> PhoneCosts {
    let seconds_per_layer = random.between(0.5e-3, 6e-3);
    PhoneCosts {
        name: format!("phone-{i:04}"),
        is_trusted: true,
        allocatable_bytes: (mean_mib as f64 * random.between(0.5, 1.5)) as u64 * MIB,
        seconds_per_layer,
        seconds_per_layer_per_further_row: Some(seconds_per_layer * random.between(0.3, 0.9)),
        seconds_per_step: random.between(1e-4, 5e-4),
        seconds_embedding: 1e-5,
        seconds_head: seconds_per_layer * 8.0,
        seconds_head_per_further_row: Some(seconds_per_layer * 4.0),
        prefill_seconds_per_layer_per_token: seconds_per_layer / 4.0,
        energy: Energy::default(),
    }
}

fn demand(objective: Objective, max_sessions: u32) -> Demand {
    Demand {
        context_length: 1024,
        max_sessions,
        generations_in_memory: 1.0,
        objective,
        min_tokens_per_second: None,
        min_phones: 1,
        max_phones: u32::MAX,
        memory_fraction: 0.9,
        overlap: true,
        prompt: None,
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
