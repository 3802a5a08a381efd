//! Costs: a problem's figures arranged for the solvers, and what one ring of phones costs.

use crate::problem::{MAX_SECONDS, MIN_LAYER_SECONDS, Objective, Problem};

/// Two objective values closer than this, relatively, are a tie.
pub(crate) const TIE: f64 = 1e-9;

/// A problem with its sums done. Phones are indices into `Problem::phones`.
pub(crate) struct Costs<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) n_layers: usize,
    /// Phones with usable figures and room for at least one layer somewhere in a ring.
    pub(crate) usable: Vec<usize>,
    /// Bytes a segment may take on each phone.
    pub(crate) budget: Vec<u64>,
    /// `prefix[l]`: bytes of weights and KV cache of layers `[0, l)`.
    prefix: Vec<u64>,
}

/// A ring: phones in order, and where each one's layers end. `ends` rises strictly up to the number of layers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ring {
    pub(crate) phones: Vec<usize>,
    pub(crate) ends: Vec<usize>,
}

/// What a ring costs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    /// What the problem's objective minimises.
    pub(crate) objective: f64,
    /// One token once around: decides among equal objectives.
    pub(crate) round: f64,
}

// === impl Costs ===

impl<'a> Costs<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        let model = &problem.model;
        let kv_bytes = model.kv_bytes_per_token_per_layer.saturating_mul(problem.demand.kv_tokens());
        let mut prefix = vec![0u64];
        for &bytes in &model.layer_bytes {
            let so_far = prefix[prefix.len() - 1];
            prefix.push(so_far.saturating_add(bytes).saturating_add(kv_bytes));
        }
        let budget = problem.phones.iter().map(|p| problem.demand.budget_bytes(p.allocatable_bytes)).collect();
        let mut costs = Self { problem, n_layers: model.n_layers(), usable: Vec::new(), budget, prefix };
        costs.usable =
            (0..problem.phones.len()).filter(|&i| costs.has_usable_figures(i) && costs.holds_something(i)).collect();
        costs
    }

    pub(crate) fn has_usable_figures(&self, phone: usize) -> bool {
        let p = &self.problem.phones[phone];
        (MIN_LAYER_SECONDS..=MAX_SECONDS).contains(&p.seconds_per_layer)
            && (0.0..=MAX_SECONDS).contains(&p.seconds_embedding)
            && (0.0..=MAX_SECONDS).contains(&p.seconds_head)
    }

    fn holds_something(&self, phone: usize) -> bool {
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

    pub(crate) fn fits(&self, phone: usize, from: usize, to: usize) -> bool {
        self.segment_bytes(from, to) <= self.budget[phone]
    }

    /// The most layers `phone` can hold from `from` on without reaching the last layer.
    pub(crate) fn reach(&self, phone: usize, from: usize) -> usize {
        let mut to = from;
        while to + 1 < self.n_layers && self.fits(phone, from, to + 1) {
            to += 1;
        }
        to - from
    }

    /// Decode seconds of one token through layers `[from, to)` on `phone`.
    pub(crate) fn stage_seconds(&self, phone: usize, from: usize, to: usize) -> f64 {
        let p = &self.problem.phones[phone];
        let mut seconds = (to - from) as f64 * p.seconds_per_layer;
        if from == 0 {
            seconds += p.seconds_embedding;
        }
        if to == self.n_layers {
            seconds += p.seconds_head;
        }
        seconds
    }

    /// Seconds of a hidden state's hop.
    pub(crate) fn hop_seconds(&self, from: usize, to: usize) -> f64 {
        self.problem.links.between(from, to).transfer_seconds(self.problem.model.hop_bytes)
    }

    /// Seconds for which a hidden state's hop keeps the link busy.
    pub(crate) fn wire_seconds(&self, from: usize, to: usize) -> f64 {
        self.problem.links.between(from, to).wire_seconds(self.problem.model.hop_bytes)
    }

    /// Seconds of the token's way from tail to head: a few bytes, so the delay alone. None on one phone.
    pub(crate) fn back_seconds(&self, tail: usize, head: usize) -> f64 {
        if tail == head { 0.0 } else { self.problem.links.between(tail, head).delay_seconds() }
    }

    /// All hops of a ring, the token's way back included; infinite when two neighbours cannot reach each other.
    pub(crate) fn hops_seconds(&self, phones: &[usize]) -> f64 {
        let forward: f64 = phones.windows(2).map(|pair| self.hop_seconds(pair[0], pair[1])).sum();
        match (phones.first(), phones.last()) {
            (Some(&head), Some(&tail)) => forward + self.back_seconds(tail, head),
            _ => forward,
        }
    }

    /// The longest time any hop keeps its link busy.
    pub(crate) fn slowest_wire(&self, phones: &[usize]) -> f64 {
        phones.windows(2).map(|pair| self.wire_seconds(pair[0], pair[1])).fold(0.0, f64::max)
    }

    /// Sessions among which the ring's time is shared.
    pub(crate) fn n_sessions(&self) -> f64 {
        f64::from(self.problem.demand.max_sessions.max(1))
    }

    /// The objective from its parts.
    pub(crate) fn objective(&self, round: f64, slowest_stage: f64, slowest_wire: f64) -> f64 {
        match self.problem.demand.objective {
            Objective::Latency => round,
            Objective::Throughput => slowest_stage.max(slowest_wire).max(round / self.n_sessions()),
        }
    }

    pub(crate) fn score(&self, ring: &Ring) -> Score {
        let mut stages = 0.0;
        let mut slowest = 0.0f64;
        let mut from = 0;
        for (&phone, &to) in ring.phones.iter().zip(&ring.ends) {
            let seconds = self.stage_seconds(phone, from, to);
            stages += seconds;
            slowest = slowest.max(seconds);
            from = to;
        }
        let round = stages + self.hops_seconds(&ring.phones);
        Score { objective: self.objective(round, slowest, self.slowest_wire(&ring.phones)), round }
    }

    /// True when every stage of `ring` is within its phone's budget.
    pub(crate) fn ring_fits(&self, ring: &Ring) -> bool {
        let mut from = 0;
        ring.phones.iter().zip(&ring.ends).all(|(&phone, &to)| {
            let fits = from < to && self.fits(phone, from, to);
            from = to;
            fits
        })
    }

    pub(crate) fn min_stages(&self) -> usize {
        self.problem.demand.min_phones.max(1) as usize
    }

    /// No more stages than layers, since each stage holds one at least.
    pub(crate) fn max_stages(&self) -> usize {
        (self.problem.demand.max_phones as usize).min(self.n_layers).min(self.usable.len())
    }
}

// === impl Ring ===

impl Ring {
    /// Each stage's phone and layers `[from, to)`, in order.
    pub(crate) fn stages(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let froms = std::iter::once(0).chain(self.ends.iter().copied());
        self.phones.iter().zip(froms).zip(&self.ends).map(|((&phone, from), &to)| (phone, from, to))
    }
}

// === impl Score ===

impl Score {
    /// Strictly better, by more than rounding: first the objective, then the time of a round.
    pub(crate) fn beats(&self, other: &Score) -> bool {
        less(self.objective, other.objective)
            || (!less(other.objective, self.objective) && less(self.round, other.round))
    }

    /// As good in what the objective says.
    pub(crate) fn ties(&self, other: &Score) -> bool {
        !less(self.objective, other.objective) && !less(other.objective, self.objective)
    }
}

fn less(a: f64, b: f64) -> bool {
    a < b - TIE * b.abs() || (a.is_finite() && b.is_infinite())
}
