//! How many layers each phone of an order should have, not which: fast enough to ask of thousands of orders.
//!
//! Where all layers take the same bytes this is exact. Where they differ it is a relaxation: no cut of that order is
//! better, and a dynamic programme has the last word.

use crate::caps::Caps;
use crate::costs::{Costs, Score, TIE};
use crate::limits::least;

/// Halvings of the interval of the slowest stage's time: more than rounding can tell apart.
const HALVINGS: usize = 36;

pub(super) struct Counts<'a, 'b> {
    costs: &'a Costs<'b>,
    /// By phone, for those that are searched.
    caps: Vec<Option<Caps>>,
    /// Places of an order, the fastest first; and what each may hold.
    fastest: Vec<usize>,
    most: Vec<usize>,
    /// Of the last counts: the longest time of a stage for a whole chunk.
    pace: f64,
}

// === impl Counts ===

impl<'a, 'b> Counts<'a, 'b> {
    pub(super) fn new(costs: &'a Costs<'b>, pool: &[usize]) -> Self {
        let mut caps = vec![None; costs.problem.phones.len()];
        for &phone in pool {
            caps[phone] = Some(Caps::new(costs, phone));
        }
        Self { costs, caps, fastest: Vec::new(), most: Vec::new(), pace: 0.0 }
    }

    /// The best score of any counts in this order; None when there are none, or none as good as `known`.
    pub(super) fn best(&mut self, phones: &[usize], known: Option<&Score>) -> Option<Score> {
        let costs = self.costs;
        let hops = costs.hops_seconds(phones);
        let limit = known.map_or(f64::INFINITY, |known| known.objective * (1.0 + TIE));
        if !hops.is_finite() || hops > limit * self.round_share() {
            return None;
        }
        self.fastest.clear();
        self.fastest.extend(0..phones.len());
        self.fastest.sort_by(|&a, &b| costs.layer_seconds(phones[a]).total_cmp(&costs.layer_seconds(phones[b])));
        if costs.is_of_one() {
            return self.paced(phones, hops, limit);
        }
        let wire = costs.slowest_wire(phones);
        let slowest = |&phone: &usize| costs.stage_seconds(phone, 0, costs.n_layers);
        let mut high = phones.iter().map(slowest).fold(wire, f64::max).max(hops).min(limit);
        let mut round = self.stages(phones, high, f64::INFINITY)? + hops;
        if wire > high || (round / costs.shares() > high && limit < f64::INFINITY) {
            return None;
        }
        // What the objective cannot be below; where the two meet is what is looked for.
        let mut low = wire;
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            match self.stages(phones, middle, f64::INFINITY) {
                Some(stages) if (stages + hops) / costs.shares() <= middle => {
                    high = middle;
                    round = stages + hops;
                }
                _ => low = middle,
            }
        }
        // With few sessions it is the shared round, which a slower stage may shorten.
        let objective = high.max(round / costs.shares()).max(wire);
        Some(Score { objective, round })
    }

    /// The best score of a sum: of all paces, with what the pace costs.
    fn paced(&mut self, phones: &[usize], hops: f64, limit: f64) -> Option<Score> {
        let (costs, price) = (self.costs, self.costs.pace_price());
        let round = self.stages(phones, f64::INFINITY, f64::INFINITY)? + hops;
        if price == 0.0 || round > limit {
            return (round <= limit).then_some(Score { objective: round, round });
        }
        let wire = costs.slowest_chunk_wire(phones);
        let within = (wire, f64::INFINITY);
        let found = least(within, price, limit * (1.0 + TIE), usize::MAX, |pace| {
            let round = self.stages(phones, f64::INFINITY, pace)? + hops;
            Some((round, self.pace.max(wire)))
        });
        let round = self.stages(phones, f64::INFINITY, found.limit)? + hops;
        found.value.map(|objective| Score { objective, round })
    }

    /// Rounds in the time of one objective.
    fn round_share(&self) -> f64 {
        if self.costs.is_of_one() { 1.0 } else { self.costs.shares() }
    }

    /// The least sum of stage times with none over `limit`, nor over `pace` for a whole chunk of a prompt: a layer for each phone, the others
    /// to the fastest. The pace that this has is noted.
    fn stages(&mut self, phones: &[usize], limit: f64, pace: f64) -> Option<f64> {
        let (costs, k) = (self.costs, phones.len());
        let mut left = costs.n_layers.checked_sub(k)?;
        let mut sum = costs.embedding_seconds(phones[0]) + costs.head_seconds(phones[k - 1]);
        self.most.clear();
        for (at, &phone) in phones.iter().enumerate() {
            let caps = self.caps[phone]?.within(costs, phone, limit * (1.0 + TIE));
            let caps = caps.reading_within(costs, phone, pace * (1.0 + TIE));
            let most = match (k, at) {
                (1, _) if caps.whole => costs.n_layers,
                (1, _) => 0,
                (_, 0) => caps.head,
                _ if at + 1 == k => caps.tail,
                _ => caps.inner,
            };
            self.most.push(most.checked_sub(1)?);
            sum += costs.step_seconds(phone) + costs.layer_seconds(phone);
        }
        self.pace = 0.0;
        for &at in &self.fastest {
            let (phone, here) = (phones[at], self.most[at].min(left));
            sum += here as f64 * costs.layer_seconds(phone);
            left -= here;
            let of_chunk = (here + 1) as f64 * costs.chunk_layer_seconds(phone);
            self.pace = self.pace.max(costs.chunk_besides_seconds(phone, at == 0) + of_chunk);
        }
        (left == 0).then_some(sum)
    }
}
