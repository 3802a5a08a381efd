//! Why there is no plan: looks for the first constraint that alone explains it.

use crate::costs::Costs;
use crate::infeasible::Infeasible;
use crate::problem::{Objective, Problem};

/// A model of more bytes is a mistake, and sums of its parts might overflow.
const LIMIT_BYTES: u64 = 1 << 60;

/// What a second until the first token may count in seconds of one token at most: so much that nothing else counts.
const MAX_PROMPT_WEIGHT: f64 = 1e6;

/// Floors of tokens a second that mean anything.
const FLOORS: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

/// What is wrong before any solver runs.
pub(crate) fn refuse(problem: &Problem) -> Option<Infeasible> {
    let demand = &problem.demand;
    let invalid = |field: &str, value: String, expected: &str| {
        Some(Infeasible::InvalidDemand { field: field.to_owned(), value, expected: expected.to_owned() })
    };
    if !(demand.memory_fraction > 0.0 && demand.memory_fraction <= 1.0) {
        return invalid("memoryFraction", demand.memory_fraction.to_string(), "more than 0 and at most 1");
    }
    if !(demand.generations_in_memory >= 1.0 && demand.generations_in_memory.is_finite()) {
        return invalid("generationsInMemory", demand.generations_in_memory.to_string(), "at least 1");
    }
    if demand.max_phones == 0 || demand.max_phones < demand.min_phones {
        let expected = format!("at least minPhones, {}", demand.min_phones.max(1));
        return invalid("maxPhones", demand.max_phones.to_string(), &expected);
    }
    if let Some(tokens) = demand.min_tokens_per_second {
        let field = "minTokensPerSecond";
        if demand.objective != Objective::Efficiency {
            return invalid(field, tokens.to_string(), "none, since the objective is not Efficiency");
        }
        if !FLOORS.contains(&tokens) {
            let (least, most) = (FLOORS.start(), FLOORS.end());
            return invalid(field, tokens.to_string(), &format!("from {least} to {most}"));
        }
    }
    if let Some(weight) = demand.prompt.map(|prompt| prompt.weight)
        && !(0.0..=MAX_PROMPT_WEIGHT).contains(&weight)
    {
        return invalid("prompt.weight", weight.to_string(), &format!("from 0 to {MAX_PROMPT_WEIGHT}"));
    }
    if problem.model.layer_bytes.is_empty() {
        return Some(Infeasible::NoLayers);
    }
    if model_bytes(problem) > u128::from(LIMIT_BYTES) {
        return Some(Infeasible::TooManyBytes { limit_bytes: LIMIT_BYTES });
    }
    if problem.phones.is_empty() {
        return Some(Infeasible::NoPhones);
    }
    None
}

fn model_bytes(problem: &Problem) -> u128 {
    let model = &problem.model;
    let kv_bytes = u128::from(model.kv_bytes_per_token_per_layer)
        .saturating_mul(u128::from(problem.demand.kv_tokens()))
        .saturating_mul(model.layer_bytes.len() as u128);
    let others = [model.embedding_bytes, model.head_bytes, model.activation_bytes, model.shared_bytes];
    let weights = model.layer_bytes.iter().chain(&others).map(|&bytes| u128::from(bytes)).sum();
    kv_bytes.saturating_add(weights)
}

/// Why the solvers found nothing.
pub(crate) fn explain(costs: &Costs<'_>) -> Infeasible {
    let problem = costs.problem;
    let with_figures: Vec<usize> = (0..problem.phones.len()).filter(|&i| costs.has_usable_figures(i)).collect();
    if with_figures.is_empty() {
        let example = problem.phones.first().map_or_else(String::new, |phone| phone.name.clone());
        return Infeasible::NoUsablePhones { n_phones: problem.phones.len() as u32, example };
    }
    let n_trusted = with_figures.iter().filter(|&&phone| costs.is_trusted(phone)).count();
    if n_trusted == 0 {
        return Infeasible::NoTrustedPhones { n_phones: with_figures.len() as u32 };
    }
    let wanted = problem.demand.min_phones;
    if wanted as usize > costs.n_layers {
        return Infeasible::TooFewLayers { wanted, n_layers: costs.n_layers as u32 };
    }
    if wanted as usize > with_figures.len() {
        return Infeasible::TooFewPhones { wanted, have: with_figures.len() as u32 };
    }

    let mut by_budget = with_figures.clone();
    by_budget.sort_by_key(|&i| std::cmp::Reverse(costs.budget[i]));
    by_budget.truncate(problem.demand.max_phones as usize);
    let n_phones = by_budget.len() as u32;
    let sum = |bytes: u64, more: u64| bytes.saturating_add(more);
    let available_bytes = by_budget.iter().map(|&i| costs.budget[i]).fold(0, sum);
    let needed_bytes = fewest_bytes(costs, &by_budget);
    if needed_bytes > available_bytes {
        let shortfall_bytes = needed_bytes - available_bytes;
        return Infeasible::Memory { needed_bytes, available_bytes, shortfall_bytes, n_phones };
    }
    if let Some(too_large) = too_large(costs, by_budget[0]) {
        return too_large;
    }
    if wanted as usize > costs.usable.len() {
        return Infeasible::TooFewPhones { wanted, have: costs.usable.len() as u32 };
    }
    let pairs = costs.usable.iter().flat_map(|&i| costs.usable.iter().map(move |&j| (i, j))).filter(|(i, j)| i != j);
    let n_pairs = pairs.clone().count() as u32;
    let unreachable = pairs.filter(|&(i, j)| !costs.hop_seconds(i, j).is_finite()).count() as u32;
    if unreachable > 0 {
        return Infeasible::Unreachable { unreachable, n_pairs };
    }
    if n_trusted < with_figures.len() {
        return Infeasible::TrustedPhonesTooSmall { n_trusted: n_trusted as u32 };
    }
    let largest_layer_bytes = (0..costs.n_layers).map(|l| costs.layers_bytes(l, l + 1)).max().unwrap_or(0);
    Infeasible::Packing { needed_bytes, available_bytes, largest_layer_bytes, n_phones }
}

/// The bytes of the whole model with its KV cache, and the activations of as many segments as that takes on
/// the phones with the largest budgets. One phone alone shares the tied matrix.
fn fewest_bytes(costs: &Costs<'_>, by_budget: &[usize]) -> u64 {
    let model = &costs.problem.model;
    let alone = costs.segment_bytes(0, costs.n_layers);
    if by_budget.len() == 1 {
        return alone;
    }
    let mut needed = alone.saturating_add(model.shared_bytes);
    let mut available = 0u64;
    for (n, &phone) in by_budget.iter().enumerate() {
        available = available.saturating_add(costs.budget[phone]);
        if n > 0 {
            needed = needed.saturating_add(model.activation_bytes);
        }
        if available >= needed {
            break;
        }
    }
    needed
}

/// A piece that cannot be cut and is over the largest budget.
fn too_large(costs: &Costs<'_>, roomiest: usize) -> Option<Infeasible> {
    let n = costs.n_layers;
    let largest_bytes = costs.budget[roomiest];
    let one_phone = n == 1 || costs.problem.demand.max_phones == 1;
    let mut pieces: Vec<(String, u64)> = Vec::new();
    if one_phone {
        pieces.push(("the whole model, for one phone,".to_owned(), costs.segment_bytes(0, n)));
    } else {
        pieces.push(("the embedding with layer 0".to_owned(), costs.segment_bytes(0, 1)));
        pieces.push((format!("the output matrix with layer {}", n - 1), costs.segment_bytes(n - 1, n)));
        pieces.extend((1..n - 1).map(|l| (format!("layer {l}"), costs.segment_bytes(l, l + 1))));
    }
    let (piece, needed_bytes) = pieces.into_iter().find(|(_, bytes)| *bytes > largest_bytes)?;
    let phone = costs.problem.phones[roomiest].name.clone();
    Some(Infeasible::PieceTooLarge { piece, needed_bytes, largest_bytes, phone })
}
