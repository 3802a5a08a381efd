//! The oracle: tries every order of every subset of phones with every cut. Arithmetic of its own.

use polyphony_placement::{ASSUMED_WATTS, MAX_SECONDS, MIN_LAYER_SECONDS, Objective, Problem};

/// The least objective of any plan, None when no plan exists.
pub(crate) fn brute_force(problem: &Problem) -> Option<f64> {
    let mut best = None;
    let mut order = Vec::new();
    orders(problem, &mut order, &mut best);
    best
}

fn orders(problem: &Problem, order: &mut Vec<usize>, best: &mut Option<f64>) {
    let n_stages = order.len();
    if n_stages >= 1 && n_stages >= problem.demand.min_phones as usize {
        cuts(problem, order, &mut Vec::new(), best);
    }
    if n_stages == problem.demand.max_phones as usize || n_stages == problem.model.layer_bytes.len() {
        return;
    }
    for phone in 0..problem.phones.len() {
        if !order.contains(&phone) {
            order.push(phone);
            orders(problem, order, best);
            order.pop();
        }
    }
}

fn cuts(problem: &Problem, order: &[usize], ends: &mut Vec<usize>, best: &mut Option<f64>) {
    let n_layers = problem.model.layer_bytes.len();
    let from = ends.last().copied().unwrap_or(0);
    if ends.len() + 1 == order.len() {
        ends.push(n_layers);
        if let Some(value) = objective(problem, order, ends)
            && best.is_none_or(|known| value < known)
        {
            *best = Some(value);
        }
        ends.pop();
        return;
    }
    for to in from + 1..n_layers {
        ends.push(to);
        cuts(problem, order, ends, best);
        ends.pop();
    }
}

/// The objective of one plan, None when it does not fit.
fn objective(problem: &Problem, order: &[usize], ends: &[usize]) -> Option<f64> {
    let (model, demand) = (&problem.model, &problem.demand);
    let n_layers = model.layer_bytes.len();
    let kv = model.kv_bytes_per_token_per_layer * u64::from(demand.context_length) * u64::from(demand.max_sessions);
    let (mut from, mut round) = (0, 0.0);
    // Seconds of the first row and of each further one, of stages and wires alike.
    let mut pieces: Vec<(f64, f64)> = Vec::new();
    let mut further_round = 0.0;
    // Of a prompt: its last chunk through all, and the longest time of a whole one.
    let prompt = demand.prompt.filter(|prompt| prompt.n_tokens > 0);
    let whole = prompt.map_or(1, |prompt| prompt.chunk_tokens.clamp(1, prompt.n_tokens));
    let n_chunks = prompt.map_or(1, |prompt| prompt.n_tokens.div_ceil(whole));
    let last = prompt.map_or(1, |prompt| prompt.n_tokens - (n_chunks - 1) * whole);
    let (mut last_pass, mut slowest) = (0.0, 0.0f64);
    let mut joules = 0.0;
    for (stage, (&phone, &to)) in order.iter().zip(ends).enumerate() {
        let costs = &problem.phones[phone];
        let decodes = model.second_embedding.is_some_and(|layer| from <= layer as usize && (layer as usize) < to);
        if !costs.is_trusted && (from == 0 || to == n_layers || decodes) {
            return None;
        }
        let layers = model.layer_bytes[from..to].iter();
        let mut bytes = layers.fold(model.activation_bytes, |sum, layer| sum.saturating_add(*layer).saturating_add(kv));
        let mut seconds = (to - from) as f64 * costs.seconds_per_layer + costs.seconds_per_step;
        let mut further =
            (to - from) as f64 * costs.seconds_per_layer_per_further_row.unwrap_or(costs.seconds_per_layer);
        let times = [costs.seconds_per_layer, costs.seconds_embedding, costs.seconds_head, costs.seconds_per_step];
        let further_times = [costs.seconds_per_layer_per_further_row, costs.seconds_head_per_further_row];
        if !further_times.into_iter().flatten().all(believed) {
            return None;
        }
        if from >= to || costs.seconds_per_layer < MIN_LAYER_SECONDS || !times.into_iter().all(believed) {
            return None;
        }
        if from == 0 {
            bytes = bytes.saturating_add(model.embedding_bytes);
            seconds += costs.seconds_embedding;
        }
        if to == n_layers {
            bytes = bytes.saturating_add(model.head_bytes);
            seconds += costs.seconds_head;
            further += costs.seconds_head_per_further_row.unwrap_or(costs.seconds_head);
        }
        if from == 0 && to == n_layers {
            bytes -= model.shared_bytes;
        }
        let of_row = (to - from) as f64
            * match costs.prefill_seconds_per_layer_per_token {
                seconds if believed(seconds) => seconds,
                _ => costs.seconds_per_layer,
            };
        let besides = costs.seconds_per_step + if from == 0 { costs.seconds_embedding } else { 0.0 };
        last_pass += besides + f64::from(last) * of_row + if to == n_layers { costs.seconds_head } else { 0.0 };
        slowest = slowest.max(besides + f64::from(whole) * of_row);
        let budget = costs.allocatable_bytes as f64 * demand.memory_fraction / demand.generations_in_memory;
        if bytes > budget as u64 {
            return None;
        }
        let read = prompt.map_or(0.0, |prompt| prompt.weight * f64::from(prompt.n_tokens) * of_row);
        joules += counted_watts(problem, phone) * (seconds + read);
        if let (Some(prompt), Objective::Throughput) = (prompt, demand.objective) {
            // Between its tokens it reads as much of prompts as belongs to them.
            let more = prompt.weight * f64::from(prompt.n_tokens) * of_row;
            seconds += more;
            further += more;
        }
        round += seconds;
        further_round += further;
        pieces.push((seconds, further));
        if stage + 1 < order.len() {
            let link = problem.links.between(phone, order[stage + 1]);
            let wire = model.hop_bytes as f64 / link.bytes_per_second;
            if !believed(wire) || !believed(link.latency_seconds + wire) || !believed(link.latency_seconds) {
                return None;
            }
            last_pass += link.latency_seconds + f64::from(last) * wire;
            slowest = slowest.max(f64::from(whole) * wire);
            round += link.latency_seconds + wire;
            further_round += wire;
            pieces.push((wire, wire));
        } else if stage > 0 {
            let back = problem.links.between(phone, order[0]).latency_seconds;
            if !believed(back) {
                return None;
            }
            round += back;
        }
        from = to;
    }
    let value = match demand.objective {
        Objective::Efficiency => {
            // The seconds of a round are those of tokens alone.
            if demand.min_tokens_per_second.is_some_and(|tokens| round * tokens > 1.0 + 1e-9) {
                return None;
            }
            joules
        }
        Objective::Latency => {
            let weight = prompt.map_or(0.0, |prompt| prompt.weight);
            round + weight * (last_pass + f64::from(n_chunks - 1) * slowest)
        }
        Objective::Throughput => {
            let n_sessions = f64::from(demand.max_sessions);
            let in_groups = |groups: u32| {
                let further_rows = n_sessions / f64::from(groups) - 1.0;
                let worst = pieces.iter().map(|(first, further)| first + further_rows * further).fold(0.0, f64::max);
                let shared = (round + further_rows * further_round) / (0.3 + 0.7 * f64::from(groups));
                worst.max(shared) * f64::from(groups) / n_sessions
            };
            (1..=demand.max_sessions).map(in_groups).fold(f64::INFINITY, f64::min)
        }
    };
    Some(value)
}

/// What a second of a phone's work counts, in joules.
fn counted_watts(problem: &Problem, phone: usize) -> f64 {
    let mut known: Vec<f64> = problem.phones.iter().filter_map(|phone| phone.energy.active_watts).collect();
    known.sort_by(f64::total_cmp);
    let energy = &problem.phones[phone].energy;
    let watts = energy.active_watts.or_else(|| known.get(known.len() / 2).copied()).unwrap_or(ASSUMED_WATTS);
    watts * energy.joule_weight * energy.busy_share
}

fn believed(seconds: f64) -> bool {
    (0.0..=MAX_SECONDS).contains(&seconds)
}
