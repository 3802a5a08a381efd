//! Memory: what segments take, and who may hold which.

use super::{Costs, Ring};

// === impl Costs ===

impl Costs<'_> {
    pub(super) fn holds_something(&self, phone: usize) -> bool {
        let n = self.n_layers;
        if n == 1 {
            return self.fits(phone, 0, 1);
        }
        (0..n).any(|l| self.fits(phone, l, l + 1))
    }

    /// Bytes of a segment of layers `[from, to)`, with the ends it holds by its place.
    pub(crate) fn segment_bytes(&self, from: usize, to: usize) -> u64 {
        let model = &self.problem.model;
        let mut bytes = self.layers_bytes(from, to).saturating_add(model.activation_bytes);
        if from == 0 {
            bytes = bytes.saturating_add(model.embedding_bytes);
        }
        if to == self.n_layers {
            bytes = bytes.saturating_add(model.head_bytes);
        }
        if from == 0 && to == self.n_layers {
            bytes = bytes.saturating_sub(model.shared_bytes);
        }
        bytes
    }

    /// Bytes of weights alone of a segment of layers `[from, to)`, with the ends it holds by its place.
    pub(crate) fn weight_bytes(&self, from: usize, to: usize) -> u64 {
        let extra = self.layers_bytes(from, to) - self.layer_weight_bytes(from, to);
        self.segment_bytes(from, to).saturating_sub(extra).saturating_sub(self.problem.model.activation_bytes)
    }

    /// Bytes of weights alone of layers `[from, to)`.
    pub(crate) fn layer_weight_bytes(&self, from: usize, to: usize) -> u64 {
        self.problem.model.layer_bytes[from..to].iter().sum()
    }

    /// Bytes of a segment of layers `own` that also keeps the layers of `span` around them.
    pub(crate) fn span_bytes(&self, own: (usize, usize), span: (usize, usize)) -> u64 {
        let extra = self.layers_bytes(span.0, own.0) + self.layers_bytes(own.1, span.1);
        self.segment_bytes(own.0, own.1).saturating_add(extra)
    }

    /// Bytes of weights and KV cache of layers `[from, to)`, without what a segment adds.
    pub(crate) fn layers_bytes(&self, from: usize, to: usize) -> u64 {
        self.prefix[to] - self.prefix[from]
    }

    /// Whether `phone` may have layers `[from, to)` in memory, whatever room there is: those that see text are for trusted phones.
    pub(crate) fn may_hold(&self, phone: usize, from: usize, to: usize) -> bool {
        let sees_text =
            from == 0 || to == self.n_layers || self.second_embedding().is_some_and(|at| (from..to).contains(&at));
        self.is_trusted(phone) || !sees_text
    }

    /// The layer besides the first at which text is seen.
    pub(crate) fn second_embedding(&self) -> Option<usize> {
        self.problem.model.second_embedding.map(|layer| layer as usize)
    }

    pub(crate) fn are_all_trusted(&self) -> bool {
        self.usable.iter().all(|&phone| self.is_trusted(phone))
    }

    /// Whether it may hold layers that see text.
    pub(crate) fn is_trusted(&self, phone: usize) -> bool {
        self.problem.phones[phone].is_trusted
    }

    pub(crate) fn fits(&self, phone: usize, from: usize, to: usize) -> bool {
        self.may_hold(phone, from, to) && self.segment_bytes(from, to) <= self.budget[phone]
    }

    /// Whether a segment of layers `own` fits that also keeps the layers of `span` around them.
    pub(crate) fn span_fits(&self, phone: usize, own: (usize, usize), span: (usize, usize)) -> bool {
        self.may_hold(phone, span.0, span.1) && self.span_bytes(own, span) <= self.budget[phone]
    }

    /// The most layers `phone` can hold from `from` on without reaching the last layer.
    pub(crate) fn reach(&self, phone: usize, from: usize) -> usize {
        let mut besides = self.problem.model.activation_bytes;
        if from == 0 {
            if !self.is_trusted(phone) {
                return 0;
            }
            besides = besides.saturating_add(self.problem.model.embedding_bytes);
        }
        let Some(room) = self.budget[phone].checked_sub(besides) else {
            return 0;
        };
        let limit = self.prefix[from].saturating_add(room);
        // Boundaries after `from` and before the last layer's end, as far as they fit.
        let n_layers = self.prefix[from + 1..self.n_layers.max(from + 1)].partition_point(|&bytes| bytes <= limit);
        match self.second_embedding().filter(|&at| at >= from && !self.is_trusted(phone)) {
            Some(at) => n_layers.min(at - from),
            None => n_layers,
        }
    }

    /// The most layers `phone` can hold up to the last one, the first layer left out.
    pub(crate) fn reach_back(&self, phone: usize) -> usize {
        let model = &self.problem.model;
        let besides = model.activation_bytes.saturating_add(model.head_bytes);
        let Some(room) = self.budget[phone].checked_sub(besides).filter(|_| self.is_trusted(phone)) else {
            return 0;
        };
        let n = self.n_layers;
        let least = self.prefix[n].saturating_sub(room);
        // Boundaries from which on everything fits.
        n - (1 + self.prefix[1..n].partition_point(|&bytes| bytes < least)).min(n)
    }

    /// True when every stage of `ring` is within its phone's budget.
    pub(crate) fn ring_fits(&self, ring: &Ring) -> bool {
        ring.stages().all(|(phone, from, to)| from < to && self.fits(phone, from, to))
    }
}
