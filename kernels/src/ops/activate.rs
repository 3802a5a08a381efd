//! Activation functions of feed-forward layers, with or without a gate's other factor (Shazeer 2020, arXiv 2002.05202).

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row};
use crate::shapes::{ShapeError, Shapes, require_apart};
use crate::wgsl::{Text, Variant};

/// The function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x / (1 + e^(−2u)) with u = √(2/π) · (x + 0.044715 x³): the tanh form of x · Φ(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415), since
    /// ½ (1 + tanh u) is 1 / (1 + e^(−2u)).
    Gelu,
    /// max(x, 0).
    Relu,
    /// x / (1 + e^(−x)): the gate of SwiGLU.
    Silu,
    /// g / (1 + e^(−1.702 g)) with g = min(x, 7), whose other factor u counts as max(−7, min(u, 7)) + 1: the gate of gpt-oss (arXiv 2508.10925).
    SiluClamped,
}

impl Activation {
    /// Its number in `wgsl/parts/activations.wgsl`.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Gelu => 0,
            Self::Relu => 1,
            Self::Silu => 2,
            Self::SiluClamped => 3,
        }
    }
}

/// `out[i] = f(x[i])`, times `factor[i]` as the function takes it where there is one, for `n_rows` rows of `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct Activate {
    pub function: Activation,
    pub x: BufferId,
    pub factor: Option<BufferId>,
    pub width: usize,
    pub n_rows: usize,
    /// Neither `x` nor `factor`.
    pub out: BufferId,
}

impl Operation for Activate {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        shapes.require_rows("x", self.x, self.n_rows, self.width)?;
        if let Some(factor) = self.factor {
            shapes.require_rows("factor", factor, self.n_rows, self.width)?;
        }
        shapes.require_rows("out", self.out, self.n_rows, self.width)?;
        require_apart(self.out, &[self.x, self.factor.unwrap_or(self.x)])
    }

    /// A lane a value.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch_lanes(
            Variant::Plain(Text::Activate),
            &[self.width as u32, self.function.number(), u32::from(self.factor.is_some())],
            &[
                (1, Binding::Read(self.x)),
                (2, self.factor.map_or(Binding::Unread, Binding::Read)),
                (3, Binding::Write(self.out)),
            ],
            self.width,
            self.n_rows,
        );
        Ok(())
    }
}
