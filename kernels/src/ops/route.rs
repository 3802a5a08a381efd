//! Routing: which experts a row takes, and how much of each (Shazeer et al. 2017, arXiv 1701.06538).

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Text, Variant};

/// The most experts that one row takes.
pub const MAX_CHOSEN: usize = 64;

/// What shares are a softmax over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SoftmaxOver {
    /// The chosen experts: their shares come to 1. A softmax over all that is divided by the sum of the chosen is the same.
    Chosen,
    /// All experts.
    All,
}

/// Of each of `n_rows` rows the `n_chosen` experts with the largest logits, the largest first, of equal ones that with the lower number first.
///
/// `chosen[r][j]` is the number of one, as an f32; `shares[r][j]` is `scale · e^l / Σ e^l`, the sum over the chosen, by their rank, or over all,
/// by their number. Logits are compared as integers that rise with them, so that every device chooses alike, and as many whatever they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// At least `[n_rows][n_experts]`.
    pub logits: BufferId,
    pub n_experts: usize,
    /// From 1 to [`MAX_CHOSEN`], and at most `n_experts`.
    pub n_chosen: usize,
    pub softmax: SoftmaxOver,
    pub scale: f32,
    pub n_rows: usize,
    /// At least `[n_rows][n_chosen]`, as `shares`; all three are apart.
    pub chosen: BufferId,
    pub shares: BufferId,
}

/// A number that rises with the logit; 0 and -0 are one.
pub(crate) fn key(logit: f32) -> u32 {
    match logit.to_bits() {
        bits @ 0x8000_0000 => bits,
        bits if bits > 0x8000_0000 => !bits,
        bits => bits | 0x8000_0000,
    }
}

impl Operation for Route {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        let most = MAX_CHOSEN.min(self.n_experts);
        require((1..=most).contains(&self.n_chosen), "n_chosen", format_args!("1 to {most}"), self.n_chosen)?;
        // Numbers of experts travel as f32.
        require(self.n_experts <= 1 << 24, "n_experts", "at most 2^24", self.n_experts)?;
        require(self.scale.is_finite(), "scale", "finite", self.scale)?;
        shapes.require_rows("logits", self.logits, self.n_rows, self.n_experts)?;
        shapes.require_rows("chosen", self.chosen, self.n_rows, self.n_chosen)?;
        shapes.require_rows("shares", self.shares, self.n_rows, self.n_chosen)?;
        require_apart(self.chosen, &[self.logits, self.shares])?;
        require_apart(self.shares, &[self.logits])
    }

    /// A workgroup a row.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch(
            Variant::Plain(Text::Route),
            &[
                self.n_experts as u32,
                self.n_chosen as u32,
                u32::from(self.softmax == SoftmaxOver::All),
                self.scale.to_bits(),
            ],
            &[(1, Binding::Read(self.logits)), (2, Binding::Write(self.chosen)), (3, Binding::Write(self.shares))],
            [1, self.n_rows as u32],
        );
        Ok(())
    }
}
