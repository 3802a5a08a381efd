//! Builders of problems, and random ones from a seed.

use polyphony_placement::{Access, Demand, Energy, Link, Links, ModelCosts, Objective, PhoneCosts, Problem, Prompt};

pub(crate) const MIB: u64 = 1 << 20;

/// Ten layers of 10 MiB, embedding and head of 5 MiB each, no KV cache.
pub(crate) fn model() -> ModelCosts {
    ModelCosts {
        layer_bytes: vec![10 * MIB; 10],
        embedding_bytes: 5 * MIB,
        head_bytes: 5 * MIB,
        shared_bytes: 0,
        kv_bytes_per_token_per_layer: 0,
        activation_bytes: 0,
        hop_bytes: 1024,
        layer_multiply_adds: 3_000_000,
        head_multiply_adds: 28_000_000,
        logits_bytes: 196_608,
        second_embedding: None,
        experts: None,
    }
}

pub(crate) fn phone(name: &str, allocatable_mib: u64, milliseconds_per_layer: f64) -> PhoneCosts {
    PhoneCosts {
        name: name.to_owned(),
        is_trusted: true,
        allocatable_bytes: allocatable_mib * MIB,
        seconds_per_layer: milliseconds_per_layer * 1e-3,
        seconds_per_layer_per_further_row: None,
        seconds_per_step: 0.0,
        seconds_embedding: 0.0,
        seconds_head: 0.0,
        seconds_head_per_further_row: None,
        prefill_seconds_per_layer_per_token: milliseconds_per_layer * 1e-4,
        energy: Energy::default(),
    }
}

pub(crate) fn link(latency_milliseconds: f64) -> Link {
    Link { latency_seconds: latency_milliseconds * 1e-3, bytes_per_second: 10e6 }
}

/// The model over `phones`, 3 ms links, Latency.
pub(crate) fn problem(phones: Vec<PhoneCosts>) -> Problem {
    Problem {
        model: model(),
        phones,
        links: Links::uniform(link(3.0)),
        demand: Demand {
            context_length: 1024,
            max_sessions: 1,
            generations_in_memory: 1.0,
            objective: Objective::Latency,
            min_tokens_per_second: None,
            min_phones: 1,
            max_phones: u32::MAX,
            memory_fraction: 1.0,
            overlap: false,
            prompt: None,
        },
        previous: None,
    }
}

/// Small, fast, even enough: splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [from, to].
    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    pub(crate) fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.next().is_multiple_of(one_in)
    }
}

/// A problem of up to `max_phones` phones: tight or wide memory, even or uneven layers, measured or default
/// links, either objective.
pub(crate) fn random_problem(seed: u64, max_phones: u64, max_layers: u64) -> Problem {
    let mut random = Random(seed);
    let n_layers = random.within(1, max_layers) as usize;
    let uneven = random.chance(3);
    let layer_bytes: Vec<u64> =
        (0..n_layers).map(|_| if uneven { random.within(4 * MIB, 16 * MIB) } else { 10 * MIB }).collect();
    let tied = random.chance(2);
    let embedding_bytes = random.within(0, 30) * MIB;
    let model = ModelCosts {
        embedding_bytes,
        head_bytes: if tied { embedding_bytes } else { random.within(0, 30) * MIB },
        shared_bytes: if tied { embedding_bytes } else { 0 },
        kv_bytes_per_token_per_layer: random.within(0, 2048),
        activation_bytes: random.within(0, 4) * MIB,
        hop_bytes: random.within(500, 10_000),
        ..ModelCosts { layer_bytes, ..model() }
    };
    let n_phones = random.within(1, max_phones);
    let total_mib = n_layers as u64 * 12 + 60;
    let alike = random.chance(4);
    let speed = random.between(0.2, 8.0);
    let mut phones: Vec<PhoneCosts> = (0..n_phones)
        .map(|i| {
            let speed = if alike { speed } else { random.between(0.2, 8.0) };
            let mut phone = phone(&format!("phone-{i}"), random.within(total_mib / 6, total_mib * 5 / 4), speed);
            phone.seconds_embedding = random.between(0.0, 1e-3);
            phone.seconds_head = random.between(0.0, 2e-2);
            if random.chance(2) {
                phone.seconds_per_step = random.between(0.0, 3e-3);
            }
            if random.chance(2) {
                phone.seconds_per_layer_per_further_row = Some(phone.seconds_per_layer * random.between(0.1, 1.0));
                phone.seconds_head_per_further_row = Some(phone.seconds_head * random.between(0.1, 1.0));
            }
            phone
        })
        .collect();
    let mut links = Links::uniform(link(random.between(0.1, 20.0)));
    if random.chance(2) {
        for from in 0..phones.len() {
            for to in (0..phones.len()).filter(|&to| to != from) {
                if random.chance(12) {
                    links.measured.insert((from, to), Link::UNREACHABLE);
                } else if !random.chance(4) {
                    let bytes_per_second = random.between(1e5, 2e7);
                    let latency_seconds = random.between(1e-4, 4e-2);
                    links.measured.insert((from, to), Link { latency_seconds, bytes_per_second });
                }
            }
        }
    }
    let min_phones = if random.chance(4) { random.within(1, n_phones) as u32 } else { 0 };
    let max_phones = if random.chance(4) { random.within(min_phones.max(1).into(), n_phones) as u32 } else { u32::MAX };
    let demand = Demand {
        context_length: 1024,
        max_sessions: random.within(1, 6) as u32,
        generations_in_memory: if random.chance(3) { random.between(1.0, 1.5) } else { 1.0 },
        objective: if random.chance(2) { Objective::Latency } else { Objective::Throughput },
        min_tokens_per_second: None,
        min_phones,
        max_phones,
        memory_fraction: if random.chance(3) { 0.8 } else { 1.0 },
        overlap: random.chance(2),
        prompt: None,
    };
    // Of some phones the access is known, which tells of ways that nobody has measured.
    if random.chance(3) {
        let access = |random: &mut Random| Access {
            delay_seconds: random.between(1e-4, 2e-2),
            bytes_per_second: random.between(1e5, 2e7),
        };
        let is_whole = random.chance(2);
        links.access = phones.iter().map(|_| (is_whole || random.chance(2)).then(|| access(&mut random))).collect();
    }
    // Some are not trusted with layers that see text, of which a model with an encoder has one more.
    let mut model = model;
    if random.chance(3) {
        phones.iter_mut().for_each(|phone| phone.is_trusted = random.chance(2));
        model.second_embedding = random.chance(2).then(|| random.within(0, n_layers as u64 - 1) as u32);
    }
    // The first token of some answers is waited for.
    let mut demand = demand;
    if random.chance(3) {
        let (n_tokens, chunk_tokens) = (random.within(1, 300) as u32, random.within(1, 64) as u32);
        demand.prompt = Some(Prompt { n_tokens, chunk_tokens, weight: random.between(0.0, 0.05) });
        for phone in &mut phones {
            phone.prefill_seconds_per_layer_per_token = phone.seconds_per_layer * random.between(0.02, 1.0);
        }
    }
    Problem { model, phones, links, demand, previous: None }
}

/// The same with the fewest joules to be found: watts that most phones tell, some that charge, and mostly a floor, which now and then no plan
/// keeps.
pub(crate) fn random_efficient_problem(seed: u64, max_phones: u64, max_layers: u64) -> Problem {
    let mut problem = random_problem(seed, max_phones, max_layers);
    let mut random = Random(seed ^ 0x5eed_0f3e_2117);
    problem.demand.objective = Objective::Latency;
    let fastest = polyphony_placement::plan(&Problem {
        demand: Demand { prompt: None, ..problem.demand.clone() },
        ..problem.clone()
    });
    problem.demand.objective = Objective::Efficiency;
    let is_even = random.chance(6);
    for phone in &mut problem.phones {
        let watts = if is_even { 3.0 } else { random.between(0.5, 9.0) };
        phone.energy = Energy {
            active_watts: (!random.chance(6)).then_some(watts),
            joule_weight: if random.chance(3) { 0.25 } else { 1.0 },
            busy_share: if random.chance(8) { 0.5 } else { 1.0 },
        };
    }
    if let (Ok(fastest), false) = (fastest, random.chance(4)) {
        let part = random.between(0.25, 1.05);
        problem.demand.min_tokens_per_second = Some(part / fastest.predicted_inter_token_seconds);
    }
    problem
}

/// Replaces some figures by ones that a broken probe might send.
pub(crate) fn spoil(problem: &mut Problem, random: &mut Random) {
    let figures = [0.0, 5e-324, 1e-300, 1e-15, 1e-6, 1.0, 1e6, 1e300, f64::INFINITY, f64::NAN, -1.0];
    let sizes = [0, 1, u64::MAX / 2, u64::MAX];
    for _ in 0..3 {
        let figure = figures[random.within(0, figures.len() as u64 - 1) as usize];
        let size = sizes[random.within(0, sizes.len() as u64 - 1) as usize];
        let last = problem.phones.len() as u64 - 1;
        let (i, j) = (random.within(0, last) as usize, random.within(0, last) as usize);
        match random.within(0, 9) {
            0 => problem.phones[i].seconds_per_layer = figure,
            1 => problem.phones[i].seconds_embedding = figure,
            2 => problem.phones[i].seconds_head = figure,
            3 => drop(problem.links.measured.insert((i, j), Link { latency_seconds: figure, ..link(1.0) })),
            4 => drop(problem.links.measured.insert((i, j), Link { bytes_per_second: figure, ..link(1.0) })),
            5 => problem.phones[i].seconds_per_step = figure,
            6 => problem.phones[i].seconds_per_layer_per_further_row = Some(figure),
            7 => problem.phones[i].seconds_head_per_further_row = Some(figure),
            8 => problem.phones[i].prefill_seconds_per_layer_per_token = figure,
            _ => problem.phones[i].allocatable_bytes = size,
        }
    }
}
