//! Passes over a vocabulary: what is asked of every token, in loops that become SIMD. A vocabulary has up to 256,000 entries, and a step of a small
//! model takes a few milliseconds.

use polyphony_kernels::cpu::exponential::exp;

/// Values that a loop takes at once, and sums that it keeps.
const LANES: usize = 16;
/// Tokens are put in order by their logits' first bits first: sign, exponent and three of the fraction.
const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 12;

/// Whether there is one, and all are finite.
pub(super) fn are_finite(logits: &[f32]) -> bool {
    // No branch inside: an early end would keep the loop from going by lanes.
    let odd = logits.iter().fold(false, |odd, logit| odd | ((logit.to_bits() & 0x7fff_ffff) >= 0x7f80_0000));
    !logits.is_empty() && !odd
}

/// The first token of the largest logit. All are finite.
pub(super) fn argmax(logits: &[f32]) -> u32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *logit);
        }
    }
    let largest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
    logits.iter().position(|logit| *logit == largest).unwrap_or_default() as u32
}

/// Of tokens at a temperature: a weight is a probability over that of the likeliest token.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub largest: f32,
    /// Above 0.
    pub temperature: f32,
}

impl Weights {
    /// The same bits on every processor.
    pub fn of(self, logit: f32) -> f32 {
        exp((logit - self.largest) / self.temperature)
    }

    /// What all tokens weigh together that weigh `least` or more, in an order of its own.
    pub fn total(self, logits: &[f32], least: f32) -> f64 {
        let mut sums = [0.0_f64; LANES];
        let kept = |logit: f32| {
            let weight = self.of(logit);
            f64::from(if weight >= least { weight } else { 0.0 })
        };
        let (chunks, rest) = logits.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, logit) in sums.iter_mut().zip(chunk) {
                *sum += kept(*logit);
            }
        }
        for (sum, logit) in sums.iter_mut().zip(rest) {
            *sum += kept(*logit);
        }
        sums.iter().sum()
    }
}

/// The `n` tokens with the largest logits, best first; of equal ones the lower token. All of them where there are fewer.
pub(super) fn likeliest(logits: &[f32], n: usize) -> Vec<u32> {
    let n = n.min(logits.len());
    if n == 0 {
        return Vec::new();
    }
    let mut counts = [0_u32; BUCKETS];
    for logit in logits {
        counts[bucket(*logit)] += 1;
    }
    // From the bucket of the largest down to that in which the last of them lies.
    let (mut first, mut n_found) = (BUCKETS, 0);
    while n_found < n {
        first -= 1;
        n_found += counts[first] as usize;
    }
    let mut tokens = Vec::with_capacity(n_found);
    tokens.extend((0..logits.len() as u32).filter(|token| bucket(logits[*token as usize]) >= first));
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n < tokens.len() {
        tokens.select_nth_unstable_by(n - 1, by_logit);
        tokens.truncate(n);
    }
    tokens.sort_unstable_by(by_logit);
    tokens
}

/// A number that rises with the logit, as `f32::total_cmp` has it: of the larger logit it is no less.
fn bucket(logit: f32) -> usize {
    let bits = logit.to_bits();
    let key = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
    (key >> (32 - BUCKET_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn logit() -> impl Strategy<Value = f32> {
        prop_oneof![
            -30.0_f32..30.0,
            -1e-3_f32..1e-3,
            Just(0.0),
            Just(-0.0),
            Just(f32::MAX),
            Just(-f32::MAX),
            Just(1e-45)
        ]
    }

    proptest! {
        #[test]
        fn the_likeliest_are_the_first_of_all_in_order(logits in prop::collection::vec(logit(), 1..600), n in 0_usize..700) {
            let mut all: Vec<u32> = (0..logits.len() as u32).collect();
            all.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
            all.truncate(n);
            prop_assert_eq!(likeliest(&logits, n), all);
        }

        #[test]
        fn lanes_show_in_no_result(logits in prop::collection::vec(logit(), 1..100), least in 0.0_f32..1.0) {
            let mut best = 0;
            for (token, logit) in logits.iter().enumerate() {
                best = if *logit > logits[best] { token } else { best };
            }
            prop_assert_eq!(argmax(&logits), best as u32);
            let weights = Weights { largest: logits[best], temperature: 0.8 };
            let kept: Vec<f64> = logits.iter().map(|logit| weights.of(*logit)).filter(|w| *w >= least).map(f64::from).collect();
            let total = weights.total(&logits, least);
            prop_assert!((total - kept.iter().sum::<f64>()).abs() <= 1e-12 * total);
            prop_assert!(are_finite(&logits));
        }
    }

    #[test]
    fn one_that_is_no_number_is_found_wherever_it_is() {
        assert!(!are_finite(&[]));
        for at in 0..40 {
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut logits = [1.0; 40];
                logits[at] = odd;
                assert!(!are_finite(&logits), "{odd} at {at}");
            }
        }
    }
}
