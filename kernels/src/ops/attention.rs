//! Causal attention of the step's rows over their slots' caches (Vaswani et al. 2017; grouped heads: arXiv 2305.13245).

use crate::ops::kv_write::check_caches;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, KvLayout, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::Variant;

/// The largest head size that the kernels hold in registers.
pub const MAX_HEAD_SIZE: usize = 256;

/// `out[r][h] = Σₚ softmaxₚ(scale · q[r][h] · k_cache[slot][p][g]) · v_cache[slot][p][g]`, where g = h ÷ (n_heads ÷ n_kv_heads)
/// and p runs over the positions 0 to the row's own, or the last `window` of them.
///
/// `q` and `out` are `[rows][n_heads][head_size]`. Rows see what a `KvWrite` before it in the recording wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub q: BufferId,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
    /// `kv_width` is `n_kv_heads` × `head_size`.
    pub layout: KvLayout,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// A multiple of 4, at most 256.
    pub head_size: usize,
    pub scale: f32,
    /// Positions seen, the row's own included; `None`: all.
    pub window: Option<u32>,
    /// Not `q`.
    pub out: BufferId,
}

impl Attention {
    pub(crate) fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        let Self { n_heads, n_kv_heads, head_size, .. } = *self;
        require(
            head_size > 0 && head_size.is_multiple_of(4) && head_size <= MAX_HEAD_SIZE,
            "head_size",
            format!("a multiple of 4, at most {MAX_HEAD_SIZE}"),
            head_size,
        )?;
        require(n_kv_heads > 0, "n_kv_heads", "at least 1", n_kv_heads)?;
        require(
            n_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
            "n_heads",
            format!("a multiple of {n_kv_heads} key heads"),
            n_heads,
        )?;
        let kv_width = n_kv_heads.saturating_mul(head_size);
        require(self.layout.kv_width == kv_width, "layout.kv_width", kv_width, self.layout.kv_width)?;
        require(self.window != Some(0), "window", "at least 1", 0)?;
        require(self.scale.is_finite(), "scale", "finite", self.scale)?;
        check_caches(shapes, self.layout, rows, self.k_cache, self.v_cache)?;
        shapes.require_rows("q", self.q, rows.len(), n_heads.saturating_mul(head_size))?;
        shapes.require_rows("out", self.out, rows.len(), n_heads.saturating_mul(head_size))?;
        require_apart(self.out, &[self.q, self.k_cache, self.v_cache])
    }

    /// The first position that a row at `position` sees.
    pub(crate) fn first_position(&self, position: u32) -> u32 {
        self.window.map_or(0, |window| position.saturating_add(1).saturating_sub(window))
    }
}

impl Attention {
    /// A workgroup a head of a row.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) {
        plan.dispatch(
            Variant::Attention,
            &[
                self.n_heads as u32,
                (self.n_heads / self.n_kv_heads) as u32,
                (self.head_size / 4) as u32,
                (self.layout.kv_width / 4) as u32,
                self.layout.n_positions as u32,
                self.window.unwrap_or(0),
                self.scale.to_bits(),
                0,
            ],
            &[
                (1, Binding::Data),
                (2, Binding::Read(self.q)),
                (3, Binding::Read(self.k_cache)),
                (4, Binding::Read(self.v_cache)),
                (5, Binding::Write(self.out)),
            ],
            [self.n_heads as u32, plan.rows.len() as u32],
        );
    }
}
