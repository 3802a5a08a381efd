//! LinguaLinked's programme by brute force: its objective written out as published, over all x.

use polyphony_placement::{MAX_SECONDS, Plan, Problem};

/// The least objective over all arrangements, None when there is none, and the objective of a plan.
pub(crate) fn least_objective(problem: &Problem) -> Option<(f64, impl Fn(&Plan) -> f64)> {
    let usable = usable(problem);
    let mut best = None;
    let mut x = vec![*usable.first()?];
    arrangements(problem, &usable, &mut x, &mut best);
    let index = |name: &str| problem.phones.iter().position(|phone| phone.name == name).unwrap();
    let value = move |plan: &Plan| {
        let of = |stage: &polyphony_placement::Stage| vec![index(&stage.phone); stage.holds.n_layers() as usize];
        let x: Vec<usize> = plan.stages.iter().flat_map(of).collect();
        objective(problem, &x).unwrap()
    };
    Some((best?, value))
}

/// Phones that can hold a layer anywhere: the first of them is the first device.
fn usable(problem: &Problem) -> Vec<usize> {
    let n = problem.model.layer_bytes.len();
    let holds = |&phone: &usize| (0..n).any(|layer| fits(problem, phone, layer, layer + 1));
    (0..problem.phones.len()).filter(holds).collect()
}

/// `x[j]` is the device of module j, the first one given.
fn arrangements(problem: &Problem, usable: &[usize], x: &mut Vec<usize>, best: &mut Option<f64>) {
    if x.len() == problem.model.layer_bytes.len() {
        if let Some(value) = objective(problem, x)
            && best.is_none_or(|known| value < known)
        {
            *best = Some(value);
        }
        return;
    }
    for &phone in usable {
        let last = x[x.len() - 1];
        if phone == last || !x.contains(&phone) {
            x.push(phone);
            arrangements(problem, usable, x, best);
            x.pop();
        }
    }
}

fn objective(problem: &Problem, x: &[usize]) -> Option<f64> {
    let (model, n) = (&problem.model, x.len());
    let mut from = 0;
    for to in 1..=n {
        if to == n || x[to] != x[from] {
            let weights: u64 = model.layer_bytes[from..to].iter().sum::<u64>()
                + if from == 0 { model.embedding_bytes } else { 0 }
                + if to == n { model.head_bytes } else { 0 }
                - if from == 0 && to == n { model.shared_bytes } else { 0 };
            let is_within = weights as f64 <= 0.7 * problem.phones[x[from]].allocatable_bytes as f64;
            if !is_within || !fits(problem, x[from], from, to) {
                return None;
            }
            from = to;
        }
    }
    let mut value = 0.0;
    for (j, &i) in x.iter().enumerate() {
        let phone = &problem.phones[i];
        // F_j ÷ φ_i, with φ from the measured time of a layer.
        let flops_a_second = model.layer_multiply_adds as f64 / phone.seconds_per_layer;
        value += model.layer_multiply_adds as f64 / flops_a_second;
        if j + 1 == n {
            value += model.head_multiply_adds as f64 / flops_a_second;
        }
        let (k, bytes) = if j + 1 < n { (x[j + 1], model.hop_bytes) } else { (x[0], model.logits_bytes) };
        if k != i {
            let link = problem.links.between(i, k);
            let seconds = bytes as f64 / link.bytes_per_second;
            let hop = model.hop_bytes as f64 / link.bytes_per_second + link.latency_seconds;
            if !(seconds <= MAX_SECONDS && hop <= MAX_SECONDS) {
                return None;
            }
            value += seconds;
        }
    }
    Some(value)
}

fn fits(problem: &Problem, phone: usize, from: usize, to: usize) -> bool {
    let (model, demand, n) = (&problem.model, &problem.demand, problem.model.layer_bytes.len());
    let kv = model.kv_bytes_per_token_per_layer * u64::from(demand.context_length) * u64::from(demand.max_sessions);
    let layers: u64 = model.layer_bytes[from..to].iter().map(|bytes| bytes + kv).sum();
    let ends = if from == 0 { model.embedding_bytes } else { 0 } + if to == n { model.head_bytes } else { 0 };
    let shared = if from == 0 && to == n { model.shared_bytes } else { 0 };
    let budget = problem.phones[phone].allocatable_bytes as f64 * demand.memory_fraction / demand.generations_in_memory;
    let decodes = model.second_embedding.is_some_and(|layer| from <= layer as usize && (layer as usize) < to);
    let sees_text = from == 0 || to == model.layer_bytes.len() || decodes;
    (problem.phones[phone].is_trusted || !sees_text) && layers + ends + model.activation_bytes - shared <= budget as u64
}
