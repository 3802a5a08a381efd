//! Holds: which part of a model a segment is.

use serde::{Deserialize, Serialize};

/// What one segment holds of a model: the embedding, a range of layers, the output head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Holds {
    /// Turns tokens into hidden states.
    pub embedding: bool,
    pub layers: LayerRange,
    /// Turns hidden states into logits: the last norm and the output matrix.
    pub head: bool,
}

/// The layers from `from` up to, but without, `to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRange {
    pub from: u32,
    pub to: u32,
}

// === impl Holds ===

impl Holds {
    /// The whole model of `n_layers` layers.
    pub fn all(n_layers: u32) -> Self {
        Self { embedding: true, layers: LayerRange { from: 0, to: n_layers }, head: true }
    }

    /// Whether this is a part of `whole`, with at least one layer.
    pub fn lies_within(&self, whole: &Self) -> bool {
        let is_ordered = whole.layers.from <= self.layers.from && self.layers.from < self.layers.to;
        is_ordered
            && self.layers.to <= whole.layers.to
            && (whole.embedding || !self.embedding)
            && (whole.head || !self.head)
    }
}

impl std::fmt::Display for Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.embedding {
            f.write_str("embedding, ")?;
        }
        write!(f, "layers [{}, {})", self.layers.from, self.layers.to)?;
        if self.head {
            f.write_str(", head")?;
        }
        Ok(())
    }
}

// === impl LayerRange ===

impl LayerRange {
    /// How many layers these are; 0 where `to` is not after `from`.
    pub fn len(self) -> u32 {
        self.to.saturating_sub(self.from)
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn contains(self, layer: u32) -> bool {
        (self.from..self.to).contains(&layer)
    }

    pub fn iter(self) -> std::ops::Range<u32> {
        self.from..self.to
    }
}

impl From<std::ops::Range<u32>> for LayerRange {
    fn from(range: std::ops::Range<u32>) -> Self {
        Self { from: range.start, to: range.end }
    }
}
