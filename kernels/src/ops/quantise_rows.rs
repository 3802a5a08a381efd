//! Activations of 8 bits: what a GPU engine of that arithmetic makes of rows before it multiplies them. Planned, never recorded.

use crate::plan::{Binding, Plan};
use crate::recording::BufferId;
use crate::weight_type::GROUP;
use crate::wgsl::Variant;

/// Values that share a scale: half a group of weights, so that one large value spoils fewer others.
pub(crate) const HALF_GROUP: usize = 16;
/// Bytes that a group of 32 values takes: 32 of values, then for each half d (f32) and the values' sum (i32).
pub(crate) const QUANTISED_GROUP_BYTES: usize = 48;

/// For each 16 values: d = max |xᵢ| / 127 and qᵢ = xᵢ · (127 / max |xᵢ|), rounded to the nearest integer, ties to even. Halves of a
/// group whose largest value is under 1e-30 become zeros.
///
/// So |xᵢ − d · qᵢ| ≤ d / 2 and a little for the rounding of the two quotients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QuantiseRows {
    pub x: BufferId,
    pub first_row: usize,
    pub n_rows: usize,
    /// A multiple of 32.
    pub width: usize,
}

impl QuantiseRows {
    /// A lane a group.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) {
        let n_groups = self.width / GROUP;
        plan.dispatch_lanes(
            Variant::QuantiseRows,
            &[n_groups as u32, self.first_row as u32],
            &[(1, Binding::Read(self.x)), (2, Binding::Quantised(self.x))],
            n_groups,
            self.n_rows,
        );
    }
}
