//! The row of the programme that keeps a floor of tokens a second: the seconds of a round, whatever is minimised.

use good_lp::{Expression, constraint};

use super::{Programme, SCALE};
use crate::caps::Caps;
use crate::costs::{Costs, TIE};

/// What a phone may have at most in each role for its stage alone to keep the floor.
pub(super) fn capped(costs: &Costs<'_>, phone: usize, caps: Caps) -> Caps {
    match costs.round_limit() {
        Some(limit) => caps.within(costs.in_seconds(), phone, limit * (1.0 + TIE)),
        None => caps,
    }
}

// === impl Programme ===

impl Programme<'_, '_> {
    /// Stages, hops and the token's way back take no more than the limit, which counts as [`SCALE`].
    pub(super) fn write_floor(&mut self) {
        let Some(limit) = self.costs.round_limit() else { return };
        let costs = self.costs.in_seconds();
        let part = |seconds: f64| seconds / limit * SCALE;
        let mut round = Expression::default();
        for (at, &phone) in self.phones.iter().enumerate() {
            round += part(costs.step_seconds(phone)) * self.used[at].variable
                + part(costs.layer_seconds(phone)) * self.count[at].variable
                + part(costs.embedding_seconds(phone)) * self.head[at].variable
                + part(costs.head_seconds(phone)) * self.tail[at].variable;
        }
        for &(from, to, arc) in &self.arcs {
            round += part(costs.hop_seconds(self.phones[from], self.phones[to])) * arc.variable;
        }
        for &(from, to, back) in &self.backs {
            round += part(costs.back_seconds(self.phones[from], self.phones[to])) * back.variable;
        }
        if let (true, [one, other, ..]) = (self.orderless, &self.phones[..]) {
            let (hop, back) = (part(costs.hop_seconds(*one, *other)), part(costs.back_seconds(*one, *other)));
            let used: Expression = self.used.iter().map(|c| c.variable).sum();
            let whole: Expression = self.whole.iter().flatten().map(|c| c.variable).sum();
            round += hop * (used - 1.0) + back * (1.0 - whole);
        }
        self.rows.push(constraint!(round <= SCALE));
    }
}
