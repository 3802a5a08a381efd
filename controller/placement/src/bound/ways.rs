//! The cheapest way into each phone, with a price on the ways out.

use crate::costs::Costs;
use crate::problem::{Access, Link};

/// Phones up to which every pair is looked at.
const MAX_PRICED: usize = 128;

/// What a phone does in a relaxed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Unused,
    Inner,
    Head,
    Tail,
    /// The ring: no way leads in or out.
    Whole,
}

/// Positions are those of the usable phones.
pub(super) struct Ways {
    /// Seconds of a hop, and of the token's way back, from i to j at `i × n + j`; empty with too many phones.
    hops: Vec<f64>,
    backs: Vec<f64>,
    prices: Vec<f64>,
    /// The cheapest of each phone's ways in, its own price included, and where it comes from.
    hop_in: Vec<(f64, usize)>,
    back_in: Vec<(f64, usize)>,
}

// === impl Ways ===

impl Ways {
    pub(super) fn new(costs: &Costs<'_>) -> Self {
        let n = costs.usable.len();
        let prices = vec![0.0; n];
        if n > MAX_PRICED {
            let (hop_in, back_in) = cheapest_of_many(costs);
            return Self { hops: Vec::new(), backs: Vec::new(), prices, hop_in, back_in };
        }
        let pairs = || costs.usable.iter().flat_map(|&i| costs.usable.iter().map(move |&j| (i, j)));
        let apart = |i: usize, j: usize, seconds: f64| if i == j { f64::INFINITY } else { seconds };
        let hops = pairs().map(|(i, j)| apart(i, j, costs.hop_seconds(i, j))).collect();
        let backs = pairs().map(|(i, j)| apart(i, j, costs.back_seconds(i, j))).collect();
        let none = vec![(f64::INFINITY, 0); n];
        let mut ways = Self { hops, backs, prices, hop_in: none.clone(), back_in: none };
        ways.look();
        ways
    }

    /// Seconds of the cheapest hop into a phone.
    pub(super) fn hop_in(&self, at: usize) -> f64 {
        self.hop_in[at].0
    }

    /// Seconds of the cheapest way back to a phone that is the head.
    pub(super) fn back_in(&self, at: usize) -> f64 {
        self.back_in[at].0
    }

    pub(super) fn can_be_priced(&self) -> bool {
        !self.hops.is_empty()
    }

    pub(super) fn prices(&self) -> &[f64] {
        &self.prices
    }

    pub(super) fn set_prices(&mut self, prices: Vec<f64>) {
        self.prices = prices;
        if self.can_be_priced() {
            self.look();
        }
    }

    /// Along `slope`: up where a phone is used and nobody comes from it.
    pub(super) fn move_prices(&mut self, slope: &[f64], by: f64) {
        let prices = self.prices.iter().zip(slope).map(|(price, slope)| price + by * slope).collect();
        self.set_prices(prices);
    }

    /// By how much each phone's ways out fall short of one, where it is used.
    pub(super) fn slope(&self, roles: &[Role]) -> Vec<f64> {
        let mut slope = vec![0.0; roles.len()];
        for (at, role) in roles.iter().enumerate() {
            let from = match role {
                Role::Inner | Role::Tail => self.hop_in[at].1,
                Role::Head => self.back_in[at].1,
                Role::Unused | Role::Whole => continue,
            };
            slope[at] += 1.0;
            slope[from] -= 1.0;
        }
        slope
    }

    fn look(&mut self) {
        let n = self.prices.len();
        for to in 0..n {
            let cheapest = |seconds: &[f64]| {
                let mut best = (f64::INFINITY, to);
                for (from, price) in self.prices.iter().enumerate() {
                    let cost = seconds[from * n + to] - price;
                    if cost < best.0 {
                        best = (cost, from);
                    }
                }
                (best.0 + self.prices[to], best.1)
            };
            let (hop, back) = (cheapest(&self.hops), cheapest(&self.backs));
            self.hop_in[to] = hop;
            self.back_in[to] = back;
        }
    }
}

/// The cheapest ways in: from the links that were measured, and for the others nothing that is above what accesses or the default
/// make of them.
#[allow(clippy::type_complexity)]
fn cheapest_of_many(costs: &Costs<'_>) -> (Vec<(f64, usize)>, Vec<(f64, usize)>) {
    let links = &costs.problem.links;
    let default = links.default;
    let known: Vec<Access> = costs.usable.iter().filter_map(|&phone| links.access_of(phone)).collect();
    let least_delay = known.iter().map(|access| access.delay_seconds).fold(f64::INFINITY, f64::min);
    let widest = known.iter().map(|access| access.bytes_per_second).fold(0.0, f64::max);
    let into = |&phone: &usize| {
        let estimated = links.access_of(phone).map(|access| Link {
            latency_seconds: access.delay_seconds + least_delay,
            bytes_per_second: access.bytes_per_second.min(widest),
        });
        let seconds = |link: Link| {
            let (rate, delay) = (costs.way_rate(), link.delay_seconds());
            let hop = delay + costs.rows * link.wire_seconds(costs.problem.model.hop_bytes);
            // No rate makes a way of none.
            (if hop.is_finite() { rate * hop } else { hop }, if delay.is_finite() { rate * delay } else { delay })
        };
        let of_default = seconds(default);
        match estimated.map(seconds) {
            Some(of_access) if known.len() == costs.usable.len() => of_access,
            Some((hop, back)) => (hop.min(of_default.0), back.min(of_default.1)),
            None => of_default,
        }
    };
    let (mut hops, mut backs): (Vec<(f64, usize)>, Vec<(f64, usize)>) =
        costs.usable.iter().map(into).map(|(hop, back)| ((hop, 0), (back, 0))).unzip();
    for &((from, to), _) in links.measured.iter() {
        let (Ok(_), Ok(at)) = (costs.usable.binary_search(&from), costs.usable.binary_search(&to)) else { continue };
        if from != to {
            hops[at].0 = hops[at].0.min(costs.hop_seconds(from, to));
            backs[at].0 = backs[at].0.min(costs.back_seconds(from, to));
        }
    }
    (hops, backs)
}
