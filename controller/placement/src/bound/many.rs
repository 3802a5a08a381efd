//! The relaxed ring over so many phones that whole layers are too much work: the linear relaxation of the knapsack.
//!
//! A phone full to its cap takes (charge + cap × seconds of a layer) ÷ cap a layer; layers go to the cheapest first,
//! and a part of the last one is paid for only in part. That is the optimum of the linear programme.

use super::ways::Ways;
use crate::caps::Caps;
use crate::costs::Costs;

pub(super) struct Many<'a, 'b> {
    costs: &'a Costs<'b>,
    /// Of the usable phones, by position.
    caps: Vec<Caps>,
    /// Step, and the cheapest way in.
    charges: Vec<f64>,
    /// The cheapest embedding and output matrix.
    ends: f64,
}

// === impl Many ===

impl<'a, 'b> Many<'a, 'b> {
    pub(super) fn new(costs: &'a Costs<'b>) -> Self {
        let ways = Ways::new(costs);
        let phones = &costs.usable;
        let charge = |(at, &phone): (usize, &usize)| costs.step_seconds(phone) + ways.hop_in(at).min(ways.back_in(at));
        let embeddings = phones.iter().map(|&phone| costs.embedding_seconds(phone));
        let heads = phones.iter().map(|&phone| costs.head_seconds(phone));
        Self {
            costs,
            caps: phones.iter().map(|&phone| Caps::new(costs, phone)).collect(),
            charges: phones.iter().enumerate().map(charge).collect(),
            ends: embeddings.fold(f64::INFINITY, f64::min) + heads.fold(f64::INFINITY, f64::min),
        }
    }

    /// Seconds that no round is below with no stage over `limit` seconds, nor over `pace` for a whole chunk of a prompt; infinite when there
    /// is none.
    pub(super) fn round(&self, limit: f64, pace: f64) -> f64 {
        let n = self.costs.n_layers;
        let mut alone = f64::INFINITY;
        let mut offers: Vec<(f64, usize)> = Vec::with_capacity(self.caps.len());
        for (at, &phone) in self.costs.usable.iter().enumerate() {
            let caps = self.caps[at].within(self.costs, phone, limit * (1.0 + 1e-9));
            let caps = caps.reading_within(self.costs, phone, pace * (1.0 + 1e-9));
            if caps.whole && self.costs.min_stages() <= 1 {
                alone = alone.min(self.costs.stage_seconds(phone, 0, n));
            }
            let cap = caps.inner.max(caps.head).max(caps.tail);
            if cap > 0 && self.charges[at].is_finite() {
                offers.push((self.costs.layer_seconds(phone) + self.charges[at] / cap as f64, cap));
            }
        }
        offers.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut left = n;
        let mut round = self.ends;
        for (seconds, cap) in offers {
            let here = cap.min(left);
            round += here as f64 * seconds;
            left -= here;
            if left == 0 {
                return alone.min(round);
            }
        }
        alone
    }
}
