//! Experts in place of one feed-forward network, as an engine holds them: a router, and the matrices of all of them one after another.

use polyphony_kernels::{Activate, Activation, BufferId, Engine, ExpertMatmul, MixRows, Recording, Route, SoftmaxOver};
use polyphony_model::family::Router;
use polyphony_model::{ExpertWidths, Hyperparameters, Role};

use super::SegmentError;
use super::linear::Linear;
use super::loaded::Loaded;

pub(super) struct Experts {
    router: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What a step leaves of its rows' experts: so many rows of each.
pub(super) struct Buffers {
    logits: BufferId,
    /// The numbers of the experts that each row has chosen, and their shares.
    chosen: BufferId,
    shares: BufferId,
    /// Of each choice.
    gate: BufferId,
    up: BufferId,
    gated: BufferId,
    given: BufferId,
}

/// A step's rows on their way through experts.
pub(super) struct Way<'a> {
    pub of: &'a Hyperparameters,
    pub function: Activation,
    pub buffers: &'a Buffers,
    pub x: BufferId,
}

// === impl Experts ===

impl Experts {
    /// Those of the layer with this index in the model, whose tensors are loaded; `None` of a model without any.
    pub fn build(loaded: &Loaded, of: &Hyperparameters, layer: u32) -> Result<Option<Self>, SegmentError> {
        if of.experts.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            router: Linear::build(loaded, Role::Router, layer)?,
            gate: Linear::build(loaded, Role::ExpertGate, layer)?,
            up: Linear::build(loaded, Role::ExpertUp, layer)?,
            down: Linear::build(loaded, Role::ExpertDown, layer)?,
        }))
    }

    /// What the experts that each row chooses give it together, into `out`, added to `residual` where there is one.
    pub fn record(&self, recording: &mut Recording, way: &Way<'_>, residual: Option<BufferId>, out: BufferId) {
        let (Some(experts), Some(router)) = (way.of.experts, way.of.architecture.family().router()) else {
            unreachable!("a model without experts builds none")
        };
        let (it, n_rows) = (way.buffers, recording.rows.len());
        let (n_experts, n_chosen) = (experts.n_experts as usize, experts.n_chosen as usize);
        let (width, hidden_size) = (way.of.ffn_size as usize, way.of.hidden_size as usize);
        let (chosen, shares) = (it.chosen, it.shares);
        let softmax = match router {
            Router::OfChosen => SoftmaxOver::Chosen,
            Router::OfAll => SoftmaxOver::All,
        };
        let product = |Linear { weight, bias }: Linear, x: BufferId, is_apart: bool, out: BufferId| ExpertMatmul {
            weight,
            n_experts,
            bias,
            x,
            is_apart,
            chosen,
            n_chosen,
            n_rows,
            out,
        };
        recording.push(self.router.of(way.x, n_rows, None, it.logits));
        let logits = it.logits;
        recording.push(Route { logits, n_experts, n_chosen, softmax, scale: experts.scale, n_rows, chosen, shares });
        recording.push(product(self.gate, way.x, false, it.gate));
        recording.push(product(self.up, way.x, false, it.up));
        let (function, n_choices) = (way.function, n_rows * n_chosen);
        let (x, factor) = (it.gate, Some(it.up));
        recording.push(Activate { function, x, factor, width, n_rows: n_choices, out: it.gated });
        recording.push(product(self.down, it.gated, true, it.given));
        recording.push(MixRows { x: it.given, shares, n_mixed: n_chosen, width: hidden_size, n_rows, residual, out });
    }
}

// === impl Buffers ===

impl Buffers {
    /// Room for `n_rows`; as little as can be where the model has no experts.
    pub fn alloc(engine: &mut dyn Engine, widths: ExpertWidths, n_rows: usize) -> Result<Self, SegmentError> {
        let mut rows_of = |width: u32| engine.alloc(n_rows * width as usize);
        Ok(Self {
            logits: rows_of(widths.logits)?,
            chosen: rows_of(widths.chosen)?,
            shares: rows_of(widths.shares)?,
            gate: rows_of(widths.gate)?,
            up: rows_of(widths.up)?,
            gated: rows_of(widths.gated)?,
            given: rows_of(widths.given)?,
        })
    }
}
