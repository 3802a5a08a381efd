//! Segment graphs: whose output goes to whom. Pure; sends nothing.
//!
//! Hidden states go from segment to segment, in the order of the layers. The output of an encoder does not take that way: it goes straight to
//! every segment that holds layers of the decoder, however far from the encoder's last, and once a prompt rather than once a token.

use crate::holds::Holds;
use crate::hyperparameters::Hyperparameters;

/// From one segment's output to another's input; segments are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub kind: EdgeKind,
}

/// What travels along an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// The hidden state, to the next layer.
    Sequential,
    /// The encoder's output, to layers that attend to it.
    Skip,
}

// === impl Hyperparameters ===

impl Hyperparameters {
    /// The edges of a model whose layers these segments hold, one after another.
    ///
    /// A segment that holds the encoder's end and layers of the decoder has the output already: no edge goes to itself.
    pub fn edges(&self, segments: &[Holds]) -> Vec<Edge> {
        let n_encoder_layers = self.encoder.map_or(0, |encoder| encoder.n_layers);
        let continues = |to: &usize| n_encoder_layers == 0 || segments[*to].layers.from != n_encoder_layers;
        let sequential =
            (1..segments.len()).filter(continues).map(|to| Edge { from: to - 1, to, kind: EdgeKind::Sequential });
        let last_of_encoder =
            segments.iter().position(|it| n_encoder_layers > 0 && it.layers.contains(n_encoder_layers - 1));
        let skips = last_of_encoder.into_iter().flat_map(|from| {
            let decodes = move |to: &usize| *to != from && segments[*to].layers.to > n_encoder_layers;
            (0..segments.len()).filter(decodes).map(move |to| Edge { from, to, kind: EdgeKind::Skip })
        });
        sequential.chain(skips).collect()
    }
}
