//! The most layers a phone can hold in each role of a ring.

use crate::costs::Costs;

/// Limits of memory and, where only rings below a limit are of interest, of time.
pub(super) struct Caps {
    /// Neither first nor last.
    pub(super) inner: usize,
    pub(super) head: usize,
    pub(super) tail: usize,
    /// The whole ring at once.
    pub(super) whole: bool,
}

// === impl Caps ===

impl Caps {
    /// No stage of a ring may take longer than `limit` seconds for its objective to be below that. An infinite
    /// limit is none.
    pub(super) fn new(costs: &Costs<'_>, phone: usize, limit: f64) -> Self {
        let n = costs.n_layers;
        let p = &costs.problem.phones[phone];
        // A cast of a float saturates, and an infinite quotient is no limit.
        let in_time = |ends_seconds: f64| ((limit - ends_seconds) / p.seconds_per_layer).max(0.0) as usize;
        let inner = (1..n.saturating_sub(1)).map(|from| costs.reach(phone, from)).max().unwrap_or(0);
        let tail = (1..n).find(|&from| costs.fits(phone, from, n)).map_or(0, |from| n - from);
        Self {
            inner: inner.min(in_time(0.0)),
            head: costs.reach(phone, 0).min(in_time(p.seconds_embedding)),
            tail: tail.min(in_time(p.seconds_head)),
            whole: costs.fits(phone, 0, n) && in_time(p.seconds_embedding + p.seconds_head) >= n,
        }
    }

    pub(super) fn most(&self, n_layers: usize) -> usize {
        if self.whole { n_layers } else { self.inner.max(self.head).max(self.tail) }
    }
}
