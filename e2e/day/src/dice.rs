//! Dice: randomness that is the same for the same seed (splitmix64).

/// A generator of its own for each who draws, so that nobody's draws move another's.
#[derive(Clone, Debug)]
pub struct Dice(u64);

// === impl Dice ===

impl Dice {
    /// Of this seed, and of this who draws.
    pub fn of(seed: u64, who: &str) -> Self {
        let mut dice = Self(seed);
        for byte in who.bytes() {
            dice.0 = dice.next() ^ u64::from(byte);
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1, without 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.part()
    }

    pub fn falls(&mut self, chance: f64) -> bool {
        self.part() < chance
    }

    /// How often something comes that comes so often on the mean (Knuth's way, for small means).
    pub fn poisson(&mut self, mean: f64) -> u32 {
        let (limit, mut product, mut n) = ((-mean).exp(), self.part(), 0);
        while product > limit {
            product *= self.part();
            n += 1;
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_others_draw_others() {
        let drawn = |seed, who| {
            let mut dice = Dice::of(seed, who);
            [(); 4].map(|()| dice.part())
        };
        assert_eq!(drawn(1, "a"), drawn(1, "a"));
        assert_ne!(drawn(1, "a"), drawn(1, "b"));
        assert_ne!(drawn(1, "a"), drawn(2, "a"));
        let mut dice = Dice::of(7, "requests");
        let n: u32 = (0..20_000).map(|_| dice.poisson(0.1)).sum();
        // Six standard deviations (√2000) around 2000.
        assert!((1732..2268).contains(&n), "{n}");
    }
}
