//! Rotary positions and the KV write in one: what two `Rope`s and a `KvWrite` give.

use crate::ops::Operation;
use crate::ops::kv_write::check_caches;
use crate::ops::rope::Turn;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, KvLayout, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::Variant;

/// For every row of the step: turns the queries into `q`, the keys into `k_cache[row.slot][row.position]`, and copies the values into
/// `v_cache[row.slot][row.position]`. Both are kept in the type of the layout.
///
/// `qkv` is `[rows][n_heads + 2 · n_kv_heads][head_size]`: queries, keys, values.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeKvWrite {
    pub qkv: BufferId,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_size: usize,
    /// `None` where positions are not rotary: queries and keys only move.
    pub turn: Option<Turn>,
    /// At least `[rows][n_heads][head_size]`; not `qkv`.
    pub q: BufferId,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
    /// `kv_width` is `n_kv_heads` × `head_size`.
    pub layout: KvLayout,
}

impl Operation for RopeKvWrite {
    fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        let Self { n_heads, n_kv_heads, head_size, .. } = *self;
        if let Some(turn) = &self.turn {
            turn.check(head_size)?;
        }
        let kv_width = n_kv_heads.saturating_mul(head_size);
        require(self.layout.kv_width == kv_width, "layout.kv_width", kv_width, self.layout.kv_width)?;
        check_caches(shapes, self.layout, rows, self.k_cache, self.v_cache)?;
        let q_width = n_heads.saturating_mul(head_size);
        shapes.require_rows("qkv", self.qkv, rows.len(), q_width.saturating_add(kv_width.saturating_mul(2)))?;
        shapes.require_rows("q", self.q, rows.len(), q_width)?;
        require_apart(self.q, &[self.qkv, self.k_cache, self.v_cache])?;
        require_apart(self.k_cache, &[self.qkv])?;
        require_apart(self.v_cache, &[self.qkv])
    }

    /// A lane two values of the queries, then a lane a unit of the caches' type.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let n_units = self.layout.kv_type.n_units(self.layout.kv_width);
        let (within, between) = self.turn.as_ref().map_or((1, 2), Turn::strides);
        let angles_at = self.turn.as_ref().map_or(0, |turn| plan.angles(turn));
        plan.dispatch_lanes(
            Variant::RopeKvWrite { kv_type: self.layout.kv_type },
            &[
                self.n_heads as u32,
                self.n_kv_heads as u32,
                self.head_size as u32,
                self.turn.as_ref().map_or(0, |turn| turn.frequencies.len() as u32),
                within,
                between,
                self.layout.n_positions as u32,
                self.layout.row_words() as u32,
                n_units as u32,
                angles_at,
                0,
            ],
            &[
                (1, Binding::Data),
                (2, Binding::Read(self.qkv)),
                (3, Binding::Write(self.q)),
                (4, Binding::Write(self.k_cache)),
                (5, Binding::Write(self.v_cache)),
            ],
            self.n_heads * self.head_size.div_ceil(2) + n_units,
            plan.rows.len(),
        );
        Ok(())
    }
}
