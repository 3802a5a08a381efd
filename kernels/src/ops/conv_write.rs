//! What a short convolution goes over, into its cache: a gate's product with what it lets in.

use crate::kv_type::KvType;
use crate::ops::Operation;
use crate::ops::kv_write::check_cache;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, KvLayout, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Text, Variant};

/// `cache[row.slot][row.position][i] = x[r][0][i] · x[r][2][i]` for every row of the step.
///
/// `x` is `[rows][3][width]`; the cache is as `layout` says, its `kv_width` being the width, and of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvWrite {
    pub x: BufferId,
    pub cache: BufferId,
    pub layout: KvLayout,
}

/// What a convolution goes over is kept as it is computed, whatever keys and values are kept in.
pub(crate) fn require_f32(layout: KvLayout) -> Result<(), ShapeError> {
    let found = layout.kv_type;
    require(found == KvType::F32, "layout.kv_type", "F32 for a convolution", format_args!("{found:?}"))
}

impl Operation for ConvWrite {
    fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        require_f32(self.layout)?;
        check_cache(shapes, self.layout, rows, "cache", self.cache)?;
        shapes.require_rows("x", self.x, rows.len(), self.layout.kv_width.saturating_mul(3))?;
        require_apart(self.cache, &[self.x])
    }

    /// A lane a value.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch_lanes(
            Variant::Plain(Text::ConvWrite),
            &[self.layout.kv_width as u32, self.layout.n_positions as u32, 0],
            &[(1, Binding::Data), (2, Binding::Read(self.x)), (3, Binding::Write(self.cache))],
            self.layout.kv_width,
            plan.rows.len(),
        );
        Ok(())
    }
}
