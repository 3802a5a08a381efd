//! LinguaLinked's primary assignment (ACL 2024, arXiv 2312.00388; its public code of March 2024), solved exactly.
//!
//! Over devices i, k and modules j, m, with x_ij = 1 where device i holds module j:
//!
//! ```text
//! min  Σ_i Σ_j (F_j / φ_i) x_ij  +  Σ_{i≠k} [ λ_ik + (1/B_ik) Σ_{j,m} x_ij O_jm x_km ]
//! s.t. x_00 = 1;  Σ_i x_ij = 1;  each device's modules are one contiguous block;  Σ_j w_j x_ij ≤ 0.7 A_i
//! ```
//!
//! Here a module is a layer, the first one with the embedding and the last one with the output matrix. φ_i comes from
//! the phone's measured time of a layer. λ is summed over all pairs, so it is a constant and decides nothing. O is one
//! hidden state between neighbouring layers and the logits from the last layer to the first, as published, although
//! logits never travel here. Contiguous blocks and a fixed first device leave orders and cuts to be found: a dynamic
//! programme over (set of devices used, the last of them, boundary).

use super::ring_of_counts;
use crate::costs::{Costs, Ring};

/// The part of a phone's free memory that the published programme gives to weights.
pub(super) const MEMORY_SHARE: f64 = 0.7;
/// Steps of the dynamic programme at most; more phones than that allows are not all looked at.
const MAX_STEPS: f64 = 1e8;
/// Phones that a ring is tried to begin at where the best is wanted: each is a whole search.
const MOST_FIRST: usize = 4;

/// The programme's best ring. Over more phones than can be searched, the first and the fastest others count.
pub(super) fn ring(costs: &Costs<'_>, phones: &[usize]) -> Result<Ring, String> {
    let phones = searched(costs, phones);
    let best = Search::new(costs, &phones).best();
    best.map(|(_, ring)| ring).ok_or_else(|| {
        let first = &costs.problem.phones[phones[0]].name;
        format!("no ring that begins at {first} keeps each phone's weights within {MEMORY_SHARE} of its memory")
    })
}

/// The best ring by the programme's own objective, whichever phone it begins at, of the fastest few. Not published: it is what the programme
/// would be worth to one who knew which device to begin with.
pub(super) fn ring_from_best_first(costs: &Costs<'_>, phones: &[usize]) -> Result<Ring, String> {
    let begun_at = |first: usize| {
        let others = phones.iter().copied().filter(|&phone| phone != first);
        Search::new(costs, &searched(costs, &[first].into_iter().chain(others).collect::<Vec<_>>())).best()
    };
    let mut firsts = phones.to_vec();
    firsts.sort_by(|&a, &b| {
        let speed = |phone: usize| costs.problem.phones[phone].seconds_per_layer;
        speed(a).total_cmp(&speed(b))
    });
    firsts.truncate(MOST_FIRST);
    let best = firsts.into_iter().filter_map(begun_at).min_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map(|(_, ring)| ring)
        .ok_or_else(|| format!("no ring keeps each phone's weights within {MEMORY_SHARE} of its memory"))
}

/// The first phone, which is given, and the fastest of the others as far as they can be searched.
fn searched(costs: &Costs<'_>, phones: &[usize]) -> Vec<usize> {
    let n_layers = costs.n_layers as f64;
    let steps = |n: usize| (n as f64).exp2() * (n * n) as f64 * n_layers * n_layers / 2.0;
    let most = (1..=phones.len().min(16)).rev().find(|&n| steps(n) <= MAX_STEPS).unwrap_or(1);
    let mut others = phones[1..].to_vec();
    let speed = |phone: &usize| costs.problem.phones[*phone].seconds_per_layer;
    others.sort_by(|a, b| speed(a).total_cmp(&speed(b)));
    others.truncate(most - 1);
    others.sort_unstable();
    [&phones[..1], &others].concat()
}

struct Search<'a, 'b> {
    costs: &'a Costs<'b>,
    phones: &'a [usize],
    /// Seconds of one layer, F_j / φ_i, by position.
    layer: Vec<f64>,
    /// Seconds of the output matrix by position.
    head: Vec<f64>,
    /// `reach[p][from]`: one past the last boundary that p may hold from `from` on, the last layer left out.
    reach: Vec<Vec<usize>>,
    /// `closes[p][from]`: whether p may hold `[from, n)`.
    closes: Vec<Vec<bool>>,
}

/// Nothing so far.
const NONE: f64 = f64::INFINITY;

// === impl Search ===

impl<'a, 'b> Search<'a, 'b> {
    fn new(costs: &'a Costs<'b>, phones: &'a [usize]) -> Self {
        let (model, n) = (&costs.problem.model, costs.n_layers);
        let layer: Vec<f64> = phones.iter().map(|&phone| costs.problem.phones[phone].seconds_per_layer).collect();
        let head_in_layers = match model.layer_multiply_adds {
            0 => 0.0,
            layer => model.head_multiply_adds as f64 / layer as f64,
        };
        let head = layer.iter().map(|seconds| seconds * head_in_layers).collect();
        let fits = |phone: usize, from: usize, to: usize| {
            let limit = MEMORY_SHARE * costs.problem.phones[phone].allocatable_bytes as f64;
            costs.fits(phone, from, to) && costs.weight_bytes(from, to) as f64 <= limit
        };
        let reach = |&phone: &usize| {
            let furthest = |from: usize| (from + 1..n).take_while(|&to| fits(phone, from, to)).last().unwrap_or(from);
            (0..n).map(furthest).collect()
        };
        let closes = |&phone: &usize| (0..n).map(|from| fits(phone, from, n)).collect();
        Self {
            costs,
            phones,
            layer,
            head,
            reach: phones.iter().map(reach).collect(),
            closes: phones.iter().map(closes).collect(),
        }
    }

    /// Seconds that the data of a hop is on the wire, None where the two cannot reach each other.
    fn wire(&self, from: usize, to: usize, bytes: u64) -> Option<f64> {
        let link = self.costs.problem.links.between(self.phones[from], self.phones[to]);
        let seconds = link.wire_seconds(bytes);
        (seconds.is_finite() && self.costs.hop_seconds(self.phones[from], self.phones[to]).is_finite())
            .then_some(seconds)
    }

    /// The best ring that begins at the first phone, and its objective.
    fn best(&self) -> Option<(f64, Ring)> {
        let (k, n) = (self.phones.len(), self.costs.n_layers);
        let model = &self.costs.problem.model;
        let hop = |from, to| if from == to { None } else { self.wire(from, to, model.hop_bytes) };
        let hops: Vec<Vec<Option<f64>>> = (0..k).map(|from| (0..k).map(|to| hop(from, to)).collect()).collect();
        let place = |set: usize, last: usize, end: usize| (set * k + last) * n + end;
        // The least objective with the devices of `set`, the last of them ending at a boundary below n.
        let mut least = vec![NONE; (1usize << k) * k * n];
        let mut came: Vec<(u8, u16)> = vec![(0, 0); least.len()];
        let mut best: Option<(f64, usize, usize, usize)> = None;
        let mut close = |value: f64, set: usize, last: usize, from: usize| {
            if !self.closes[last][from] {
                return;
            }
            let back = if last == 0 { Some(0.0) } else { self.wire(last, 0, model.logits_bytes) };
            let Some(back) = back else { return };
            let value = value + (n - from) as f64 * self.layer[last] + self.head[last] + back;
            if best.is_none_or(|(known, ..)| value < known) {
                best = Some((value, set, last, from));
            }
        };
        close(0.0, 1, 0, 0);
        for end in 1..=self.reach[0][0] {
            least[place(1, 0, end)] = end as f64 * self.layer[0];
        }
        // Sets in rising order: each is made from smaller ones.
        for set in (1..1usize << k).step_by(2) {
            for last in (0..k).filter(|last| set & (1 << last) != 0) {
                for from in 1..n {
                    let value = least[place(set, last, from)];
                    if value == NONE {
                        continue;
                    }
                    for next in (0..k).filter(|next| set & (1 << next) == 0) {
                        let Some(hop) = hops[last][next] else { continue };
                        let with = set | (1 << next);
                        // The place a closing block came from is told by its own set without it.
                        close(value + hop, with, next, from);
                        for end in from + 1..=self.reach[next][from] {
                            let value = value + hop + (end - from) as f64 * self.layer[next];
                            let at = place(with, next, end);
                            if value < least[at] {
                                least[at] = value;
                                came[at] = (last as u8, from as u16);
                            }
                        }
                    }
                }
            }
        }
        let (value, set, last, from) = best?;
        Some((value, self.read(set, last, from, &least, &came, &hops)))
    }

    /// The ring that ends with `last` holding `[from, n)`, read backwards.
    fn read(
        &self,
        set: usize,
        last: usize,
        from: usize,
        least: &[f64],
        came: &[(u8, u16)],
        hops: &[Vec<Option<f64>>],
    ) -> Ring {
        let (k, n) = (self.phones.len(), self.costs.n_layers);
        let place = |set: usize, last: usize, end: usize| (set * k + last) * n + end;
        let mut order = vec![self.phones[last]];
        let mut counts = vec![n - from];
        let (mut set, mut end) = (set & !(1 << last), from);
        let before = |set: usize, end: usize, next: usize| {
            let value = |at: usize| hops[at][next].map_or(NONE, |hop| least[place(set, at, end)] + hop);
            (0..k).filter(|at| set & (1 << at) != 0).min_by(|&a, &b| value(a).total_cmp(&value(b)))
        };
        let mut stage = if set == 0 { None } else { before(set, end, last) };
        while let Some(at) = stage {
            let (earlier, began) = came[place(set, at, end)];
            order.push(self.phones[at]);
            counts.push(end - usize::from(began));
            end = usize::from(began);
            set &= !(1 << at);
            stage = (set != 0).then_some(usize::from(earlier));
        }
        order.reverse();
        counts.reverse();
        ring_of_counts(&order, &counts)
    }
}
