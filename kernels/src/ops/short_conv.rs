//! A short causal convolution of every channel over its slot's cache, gated (Liquid AI 2025, arXiv 2511.23404).

use crate::ops::Operation;
use crate::ops::conv_write::require_f32;
use crate::ops::kv_write::check_cache;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, KvLayout, Row, VectorId};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Text, Variant};

/// `out[r][i] = x[r][1][i] · Σₜ taps[i][t] · cache[row.slot][row.position + 1 + t − n_taps][i]` for every row of the step, t from 0 to
/// n_taps − 1: the last tap is on the row's own position, and there is nothing before position 0.
///
/// `x` is `[rows][3][width]`, as `ConvWrite` takes it; rows see what one before this in the recording wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConv {
    pub x: BufferId,
    /// `[width][n_taps]`.
    pub taps: VectorId,
    pub n_taps: usize,
    pub cache: BufferId,
    /// Of the cache: `kv_width` is the width, its values are f32.
    pub layout: KvLayout,
    /// At least `[rows][width]`; not `x`.
    pub out: BufferId,
}

impl Operation for ShortConv {
    fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        let width = self.layout.kv_width;
        require_f32(self.layout)?;
        require(self.n_taps > 0, "n_taps", "at least 1", self.n_taps)?;
        shapes.require_vector("taps", self.taps, width.saturating_mul(self.n_taps))?;
        check_cache(shapes, self.layout, rows, "cache", self.cache)?;
        shapes.require_rows("x", self.x, rows.len(), width.saturating_mul(3))?;
        shapes.require_rows("out", self.out, rows.len(), width)?;
        require_apart(self.out, &[self.x, self.cache])
    }

    /// A lane a value.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch_lanes(
            Variant::Plain(Text::ShortConv),
            &[self.layout.kv_width as u32, self.layout.n_positions as u32, self.n_taps as u32, 0],
            &[
                (1, Binding::Data),
                (2, Binding::Read(self.x)),
                (3, Binding::Vector(self.taps)),
                (4, Binding::Read(self.cache)),
                (5, Binding::Write(self.out)),
            ],
            self.layout.kv_width,
            plan.rows.len(),
        );
        Ok(())
    }
}
