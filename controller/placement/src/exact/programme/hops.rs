//! The rows of the programme that make a ring of the phones: hops, their order, and the token's way back.

use good_lp::{Expression, Variable, constraint, variable};

use super::Programme;
use crate::costs::TIE;

// === impl Programme ===

impl Programme<'_, '_> {
    /// All hops cost the same: pays them by the number of phones.
    pub(super) fn write_even_hops(&mut self) {
        let n_layers = self.costs.n_layers as f64;
        let counts: Expression = self.count.iter().map(|c| c.variable).sum();
        self.rows.push(constraint!(counts == n_layers));
        for at in self.positions() {
            let (used, head, tail) = (self.used[at].variable, self.head[at].variable, self.tail[at].variable);
            let mut both: Expression = used.into();
            if let Some(whole) = self.whole[at] {
                let whole = whole.variable;
                both += whole;
                self.rows.push(constraint!(whole <= head));
                self.rows.push(constraint!(whole <= tail));
                self.rows.push(constraint!(self.count[at].variable >= n_layers * whole));
            }
            self.rows.push(constraint!(head + tail <= both));
            self.rows.push(constraint!(head <= used));
            self.rows.push(constraint!(tail <= used));
        }
        self.write_caps();
        if let [one, other, ..] = self.phones[..] {
            let (hop, back) = (self.costs.hop_seconds(one, other), self.costs.back_seconds(one, other));
            let (hop, back) = (self.units(hop), self.units(back));
            let used: Expression = self.used.iter().map(|c| c.variable).sum();
            let whole: Expression = self.whole.iter().flatten().map(|c| c.variable).sum();
            self.round += hop * (used - 1.0) + back * (1.0 - whole);
        }
    }

    /// A hop of a ring below the cutoff takes less: a round is no shorter than its hops, and neither the throughput nor the pace of prompts
    /// is faster than a wire.
    fn is_too_slow(&self, hop_seconds: f64, wire_seconds: f64, chunk_wire_seconds: f64) -> bool {
        let objective = self.costs.objective(hop_seconds, 0.0, wire_seconds, chunk_wire_seconds);
        !objective.is_finite() || objective > self.limit_seconds
    }

    /// Nor is a round shorter, whatever else counts.
    fn is_over_floor(&self, seconds: f64) -> bool {
        self.costs.round_limit().is_some_and(|limit| seconds > limit * (1.0 + TIE))
    }

    /// Arcs between phones, and the flow of layers still to come.
    pub(super) fn write_hops(&mut self) {
        let n_layers = self.costs.n_layers as f64;
        let nothing = vec![Expression::default(); self.phones.len()];
        let (mut leaving, mut arriving) = (nothing.clone(), nothing.clone());
        let (mut flow_out, mut flow_in) = (nothing.clone(), nothing);
        for i in self.positions() {
            for j in self.positions().filter(|&j| j != i) {
                let (from, to) = (self.phones[i], self.phones[j]);
                let hop = self.costs.hop_seconds(from, to);
                let wire = self.costs.wire_seconds(from, to);
                if self.is_too_slow(hop, wire, self.costs.chunk_wire_seconds(from, to))
                    || self.is_over_floor(self.costs.in_seconds().hop_seconds(from, to))
                    || n_layers < 2.0
                {
                    continue;
                }
                let arc = self.column(variable().binary());
                let flow = self.column(variable().clamp(0.0, n_layers - 1.0)).variable;
                self.arcs.push((i, j, arc));
                leaving[i] += arc.variable;
                arriving[j] += arc.variable;
                flow_out[i] += flow;
                flow_in[j] += flow;
                let hop = self.units(hop);
                self.round += hop * arc.variable;
                self.rows.push(constraint!(flow <= (n_layers - 1.0) * arc.variable));
                self.rows.push(constraint!(flow >= arc.variable));
            }
        }
        for (at, ((leaving, arriving), (flow_out, flow_in))) in
            leaving.into_iter().zip(arriving).zip(flow_out.into_iter().zip(flow_in)).enumerate()
        {
            let (used, head, tail) = (self.used[at].variable, self.head[at].variable, self.tail[at].variable);
            self.rows.push(constraint!(leaving + tail == used));
            self.rows.push(constraint!(arriving + head == used));
            self.write_second_embedding(at, &flow_in, &flow_out);
            self.rows.push(constraint!(n_layers * head + flow_in - flow_out == self.count[at].variable));
        }
    }

    /// A phone that may not see text is all before the layer at which a decoder begins, or all behind it: as many layers are still to come
    /// when it has its turn.
    fn write_second_embedding(&mut self, at: usize, flow_in: &Expression, flow_out: &Expression) {
        let Some(layer) = self.costs.second_embedding().filter(|_| !self.costs.is_trusted(self.phones[at])) else {
            return;
        };
        let (layer, n_layers) = (layer as f64, self.costs.n_layers as f64);
        let is_before = self.column(variable().binary()).variable;
        self.rows.push(constraint!(flow_out.clone() >= (n_layers - layer) * is_before));
        self.rows.push(constraint!(flow_in.clone() <= n_layers - layer - 1.0 + layer * is_before));
    }

    /// The token's way from the tail to the head.
    pub(super) fn write_way_back(&mut self) {
        let nothing = vec![Expression::default(); self.phones.len()];
        let (mut out, mut into) = (nothing.clone(), nothing);
        for i in self.positions() {
            for j in self.positions() {
                let seconds = self.costs.back_seconds(self.phones[i], self.phones[j]);
                let possible = if i == j { self.caps[i].whole } else { self.costs.n_layers > 1 };
                let in_seconds = self.costs.in_seconds().back_seconds(self.phones[i], self.phones[j]);
                if self.is_too_slow(seconds, 0.0, 0.0) || self.is_over_floor(in_seconds) || !possible {
                    continue;
                }
                // Whole by itself, since its two ends are.
                let back = self.column(variable().clamp(0.0, 1.0));
                self.backs.push((i, j, back));
                out[i] += back.variable;
                into[j] += back.variable;
                let units = self.units(seconds);
                self.round += units * back.variable;
                if i == j {
                    self.whole[i] = Some(back);
                }
            }
        }
        for (at, (out, into)) in out.into_iter().zip(into).enumerate() {
            self.rows.push(constraint!(out == self.tail[at].variable));
            self.rows.push(constraint!(into == self.head[at].variable));
        }
        self.write_caps();
    }

    /// Forbids one order: not all of its arcs together with its two ends. An order with a phone or an arc that
    /// is not in the programme is forbidden already.
    pub(super) fn exclude(&mut self, order: &[usize]) {
        let Some(chosen) = self.choices(order) else {
            return;
        };
        let others = chosen.len() as f64 - 1.0;
        let chosen: Expression = chosen.into_iter().sum();
        self.rows.push(constraint!(chosen <= others));
    }

    /// The binaries that are all 1 in this order and no other.
    fn choices(&self, order: &[usize]) -> Option<Vec<Variable>> {
        let positions: Option<Vec<usize>> =
            order.iter().map(|phone| self.phones.iter().position(|p| p == phone)).collect();
        let positions = positions?;
        let mut chosen = vec![self.head[*positions.first()?].variable, self.tail[*positions.last()?].variable];
        for pair in positions.windows(2) {
            let arc = self.arcs.iter().find(|(from, to, _)| [*from, *to] == *pair)?;
            chosen.push(arc.2.variable);
        }
        Some(chosen)
    }
}
