//! The most layers a phone can hold in each role of a ring.

use crate::costs::Costs;

/// Limits of memory and, where only rings below a limit are of interest, of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    /// Neither first nor last.
    pub(crate) inner: usize,
    pub(crate) head: usize,
    pub(crate) tail: usize,
    /// The whole ring at once.
    pub(crate) whole: bool,
}

// === impl Caps ===

impl Caps {
    /// What fits into the phone's memory, wherever its layers are.
    pub(crate) fn new(costs: &Costs<'_>, phone: usize) -> Self {
        let n = costs.n_layers;
        // Where all layers are alike, so are all places inside.
        let places = if costs.has_even_layers { 1..n.saturating_sub(1).min(2) } else { 1..n.saturating_sub(1) };
        let inner = places.map(|from| costs.reach(phone, from)).max().unwrap_or(0);
        let tail = costs.reach_back(phone);
        Self { inner, head: costs.reach(phone, 0), tail, whole: costs.fits(phone, 0, n) }
    }

    /// What is done within `limit` seconds as well: no stage of a ring may take longer for the ring's objective to be
    /// below that. An infinite limit is none.
    pub(crate) fn within(self, costs: &Costs<'_>, phone: usize, limit: f64) -> Self {
        let (embedding, head) = (costs.embedding_seconds(phone), costs.head_seconds(phone));
        let limit = limit - costs.step_seconds(phone);
        // A cast of a float saturates, and an infinite quotient is no limit.
        let in_time = |ends_seconds: f64| ((limit - ends_seconds) / costs.layer_seconds(phone)).max(0.0) as usize;
        Self {
            inner: self.inner.min(in_time(0.0)),
            head: self.head.min(in_time(embedding)),
            tail: self.tail.min(in_time(head)),
            whole: self.whole && in_time(embedding + head) >= costs.n_layers,
        }
    }

    /// What reads a whole chunk of a prompt within `limit` seconds as well.
    pub(crate) fn reading_within(self, costs: &Costs<'_>, phone: usize, limit: f64) -> Self {
        if limit.is_infinite() {
            return self;
        }
        let layer = costs.chunk_layer_seconds(phone);
        let in_time = |is_head: bool| {
            let left = limit - costs.chunk_besides_seconds(phone, is_head);
            // A cast of a float saturates.
            if left < 0.0 { 0 } else { (left / layer.max(f64::MIN_POSITIVE)) as usize }
        };
        let (head, others) = (in_time(true), in_time(false));
        Self {
            inner: self.inner.min(others),
            head: self.head.min(head),
            tail: self.tail.min(others),
            whole: self.whole && head >= costs.n_layers,
        }
    }

    pub(crate) fn most(&self, n_layers: usize) -> usize {
        if self.whole { n_layers } else { self.inner.max(self.head).max(self.tail) }
    }
}
