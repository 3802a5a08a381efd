//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864).

use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row, VectorId};
use crate::shapes::{ShapeError, Shapes, require};
use crate::wgsl::Variant;

/// Which two values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// (2i, 2i + 1), as Llama files have it.
    Pairs,
    /// (i, i + n_rotated / 2), as Qwen, Gemma and Phi files have it.
    Halves,
}

/// How the heads of a row are turned: pair i of the first `n_rotated` values of each by the angle
/// `position · position_scale · base^(−2i / n_rotated) / frequency_factors[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Even, at most the head size; the values after it stay as they are.
    pub n_rotated: usize,
    pub style: RopeStyle,
    pub base: f32,
    /// 1, or one over the factor of linear scaling.
    pub position_scale: f32,
    /// `[n_rotated / 2]`, none of them 0.
    pub frequency_factors: Option<VectorId>,
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

impl Rope {
    pub(crate) fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        self.turn.check(shapes, self.head_size)?;
        shapes.require_rows("x", self.x, rows.len(), self.n_heads.saturating_mul(self.head_size))
    }
}

impl Turn {
    pub(crate) fn check(&self, shapes: &Shapes, head_size: usize) -> Result<(), ShapeError> {
        require(
            self.n_rotated > 0 && self.n_rotated.is_multiple_of(2) && self.n_rotated <= head_size,
            "n_rotated",
            format!("even, 2 to the head size of {head_size}"),
            self.n_rotated,
        )?;
        require(self.base.is_finite() && self.base > 0.0, "base", "finite and over 0", self.base)?;
        require(self.position_scale.is_finite(), "position_scale", "finite", self.position_scale)?;
        if let Some(factors) = self.frequency_factors {
            shapes.require_vector("frequency_factors", factors, self.n_rotated / 2)?;
        }
        Ok(())
    }

    /// Values from one of a pair to the other, and from one pair to the next.
    pub(crate) fn strides(&self) -> (u32, u32) {
        match self.style {
            RopeStyle::Pairs => (1, 2),
            RopeStyle::Halves => (self.n_rotated as u32 / 2, 1),
        }
    }

    /// Cosine and sine of every angle, `[rows][n_rotated / 2][2]`. Computed here, in f64, for all engines: the sines of
    /// GPU drivers differ and are wrong for large angles.
    pub(crate) fn angles(&self, rows: &[Row], frequency_factors: Option<&[f32]>) -> Vec<f32> {
        let n_pairs = self.n_rotated / 2;
        let ln_base = libm::log(f64::from(self.base));
        let frequencies: Vec<f64> = (0..n_pairs)
            .map(|i| {
                let factor = frequency_factors.map_or(1.0, |factors| f64::from(factors[i]));
                libm::exp(ln_base * (-2.0 * i as f64 / self.n_rotated as f64)) / factor
            })
            .collect();
        let mut angles = Vec::with_capacity(rows.len() * self.n_rotated);
        for row in rows {
            let position = f64::from(row.position) * f64::from(self.position_scale);
            for frequency in &frequencies {
                let (sin, cos) = libm::sincos(position * frequency);
                angles.extend([cos as f32, sin as f32]);
            }
        }
        angles
    }
}

impl Rope {
    /// A lane a pair.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) {
        let n_pairs = self.turn.n_rotated / 2;
        let (within, between) = self.turn.strides();
        let angles_at = plan.angles(&self.turn);
        plan.dispatch_lanes(
            Variant::Rope,
            &[self.n_heads as u32, self.head_size as u32, n_pairs as u32, within, between, angles_at],
            &[(1, Binding::Data), (2, Binding::Write(self.x))],
            self.n_heads * n_pairs,
            plan.rows.len(),
        );
    }
}
