//! Costs: a problem's figures arranged for the solvers, and what one ring of phones costs.

mod energy;
mod memory;
mod reading;

use std::rc::Rc;

use crate::problem::{MAX_SECONDS, MIN_LAYER_SECONDS, Objective, PhoneCosts, Problem};
use energy::Joules;
use reading::Reading;

/// Two objective values closer than this, relatively, are a tie.
pub(crate) const TIE: f64 = 1e-9;

/// The most groups that sessions are thought to travel in, other than each by itself.
const MAX_GROUPS: u32 = 32;

/// A problem with its sums done. Phones are indices into `Problem::phones`.
///
/// All seconds are those of a step of `rows` rows: sessions travel around the ring in groups, and a stage takes a
/// group in one step. For Latency and Efficiency a step has one row; for the latter what is called seconds here is joules, as
/// `costs/energy.rs` says.
#[derive(Clone)]
pub(crate) struct Costs<'a> {
    pub(crate) problem: &'a Problem,
    /// What is minimised here: the problem's objective, or a part of it.
    minimised: Objective,
    pub(crate) n_layers: usize,
    /// Phones with usable figures and room for at least one layer somewhere in a ring.
    pub(crate) usable: Vec<usize>,
    /// Bytes a segment may take on each phone.
    pub(crate) budget: Vec<u64>,
    /// `prefix[l]`: bytes of weights and KV cache of layers `[0, l)`.
    prefix: Vec<u64>,
    /// Sessions ÷ groups.
    pub(crate) rows: f64,
    /// Groups that the sessions travel in: a round gives each of them a token.
    groups: f64,
    /// The prompt that a token bears its part of.
    reading: Option<Reading>,
    /// By phone, seconds of a step: what it always takes, a layer, and the two ends; with that part of a prompt.
    step: Vec<f64>,
    layer: Vec<f64>,
    embedding: Vec<f64>,
    head: Vec<f64>,
    /// Under Efficiency, what a second counts.
    joules: Option<Joules<'a>>,
    /// Of the usable phones, where they are not too many for one.
    hops: Option<Rc<HopTable>>,
    /// All layers take the same bytes, and whoever may hold one of those between the ends may hold any.
    pub(crate) has_even_layers: bool,
}

/// What a further group is worth beside the first: groups do not keep their distance, and wait for each other where stages are as
/// busy as one another. Fitted by hand to one lab, two even stages behind slow links with four sessions, which gave 0.68; the balanced
/// job bounds of queueing theory (Zahorjan, Sevcik, Eager and Galler 1982) come to the same there.
const FURTHER_GROUP: f64 = 0.7;

/// Usable phones up to which every hop is looked up once.
pub(crate) const MAX_TABLE: usize = 128;

/// What hops between usable phones take, to be asked for again and again.
struct HopTable {
    /// By phone, its row and column.
    places: Vec<Option<usize>>,
    n: usize,
    hops: Vec<Hop>,
}

/// Seconds of one row's hop.
#[derive(Clone, Copy)]
struct Hop {
    transfer: f64,
    wire: f64,
    /// Of the way back: a few bytes.
    delay: f64,
}

/// A ring: phones in order, and where each one's layers end. `ends` rises strictly up to the number of layers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ring {
    pub(crate) phones: Vec<usize>,
    pub(crate) ends: Vec<usize>,
}

/// What a ring costs, in seconds, or in joules as far as the objective counts those.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    /// What the problem's objective minimises, for a step.
    pub(crate) objective: f64,
    /// One token once around, with what it bears of a prompt but for the pace: decides among equal objectives.
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
        let none = Vec::new;
        let mut costs = Self {
            problem,
            minimised: problem.demand.objective,
            n_layers: model.n_layers(),
            usable: Vec::new(),
            budget,
            prefix,
            rows: 1.0,
            groups: 1.0,
            reading: Reading::of(&problem.demand),
            step: none(),
            layer: none(),
            embedding: none(),
            head: none(),
            joules: None,
            hops: None,
            has_even_layers: model.layer_bytes.windows(2).all(|pair| pair[0] == pair[1])
                && model.second_embedding.is_none(),
        };
        costs.usable =
            (0..problem.phones.len()).filter(|&i| costs.has_usable_figures(i) && costs.holds_something(i)).collect();
        costs.joules = Joules::of(&costs);
        costs.narrowed(costs.usable.clone()).in_groups(problem.demand.max_sessions.max(1))
    }

    /// The same over a part of the usable phones, rising.
    pub(crate) fn narrowed(&self, usable: Vec<usize>) -> Self {
        let hops = (usable.len() <= MAX_TABLE).then(|| Rc::new(HopTable::new(self, &usable)));
        let joules = self.joules.as_ref().map(|joules| joules.narrowed(&usable, &hops));
        Self { usable, hops, joules, ..self.clone() }
    }

    /// The same with the sessions in `groups`, at most one for each.
    pub(crate) fn in_groups(self, groups: u32) -> Self {
        let rows = if self.is_of_one() { 1.0 } else { self.n_sessions() / f64::from(groups) };
        self.of_rows(rows, groups)
    }

    /// What counts is one session by itself, and a sum over the ring.
    pub(crate) fn is_of_one(&self) -> bool {
        self.minimised != Objective::Throughput
    }

    fn n_sessions(&self) -> f64 {
        f64::from(self.problem.demand.max_sessions.max(1))
    }

    fn of_rows(mut self, rows: f64, groups: u32) -> Self {
        self.groups = f64::from(groups);
        self.rows = rows;
        let of = |first: f64, further: Option<f64>| first + (rows - 1.0) * further.unwrap_or(first);
        let reading = self.reading;
        let passes = 1.0 + reading.map_or(0.0, |reading| reading.passes);
        // What a second of work counts, and one of reading prompts.
        let rates = |phone: usize| self.joules.as_ref().map_or((1.0, 1.0), |joules| joules.rates(phone));
        let layer = |(phone, p): (usize, &PhoneCosts)| {
            let (work, reads) = rates(phone);
            let read = reads * reading.map_or(0.0, |reading| reading.tokens * p.reading_seconds());
            let further = p.seconds_per_layer_per_further_row.map(|seconds| work * seconds + read);
            of(work * p.seconds_per_layer + read, further)
        };
        let each = |seconds: &dyn Fn(&PhoneCosts) -> f64| {
            let phones = self.problem.phones.iter().enumerate();
            phones.map(|(phone, p)| rates(phone).0 * passes * seconds(p)).collect::<Vec<f64>>()
        };
        let step = each(&|p| p.seconds_per_step);
        let embedding = each(&|p| p.seconds_embedding);
        let head = each(&|p| of(p.seconds_head, p.seconds_head_per_further_row));
        self.layer = self.problem.phones.iter().enumerate().map(layer).collect();
        (self.step, self.embedding, self.head) = (step, embedding, head);
        self
    }

    /// The same in seconds and without a prompt: what tokens take, where nobody waits for their first.
    pub(crate) fn of_tokens_alone(self) -> Self {
        let (rows, groups) = (self.rows, self.groups as u32);
        let minimised = if self.is_of_one() { Objective::Latency } else { Objective::Throughput };
        Self { reading: None, joules: None, minimised, ..self }.of_rows(rows, groups)
    }

    /// The numbers of groups that are worth a thought, the fewest first.
    pub(crate) fn groupings(&self) -> Vec<u32> {
        let sessions = self.problem.demand.max_sessions.max(1);
        if self.is_of_one() { vec![sessions] } else { groupings_of(sessions) }
    }

    /// The groups in which all sessions together get the most tokens out of `ring`, whatever the problem's objective.
    pub(crate) fn best_grouping(&self, ring: &Ring) -> u32 {
        let seconds_per_token = |groups: u32| {
            let costs = self.clone().of_rows(self.n_sessions() / f64::from(groups), groups);
            let slowest =
                ring.stages().map(|(phone, from, to)| costs.stage_seconds(phone, from, to)).fold(0.0, f64::max);
            costs.throughput(costs.score(ring).round, slowest, costs.slowest_wire(&ring.phones)) / costs.rows
        };
        let groupings = groupings_of(self.problem.demand.max_sessions.max(1));
        let best = groupings.into_iter().map(|groups| (groups, seconds_per_token(groups)));
        best.reduce(|best, next| if next.1 < best.1 * (1.0 - TIE) { next } else { best })
            .map_or(1, |(groups, _)| groups)
    }

    /// Costs of every grouping in which `ring` does best, and its score there, the objective per token.
    pub(crate) fn judge(&self, ring: &Ring) -> (Costs<'a>, Score) {
        let mut best: Option<(Costs<'a>, Score)> = None;
        for groups in self.groupings() {
            let costs = self.clone().in_groups(groups);
            let score = costs.score(ring);
            if best.as_ref().is_none_or(|(at, known)| score.objective / costs.rows < known.objective / at.rows) {
                best = Some((costs, score));
            }
        }
        best.unwrap_or_else(|| (self.clone(), self.score(ring)))
    }

    pub(crate) fn has_usable_figures(&self, phone: usize) -> bool {
        let p = &self.problem.phones[phone];
        (MIN_LAYER_SECONDS..=MAX_SECONDS).contains(&p.seconds_per_layer)
            && (0.0..=MAX_SECONDS).contains(&p.seconds_embedding)
            && (0.0..=MAX_SECONDS).contains(&p.seconds_head)
            && (0.0..=MAX_SECONDS).contains(&p.seconds_per_step)
            && [p.seconds_per_layer_per_further_row, p.seconds_head_per_further_row]
                .into_iter()
                .flatten()
                .all(|further| (0.0..=MAX_SECONDS).contains(&further))
    }

    /// Decode seconds of a step through layers `[from, to)` on `phone`.
    pub(crate) fn stage_seconds(&self, phone: usize, from: usize, to: usize) -> f64 {
        let mut seconds = self.step[phone] + (to - from) as f64 * self.layer[phone];
        if from == 0 {
            seconds += self.embedding[phone];
        }
        if to == self.n_layers {
            seconds += self.head[phone];
        }
        seconds
    }

    /// Seconds of a step whatever it holds.
    pub(crate) fn step_seconds(&self, phone: usize) -> f64 {
        self.step[phone]
    }

    /// Seconds of a step through one layer.
    pub(crate) fn layer_seconds(&self, phone: usize) -> f64 {
        self.layer[phone]
    }

    /// Seconds of a step through the embedding.
    pub(crate) fn embedding_seconds(&self, phone: usize) -> f64 {
        self.embedding[phone]
    }

    /// Seconds of a step through output norm and matrix, and sampling.
    pub(crate) fn head_seconds(&self, phone: usize) -> f64 {
        self.head[phone]
    }

    /// Seconds of the hop of a step's hidden states.
    pub(crate) fn hop_seconds(&self, from: usize, to: usize) -> f64 {
        let hop = self.hop(from, to);
        if !hop.transfer.is_finite() {
            return f64::INFINITY;
        }
        let read = self.reading.map_or(0.0, |reading| reading.hop_seconds(hop));
        self.way_rate() * (hop.transfer + (self.rows - 1.0) * hop.wire + read)
    }

    /// Seconds for which that hop keeps the link busy.
    pub(crate) fn wire_seconds(&self, from: usize, to: usize) -> f64 {
        self.rows * self.hop(from, to).wire
    }

    /// Seconds of the token's way from tail to head: a few bytes, so the delay alone. None on one phone.
    pub(crate) fn back_seconds(&self, tail: usize, head: usize) -> f64 {
        match self.hop(tail, head).delay {
            _ if tail == head => 0.0,
            delay if delay.is_finite() => self.way_rate() * delay,
            delay => delay,
        }
    }

    fn hop(&self, from: usize, to: usize) -> Hop {
        self.hops.as_ref().and_then(|table| table.get(from, to)).unwrap_or_else(|| self.looked_up_hop(from, to))
    }

    fn looked_up_hop(&self, from: usize, to: usize) -> Hop {
        let link = self.problem.links.between(from, to);
        let bytes = self.problem.model.hop_bytes;
        Hop { transfer: link.transfer_seconds(bytes), wire: link.wire_seconds(bytes), delay: link.delay_seconds() }
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

    /// Groups in which the sessions travel.
    pub(crate) fn n_groups(&self) -> f64 {
        self.groups
    }

    /// Groups among which a round is shared, less what they wait for each other.
    pub(crate) fn shares(&self) -> f64 {
        1.0 + FURTHER_GROUP * (self.groups - 1.0)
    }

    /// The objective from its parts, in seconds of a step: that of a token is `rows` times shorter.
    pub(crate) fn objective(&self, round: f64, slowest_stage: f64, slowest_wire: f64, pace: f64) -> f64 {
        match self.minimised {
            Objective::Latency | Objective::Efficiency => round + self.pace_price() * pace,
            Objective::Throughput => self.throughput(round, slowest_stage, slowest_wire),
        }
    }

    fn throughput(&self, round: f64, slowest_stage: f64, slowest_wire: f64) -> f64 {
        slowest_stage.max(slowest_wire).max(round / self.shares())
    }

    pub(crate) fn score(&self, ring: &Ring) -> Score {
        let mut stages = 0.0;
        let mut slowest = 0.0f64;
        for (phone, from, to) in ring.stages() {
            let seconds = self.stage_seconds(phone, from, to);
            stages += seconds;
            slowest = slowest.max(seconds);
        }
        let round = stages + self.hops_seconds(&ring.phones);
        if let Some(joules) = &self.joules {
            return joules.score(round, ring);
        }
        let wire = self.slowest_wire(&ring.phones);
        Score { objective: self.objective(round, slowest, wire, self.pace(ring)), round }
    }

    pub(crate) fn min_stages(&self) -> usize {
        self.problem.demand.min_phones.max(1) as usize
    }

    /// No more stages than layers, since each stage holds one at least.
    pub(crate) fn max_stages(&self) -> usize {
        (self.problem.demand.max_phones as usize).min(self.n_layers).min(self.usable.len())
    }
}

fn groupings_of(sessions: u32) -> Vec<u32> {
    let all_of_them = (sessions > MAX_GROUPS).then_some(sessions);
    (1..=sessions.min(MAX_GROUPS)).chain(all_of_them).collect()
}

// === impl HopTable ===

impl HopTable {
    fn new(costs: &Costs<'_>, usable: &[usize]) -> Self {
        let mut places = vec![None; costs.problem.phones.len()];
        for (place, &phone) in usable.iter().enumerate() {
            places[phone] = Some(place);
        }
        let pairs = usable.iter().flat_map(|&from| usable.iter().map(move |&to| (from, to)));
        let hops = pairs.map(|(from, to)| costs.looked_up_hop(from, to)).collect();
        Self { places, n: usable.len(), hops }
    }

    fn get(&self, from: usize, to: usize) -> Option<Hop> {
        Some(self.hops[self.places[from]? * self.n + self.places[to]?])
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
