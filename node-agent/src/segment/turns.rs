//! Turns: how fast the pairs of a head turn in the layers of a model, made once of what its file says of rotary positions.

use std::sync::Arc;

use polyphony_kernels::ops::rope::frequencies;
use polyphony_kernels::{RopeStyle, Turn};
use polyphony_model::{Hyperparameters, LayerTurn, Role, Rope, Yarn, family};

use super::SegmentError;
use super::loaded::Loaded;

/// The turns of a model's layers; none where positions are not rotary.
pub(super) struct Turns {
    scaled: Option<Turn>,
    /// Of the layers that nothing scales.
    plain: Option<Turn>,
}

/// YaRN's slowest pair that is left as it is turns so many times in the original context, its fastest that is slowed in full once (arXiv
/// 2309.00071, where they are β and α). No file of a family here says others.
const YARN_FAST: f64 = 32.0;
const YARN_SLOW: f64 = 1.0;

// === impl Turns ===

impl Turns {
    /// Those of contexts of `n_positions`, of the tables that are loaded.
    ///
    /// # Errors
    /// A table that is missing, or that holds a divisor which is not above 0.
    pub fn build(loaded: &Loaded, of: &Hyperparameters, n_positions: usize) -> Result<Self, SegmentError> {
        let Some(rope) = of.rope else { return Ok(Self { scaled: None, plain: None }) };
        let factors = factors(loaded, &rope, n_positions)?;
        let frequencies = scaled(&rope, factors.as_deref());
        let plain = rope.windowed_base.map(|base| plain(&rope, base));
        let magnitude = rope.magnitude * rope.yarn.map_or(1.0, magnitude_of);
        Ok(Self { scaled: Some(turn(&rope, frequencies.into(), magnitude)), plain })
    }

    /// How `layer` turns.
    pub fn of(&self, of: &Hyperparameters, layer: u32) -> Option<Turn> {
        match of.turn_of(layer) {
            LayerTurn::None => None,
            LayerTurn::Scaled => self.scaled.clone(),
            LayerTurn::Plain => self.plain.clone(),
        }
    }
}

fn turn(rope: &Rope, frequencies: Arc<[f64]>, magnitude: f32) -> Turn {
    let style = match rope.style {
        family::RopeStyle::Pairs => RopeStyle::Pairs,
        family::RopeStyle::Halves => RopeStyle::Halves,
    };
    Turn { style, frequencies, magnitude }
}

fn plain(rope: &Rope, base: f32) -> Turn {
    turn(rope, frequencies(base, rope.n_rotated as usize).into(), 1.0)
}

/// The divisors of the frequencies, where the model has some: of two sets the one for contexts of this length. So it is one set throughout a
/// session, whatever the position.
fn factors(loaded: &Loaded, rope: &Rope, n_positions: usize) -> Result<Option<Vec<f32>>, SegmentError> {
    let role = match rope.factors_by_length {
        Some(original) if n_positions > original as usize => Role::RopeFactorsLong,
        Some(_) => Role::RopeFactorsShort,
        None if rope.has_frequency_factors => Role::RopeFrequencies,
        None => return Ok(None),
    };
    let factors = loaded.table(role)?;
    match factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        None => Ok(Some(factors.to_vec())),
        Some(&found) => Err(SegmentError::Factor { role, found }),
    }
}

fn scaled(rope: &Rope, factors: Option<&[f32]>) -> Vec<f64> {
    let n_rotated = rope.n_rotated as usize;
    let of_base = frequencies(rope.base, n_rotated).into_iter().enumerate();
    let divided = of_base.map(|(i, frequency)| frequency / factors.map_or(1.0, |factors| f64::from(factors[i])));
    match rope.yarn {
        None => divided.map(|frequency| frequency * f64::from(rope.position_scale)).collect(),
        Some(yarn) => {
            let keeps = kept(rope.base, n_rotated, yarn);
            let slowed =
                |(frequency, keep): (f64, f64)| frequency * keep + frequency / f64::from(yarn.factor) * (1.0 - keep);
            divided.zip(keeps).map(slowed).collect()
        }
    }
}

/// The share of each pair's own frequency that YaRN keeps: 1 of the fast ones, 0 of the slow, and a ramp between.
fn kept(base: f32, n_rotated: usize, yarn: Yarn) -> Vec<f64> {
    let ln_base = libm::log(f64::from(base));
    let turns_so_often = |times: f64| {
        let length = f64::from(yarn.original_context_length) / (times * std::f64::consts::TAU);
        n_rotated as f64 * libm::log(length) / (2.0 * ln_base)
    };
    let low = libm::floor(turns_so_often(YARN_FAST)).max(0.0);
    let high = libm::ceil(turns_so_often(YARN_SLOW)).min(n_rotated as f64 - 1.0);
    let ramp = |pair: usize| (pair as f64 - low) / (high - low).max(0.001);
    (0..n_rotated / 2).map(|pair| 1.0 - ramp(pair).clamp(0.0, 1.0)).collect()
}

/// What YaRN lengthens turned values by: 1 + 0.1 ln factor.
fn magnitude_of(yarn: Yarn) -> f32 {
    (1.0 + 0.1 * libm::log(f64::from(yarn.factor))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROPE: Rope = Rope {
        style: family::RopeStyle::Halves,
        base: 10_000.0,
        n_rotated: 8,
        position_scale: 1.0,
        has_frequency_factors: false,
        factors_by_length: None,
        yarn: None,
        magnitude: 1.0,
        windowed_base: None,
    };

    #[test]
    fn linear_scaling_and_factors_divide_every_frequency() {
        // 10000^(-2i / 8) is 10^-i.
        let near = |found: Vec<f64>, expected: [f64; 4]| {
            let off = found.iter().zip(expected).map(|(found, expected)| (found / expected - 1.0).abs());
            assert!(off.fold(0.0, f64::max) < 1e-12, "{found:?}, {expected:?}");
        };
        near(scaled(&ROPE, None), [1.0, 0.1, 0.01, 0.001]);
        near(scaled(&Rope { position_scale: 0.25, ..ROPE }, None), [0.25, 0.025, 0.0025, 0.00025]);
        near(scaled(&ROPE, Some(&[1.0, 2.0, 4.0, 8.0])), [1.0, 0.05, 0.0025, 0.000125]);
    }

    #[test]
    fn yarn_keeps_what_turns_often_and_slows_what_turns_less_than_once() {
        // 8 ln(512 / 2πx) / (2 ln 10000) is 0.406 for 32 turns and 1.911 for one: the ramp goes from pair 0 to pair 2.
        let yarn = Yarn { factor: 4.0, original_context_length: 512 };
        assert_eq!(kept(10_000.0, 8, yarn), [1.0, 0.5, 0.0, 0.0]);
        let found = scaled(&Rope { yarn: Some(yarn), ..ROPE }, None);
        let expected = [1.0, 0.1 * (0.5 + 0.125), 0.01 / 4.0, 0.001 / 4.0];
        assert!(
            found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-12),
            "{found:?}"
        );
        assert_eq!(magnitude_of(Yarn { factor: 1.0, ..yarn }), 1.0);
        assert!((magnitude_of(yarn) - 1.138_629).abs() < 1e-6, "{}", magnitude_of(yarn));
    }

    #[test]
    fn yarn_over_a_context_so_short_that_nothing_turns_once_slows_all_but_the_first() {
        let yarn = Yarn { factor: 4.0, original_context_length: 1 };
        assert_eq!(kept(10_000.0, 8, yarn)[1..], [0.0, 0.0, 0.0]);
    }
}
