//! Logits to a token. The random number of a position is a function of seed and position alone, so a replay draws the same.

use polyphony_protocol::session::Sampling;

/// A drawn token with what the client may want to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    pub token: u32,
    /// Natural logarithm of its probability before temperature and truncation; NaN-free for finite logits.
    pub logprob: f32,
    /// The likeliest tokens with theirs, best first.
    pub top: Vec<(u32, f32)>,
}

/// Draws the token of `position` from `logits` (one value a vocabulary entry, at least one).
///
/// Order of the filters, as in vLLM: temperature, then top-k, then top-p. Equal logits are ordered by token.
pub fn draw(logits: &[f32], sampling: &Sampling, position: u32, n_top: usize, want_logprob: bool) -> Drawn {
    let best = argmax(logits);
    let token = if sampling.temperature <= 0.0 || !logits.iter().all(|logit| logit.is_finite()) {
        best
    } else {
        draw_random(logits, sampling, position)
    };
    if !want_logprob && n_top == 0 {
        return Drawn { token, logprob: 0.0, top: Vec::new() };
    }
    let largest = logits[best as usize];
    let normalizer =
        f64::from(largest) + libm::log(logits.iter().map(|logit| libm::exp(f64::from(logit - largest))).sum());
    let logprob_of = |token: u32| (f64::from(logits[token as usize]) - normalizer) as f32;
    let top = likeliest(logits, n_top).into_iter().map(|token| (token, logprob_of(token))).collect();
    Drawn { token, logprob: logprob_of(token), top }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// The `n` tokens of the largest logits, best first.
fn likeliest(logits: &[f32], n: usize) -> Vec<u32> {
    let n = n.min(logits.len());
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n > 0 && n < tokens.len() {
        tokens.select_nth_unstable_by(n - 1, by_logit);
    }
    tokens.truncate(n);
    tokens.sort_unstable_by(by_logit);
    tokens
}

fn draw_random(logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
    let keep = if sampling.top_k == 0 { logits.len() } else { sampling.top_k as usize };
    let candidates = likeliest(logits, keep);
    let temperature = f64::from(sampling.temperature);
    let largest = f64::from(logits[candidates[0] as usize]);
    let mut weights: Vec<f64> = candidates
        .iter()
        .map(|token| libm::exp((f64::from(logits[*token as usize]) - largest) / temperature))
        .collect();
    let total: f64 = weights.iter().sum();
    if sampling.top_p < 1.0 {
        let wanted = total * f64::from(sampling.top_p);
        let mut sum = 0.0;
        let kept = weights.iter().position(|weight| {
            sum += weight;
            sum >= wanted
        });
        weights.truncate(kept.map_or(weights.len(), |last| last + 1));
    }
    let mut rest = uniform(sampling.seed, position) * weights.iter().sum::<f64>();
    for (token, weight) in candidates.iter().zip(&weights) {
        rest -= weight;
        if rest < 0.0 {
            return *token;
        }
    }
    candidates[weights.len() - 1]
}

/// A number in [0, 1) of seed and position: SplitMix64 (Steele, Lea and Flood 2014) over their mix.
fn uniform(seed: u64, position: u32) -> f64 {
    let mixed = split_mix(split_mix(seed).wrapping_add(u64::from(position)));
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_k: u32, top_p: f32, seed: u64) -> Sampling {
        Sampling { temperature, top_k, top_p, seed }
    }

    fn histogram(logits: &[f32], sampling: &Sampling) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for position in 0..20_000 {
            counts[draw(logits, sampling, position, 0, false).token as usize] += 1;
        }
        counts
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_largest() {
        assert_eq!(draw(&[1.0, 3.0, 3.0, 2.0], &sampling(0.0, 0, 1.0, 7), 5, 0, false).token, 1);
    }

    #[test]
    fn the_same_seed_and_position_draw_the_same_token() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32).collect();
        for position in 0..50 {
            let one = draw(&logits, &sampling(1.0, 0, 1.0, 42), position, 0, false);
            assert_eq!(one, draw(&logits, &sampling(1.0, 0, 1.0, 42), position, 0, false));
        }
        let tokens =
            |seed| (0..50).map(|p| draw(&logits, &sampling(1.0, 0, 1.0, seed), p, 0, false).token).collect::<Vec<_>>();
        assert_ne!(tokens(1), tokens(2));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // Probabilities 0.7, 0.2, 0.1; 20,000 draws have a standard deviation of at most 65, 5 of them are 325.
        let logits = [0.7_f32.ln(), 0.2_f32.ln(), 0.1_f32.ln()];
        let counts = histogram(&logits, &sampling(1.0, 0, 1.0, 3));
        for (count, expected) in counts.iter().zip([14_000_i64, 4_000, 2_000]) {
            assert!((*count as i64 - expected).abs() < 325, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.7_f32.ln(), 0.2_f32.ln(), 0.1_f32.ln()];
        assert_eq!(histogram(&logits, &sampling(1.0, 2, 1.0, 3))[2], 0);
        let counts = histogram(&logits, &sampling(1.0, 0, 0.6, 3));
        assert_eq!(counts[1..], [0, 0]);
        // 0.7 < 0.75: the second is needed as well.
        assert!(histogram(&logits, &sampling(1.0, 0, 0.75, 3))[1] > 0);
    }

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let drawn = draw(&[0.0, 3.0_f32.ln()], &sampling(0.0, 0, 1.0, 0), 0, 2, true);
        assert_eq!(drawn.token, 1);
        // f32 rounding of a value near 1.
        assert!((drawn.logprob - 0.75_f32.ln()).abs() < 1e-6);
        assert_eq!(drawn.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 0]);
        assert!((drawn.top[1].1 - 0.25_f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn logits_that_are_not_finite_do_not_panic() {
        draw(&[f32::NAN, 1.0, f32::INFINITY], &sampling(1.0, 0, 0.5, 0), 0, 3, true);
    }
}
