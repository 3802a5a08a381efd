//! Rows mixed: what a row's experts give, each times its share.

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Text, Variant};

/// `out[r][i] = Σⱼ shares[r][j] · x[r · n_mixed + j][i] + residual[r][i]` for `n_rows` rows of `width`, j rising.
#[derive(Clone, Debug, PartialEq)]
pub struct MixRows {
    /// At least `[n_rows · n_mixed][width]`.
    pub x: BufferId,
    /// At least `[n_rows][n_mixed]`.
    pub shares: BufferId,
    pub n_mixed: usize,
    pub width: usize,
    pub n_rows: usize,
    /// Added last; may be `out` itself.
    pub residual: Option<BufferId>,
    /// Neither `x` nor `shares`.
    pub out: BufferId,
}

// The flags of `wgsl/mix_rows.wgsl`.
const HAS_RESIDUAL: u32 = 1;
const IN_PLACE: u32 = 2;

impl Operation for MixRows {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        require(self.n_mixed > 0, "n_mixed", "at least 1", self.n_mixed)?;
        shapes.require_rows("x", self.x, self.n_rows.saturating_mul(self.n_mixed), self.width)?;
        shapes.require_rows("shares", self.shares, self.n_rows, self.n_mixed)?;
        if let Some(residual) = self.residual {
            shapes.require_rows("residual", residual, self.n_rows, self.width)?;
        }
        shapes.require_rows("out", self.out, self.n_rows, self.width)?;
        require_apart(self.out, &[self.x, self.shares])
    }

    /// A lane a value.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let flags = match self.residual {
            None => 0,
            Some(residual) if residual == self.out => IN_PLACE,
            Some(_) => HAS_RESIDUAL,
        };
        plan.dispatch_lanes(
            Variant::Plain(Text::MixRows),
            &[self.width as u32, self.n_mixed as u32, flags],
            &[
                (1, Binding::Read(self.x)),
                (2, Binding::Read(self.shares)),
                (3, Binding::Write(self.out)),
                (4, self.residual.filter(|r| *r != self.out).map_or(Binding::Unread, Binding::Read)),
            ],
            self.width,
            self.n_rows,
        );
        Ok(())
    }
}
