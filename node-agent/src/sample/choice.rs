//! Choice: which tokens may be drawn, and the draw among them.

use polyphony_protocol::session::Sampling;

use super::chance::uniform;
use super::vocabulary::{Weights, argmax, likeliest};

/// Tokens that are put in order first. A draw is nearly always among them; where it is not, so many times more are.
const FIRST_IN_ORDER: usize = 256;
const MORE_IN_ORDER: usize = 16;

/// Draws after temperature, min-p, top-k and top-p. All logits are finite and the temperature is above 0.
///
/// Weights are probabilities over that of the likeliest token, so min-p is a bound on them. Min-p and top-k each keep the
/// first of the tokens in order and may change places; the probabilities of top-p are those among the tokens kept by both.
pub(super) fn choose(logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
    let weights = Weights { largest: logits[argmax(logits) as usize], temperature: sampling.temperature };
    // The first `n` that are kept, with their weights.
    let first_kept = |n: usize| {
        let tokens = likeliest(logits, n).into_iter().map(|token| (token, weights.of(logits[token as usize])));
        let kept = tokens.take_while(|(_, weight)| *weight >= sampling.min_p);
        kept.map(|(token, weight)| (token, f64::from(weight))).collect::<Vec<_>>()
    };
    let random = uniform(sampling.seed, position);
    if sampling.top_k > 0 {
        let kept = first_kept(sampling.top_k as usize);
        let total = kept.iter().map(|(_, weight)| weight).sum();
        return draw_among(&kept, total, f64::from(sampling.top_p), random).unwrap_or(kept[kept.len() - 1].0);
    }
    let total = weights.total(logits, sampling.min_p);
    // A vocabulary in order would take longer than the layers of a small model.
    let mut n = FIRST_IN_ORDER;
    loop {
        let first = first_kept(n);
        // By how many there are, and by no sum: where rounding has them in another order than their logits, counts of both may differ.
        let is_all = first.len() < n || n >= logits.len();
        match draw_among(&first, total, f64::from(sampling.top_p), random) {
            Some(token) => return token,
            // Rounding alone leads past the end.
            None if is_all => return first[first.len() - 1].0,
            None => n *= MORE_IN_ORDER,
        }
    }
}

/// Draws by `random`, in [0, 1), among tokens with their weights in order, which are the first of those that weigh `total`. None where it
/// takes more of them to say.
fn draw_among(first: &[(u32, f64)], total: f64, top_p: f64, random: f64) -> Option<u32> {
    let (kept, mass) = if top_p < 1.0 {
        let mut sum = 0.0;
        let last = first.iter().position(|(_, weight)| {
            sum += weight;
            sum >= total * top_p
        })?;
        (&first[..=last], sum)
    } else {
        (first, total)
    };
    let mut rest = random * mass;
    let drawn = kept.iter().find(|(_, weight)| {
        rest -= weight;
        rest < 0.0
    });
    // Of those that top-p keeps rounding alone leads past the last.
    drawn.or_else(|| kept.last().filter(|_| top_p < 1.0)).map(|(token, _)| *token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All tokens in order, as the definition has it.
    fn chosen_of_all(logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
        let order = likeliest(logits, logits.len());
        let weights = Weights { largest: logits[order[0] as usize], temperature: sampling.temperature };
        let weight_of = |token: u32| f64::from(weights.of(logits[token as usize]));
        let weighed: Vec<(u32, f64)> = order.into_iter().map(|token| (token, weight_of(token))).collect();
        let total = weighed.iter().map(|(_, weight)| weight).sum();
        let random = uniform(sampling.seed, position);
        draw_among(&weighed, total, f64::from(sampling.top_p), random).unwrap_or(weighed[weighed.len() - 1].0)
    }

    #[test]
    fn what_is_drawn_does_not_depend_on_how_many_tokens_were_put_in_order() {
        // A few tokens that are likely, and none that is much likelier than another.
        for spread in [80.0, 0.01] {
            let logits: Vec<f32> = (0..9000_u32).map(|token| spread * (token * 7919 % 9001) as f32 / 9001.0).collect();
            for top_p in [1.0, 0.95, 0.2] {
                let mut largest_rank = 0;
                for position in 0..60 {
                    let sampling = Sampling { temperature: 0.7, top_p, seed: 5, ..Sampling::default() };
                    let chosen = choose(&logits, &sampling, position);
                    assert_eq!(chosen, chosen_of_all(&logits, &sampling, position), "{spread}, {top_p}, {position}");
                    let rank = logits.iter().filter(|logit| **logit > logits[chosen as usize]).count();
                    largest_rank = largest_rank.max(rank);
                }
                assert!(spread > 1.0 || largest_rank > FIRST_IN_ORDER, "the first were enough: {largest_rank}");
            }
        }
    }
}
