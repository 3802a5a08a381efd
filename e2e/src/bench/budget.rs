//! Budget: how long a run may be so that all rounds fit into the time there is. Pure.

use serde::{Deserialize, Serialize};

/// Tokens of one run of a backend, the same for every ring on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lengths {
    /// Prompt of the prefill run.
    pub prefill_tokens: u32,
    /// Answer of the decode run, after the first token.
    pub decode_tokens: u32,
}

/// Seconds a token, as a first try showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub prefill_seconds: f64,
    pub decode_seconds: f64,
}

// === impl Lengths ===

impl Lengths {
    /// What is wanted where there is time for it.
    pub const FULL: Self = Self { prefill_tokens: 128, decode_tokens: 64 };
    /// Enough to see that everything works.
    pub const QUICK: Self = Self { prefill_tokens: 32, decode_tokens: 8 };
    /// Shorter says nothing about speed.
    const LEAST: Self = Self { prefill_tokens: 16, decode_tokens: 8 };

    /// The longest lengths, halved from these as often as it takes, with which one run of each ring takes at most
    /// `seconds`; never less than what says something.
    pub fn that_fit(self, rings: &[Pace], seconds: f64) -> Self {
        let mut lengths = self;
        while lengths.seconds(rings) > seconds && lengths != lengths.halved() {
            lengths = lengths.halved();
        }
        lengths
    }

    /// What one run of each ring takes, by their pace.
    pub fn seconds(self, rings: &[Pace]) -> f64 {
        let run = |pace: &Pace| {
            f64::from(self.prefill_tokens) * pace.prefill_seconds + f64::from(self.decode_tokens) * pace.decode_seconds
        };
        rings.iter().map(run).sum()
    }

    fn halved(self) -> Self {
        let half = |n: u32, least: u32| (n / 2).max(least.min(n));
        Self {
            prefill_tokens: half(self.prefill_tokens, Self::LEAST.prefill_tokens),
            decode_tokens: half(self.decode_tokens, Self::LEAST.decode_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_long_as_the_time_allows_and_never_meaningless() {
        let pace = |prefill_seconds, decode_seconds| Pace { prefill_seconds, decode_seconds };
        for (rings, seconds, expected) in [
            // 128 × 0.01 + 64 × 0.02 = 2.56 s a ring.
            (vec![pace(0.01, 0.02); 2], 5.2, (128, 64)),
            (vec![pace(0.01, 0.02); 2], 5.0, (64, 32)),
            (vec![pace(0.01, 0.02), pace(0.02, 0.04)], 4.0, (64, 32)),
            // Too slow for anything: the least.
            (vec![pace(2.0, 2.0)], 1.0, (16, 8)),
            (vec![], 0.0, (128, 64)),
        ] {
            let fit = Lengths::FULL.that_fit(&rings, seconds);
            assert_eq!((fit.prefill_tokens, fit.decode_tokens), expected, "{rings:?} in {seconds} s");
        }
        assert_eq!(Lengths { prefill_tokens: 4, decode_tokens: 2 }.that_fit(&[pace(9.0, 9.0)], 1.0).decode_tokens, 2);
    }
}
