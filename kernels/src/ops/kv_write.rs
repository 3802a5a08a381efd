//! KV write: keys and values of the step's rows into the caches.

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, KvLayout, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::Variant;

/// `k_cache[row.slot][row.position] = k[r]`, and the same for v, for every row of the step.
///
/// `k` and `v` are `[rows][kv_width]`, the caches as `layout` says, in whose type values are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KvWrite {
    pub k: BufferId,
    pub v: BufferId,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
    pub layout: KvLayout,
}

/// Checks two caches of one layer and that every row has its place in them.
pub(crate) fn check_caches(
    shapes: &Shapes,
    layout: KvLayout,
    rows: &[Row],
    k_cache: BufferId,
    v_cache: BufferId,
) -> Result<(), ShapeError> {
    check_cache(shapes, layout, rows, "k_cache", k_cache)?;
    shapes.require_rows("v_cache", v_cache, 1, layout.len())?;
    require(k_cache != v_cache, "v_cache", "another buffer than k_cache", format_args!("{v_cache:?}"))
}

/// Checks one cache and that every row has its place in it.
pub(crate) fn check_cache(
    shapes: &Shapes,
    layout: KvLayout,
    rows: &[Row],
    what: &'static str,
    cache: BufferId,
) -> Result<(), ShapeError> {
    shapes.require_rows(what, cache, 1, layout.len())?;
    for row in rows {
        let held = (row.slot as usize) < layout.n_slots;
        require(held, "slot", format_args!("less than {}", layout.n_slots), row.slot)?;
        let held = (row.position as usize) < layout.n_positions;
        require(held, "position", format_args!("less than {}", layout.n_positions), row.position)?;
    }
    Ok(())
}

impl Operation for KvWrite {
    fn check(&self, shapes: &Shapes, rows: &[Row]) -> Result<(), ShapeError> {
        check_caches(shapes, self.layout, rows, self.k_cache, self.v_cache)?;
        shapes.require_rows("k", self.k, rows.len(), self.layout.kv_width)?;
        shapes.require_rows("v", self.v, rows.len(), self.layout.kv_width)?;
        require_apart(self.k_cache, &[self.k, self.v])?;
        require_apart(self.v_cache, &[self.k, self.v])
    }

    /// A lane a unit of the type.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let n_units = self.layout.kv_type.n_units(self.layout.kv_width);
        plan.dispatch_lanes(
            Variant::KvWrite { kv_type: self.layout.kv_type },
            &[
                self.layout.kv_width as u32,
                self.layout.n_positions as u32,
                self.layout.row_words() as u32,
                n_units as u32,
                0,
            ],
            &[
                (1, Binding::Data),
                (2, Binding::Read(self.k)),
                (3, Binding::Read(self.v)),
                (4, Binding::Write(self.k_cache)),
                (5, Binding::Write(self.v_cache)),
            ],
            n_units,
            plan.rows.len(),
        );
        Ok(())
    }
}
