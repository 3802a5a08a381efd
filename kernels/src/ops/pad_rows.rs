//! Rows filled up with zeros to whole groups: what a GPU engine makes of rows before a matrix of any width is multiplied with them. Planned,
//! never recorded.

use crate::packing::GROUP;
use crate::plan::{Binding, Form, Plan};
use crate::recording::BufferId;
use crate::wgsl::{Text, Variant};

/// `out[r][i] = x[r][i]`, or 0 from `width` on, rows being as wide as whole groups are.
///
/// Weights beyond a matrix's width are zeros, but those times what follows a row need not be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PadRows {
    pub x: BufferId,
    pub first_row: usize,
    pub n_rows: usize,
    pub width: usize,
}

impl PadRows {
    /// A lane four values.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) {
        let n_fours = self.width.next_multiple_of(GROUP) / 4;
        plan.dispatch_lanes(
            Variant::Plain(Text::PadRows),
            &[self.width as u32, n_fours as u32, self.first_row as u32],
            &[(1, Binding::Read(self.x)), (2, Binding::Made(self.x, Form::Padded))],
            n_fours,
            self.n_rows,
        );
    }
}
