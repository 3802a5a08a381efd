//! Choice: which tokens may be drawn, and the draw among them.

use polyphony_protocol::session::Sampling;

use super::chance::uniform;

/// The first token of the largest logit.
pub(super) fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// The `n` of `tokens` with the largest logits, best first.
pub(super) fn likeliest(logits: &[f32], mut tokens: Vec<u32>, n: usize) -> Vec<u32> {
    let n = n.min(tokens.len());
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n > 0 && n < tokens.len() {
        tokens.select_nth_unstable_by(n - 1, by_logit);
    }
    tokens.truncate(n);
    tokens.sort_unstable_by(by_logit);
    tokens
}

/// Draws after temperature, min-p, top-k and top-p. All logits are finite and the temperature is above 0.
///
/// Weights are probabilities over that of the likeliest token, so min-p is a bound on them. Min-p and top-k each keep the
/// first of the tokens in order and may change places; the probabilities of top-p are those among the tokens kept by both.
pub(super) fn choose(logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
    let (temperature, min_p) = (f64::from(sampling.temperature), f64::from(sampling.min_p));
    let largest = f64::from(logits[argmax(logits) as usize]);
    let weight_of = |token: u32| libm::exp((f64::from(logits[token as usize]) - largest) / temperature);
    // Before the sort: min-p leaves little to sort. Without it no weight is computed twice.
    let kept = (0..logits.len() as u32).filter(|token| min_p == 0.0 || weight_of(*token) >= min_p).collect();
    let n = if sampling.top_k == 0 { logits.len() } else { sampling.top_k as usize };
    let candidates = likeliest(logits, kept, n);
    let mut weights: Vec<f64> = candidates.iter().map(|token| weight_of(*token)).collect();
    if sampling.top_p < 1.0 {
        let wanted = weights.iter().sum::<f64>() * f64::from(sampling.top_p);
        let mut sum = 0.0;
        let last = weights.iter().position(|weight| {
            sum += weight;
            sum >= wanted
        });
        weights.truncate(last.map_or(weights.len(), |last| last + 1));
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
