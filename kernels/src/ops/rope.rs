//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864).

use std::sync::Arc;

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row};
use crate::shapes::{ShapeError, Shapes, require};
use crate::wgsl::{Text, Variant};

/// Which two values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// (2i, 2i + 1), as Llama files have it.
    Pairs,
    /// (i, i + n_rotated / 2), as Qwen, Gemma and Phi files have it.
    Halves,
}

/// How the heads of a row are turned: pair i of each by the angle `position · frequencies[i]`, and made `magnitude` times as long.
///
/// The table is made once for all layers alike, by whoever knows what scales it; [`frequencies`] is what it begins with.
#[derive(Clone, Debug)]
pub struct Turn {
    pub style: RopeStyle,
    /// Radians a position, one for each pair; the values of a head after the pairs stay as they are.
    pub frequencies: Arc<[f64]>,
    /// 1, or what a scaling calls for that lengthens what it turns slower (YaRN, arXiv 2309.00071).
    pub magnitude: f32,
}

/// base^(−2i / n_rotated) for each of the n_rotated / 2 pairs.
pub fn frequencies(base: f32, n_rotated: usize) -> Vec<f64> {
    let ln_base = libm::log(f64::from(base));
    (0..n_rotated / 2).map(|i| libm::exp(ln_base * (-2.0 * i as f64 / n_rotated as f64))).collect()
}

/// Turns the heads of every row of the step, in place.
///
/// `x` is `[rows][n_heads][head_size]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub x: BufferId,
    pub n_heads: usize,
    pub head_size: usize,
    pub turn: Turn,
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        let same_table = Arc::ptr_eq(&self.frequencies, &other.frequencies) || self.frequencies == other.frequencies;
        self.style == other.style && self.magnitude == other.magnitude && same_table
    }
}

impl Turn {
    /// Values of each head that turn, from its start.
    pub fn n_rotated(&self) -> usize {
        2 * self.frequencies.len()
    }

    pub(crate) fn check(&self, head_size: usize) -> Result<(), ShapeError> {
        let n_pairs = self.frequencies.len();
        let expected = || format!("1 to {} pairs, in heads of {head_size}", head_size / 2);
        require(n_pairs > 0 && self.n_rotated() <= head_size, "frequencies", expected(), n_pairs)?;
        let odd = self.frequencies.iter().find(|frequency| !frequency.is_finite());
        require(odd.is_none(), "frequencies", "finite, all of them", odd.copied().unwrap_or_default())?;
        require(self.magnitude.is_finite(), "magnitude", "finite", self.magnitude)
    }

    /// Values from one of a pair to the other, and from one pair to the next.
    pub(crate) fn strides(&self) -> (u32, u32) {
        match self.style {
            RopeStyle::Pairs => (1, 2),
            RopeStyle::Halves => (self.frequencies.len() as u32, 1),
        }
    }

    /// Cosine and sine of every angle, times the magnitude, `[rows][pairs][2]`. Computed here, in f64, for all engines: the sines of
    /// GPU drivers differ and are wrong for large angles.
    pub(crate) fn angles(&self, rows: &[Row]) -> Vec<f32> {
        let magnitude = f64::from(self.magnitude);
        let mut angles = Vec::with_capacity(rows.len() * self.n_rotated());
        for row in rows {
            let position = f64::from(row.position);
            for frequency in self.frequencies.iter() {
                let (sin, cos) = libm::sincos(position * frequency);
                angles.extend([(cos * magnitude) as f32, (sin * magnitude) as f32]);
            }
        }
        angles
    }
}

impl Operation for Rope {
    fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        self.turn.check(self.head_size)?;
        shapes.require_rows("x", self.x, rows.len(), self.n_heads.saturating_mul(self.head_size))
    }

    /// A lane a pair.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let n_pairs = self.turn.frequencies.len();
        let (within, between) = self.turn.strides();
        let angles_at = plan.angles(&self.turn);
        plan.dispatch_lanes(
            Variant::Plain(Text::Rope),
            &[self.n_heads as u32, self.head_size as u32, n_pairs as u32, within, between, angles_at],
            &[(1, Binding::Data), (2, Binding::Write(self.x))],
            self.n_heads * n_pairs,
            plan.rows.len(),
        );
        Ok(())
    }
}
