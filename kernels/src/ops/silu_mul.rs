//! The gate of SwiGLU (Shazeer 2020, arXiv 2002.05202).

use crate::plan::{Binding, Plan};
use crate::recording::BufferId;
use crate::shapes::{ShapeError, Shapes, require_apart};
use crate::wgsl::Variant;

/// `out[i] = gate[i] / (1 + e^(−gate[i])) · up[i]` for `n_rows` rows of `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct SiluMul {
    pub gate: BufferId,
    pub up: BufferId,
    pub width: usize,
    pub n_rows: usize,
    /// Neither `gate` nor `up`.
    pub out: BufferId,
}

impl SiluMul {
    pub(crate) fn check(&self, shapes: &Shapes) -> Result<(), ShapeError> {
        shapes.require_rows("gate", self.gate, self.n_rows, self.width)?;
        shapes.require_rows("up", self.up, self.n_rows, self.width)?;
        shapes.require_rows("out", self.out, self.n_rows, self.width)?;
        require_apart(self.out, &[self.gate, self.up])
    }
}

impl SiluMul {
    /// A lane a value.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) {
        plan.dispatch_lanes(
            Variant::SiluMul,
            &[self.width as u32],
            &[(1, Binding::Read(self.gate)), (2, Binding::Read(self.up)), (3, Binding::Write(self.out))],
            self.width,
            self.n_rows,
        );
    }
}
