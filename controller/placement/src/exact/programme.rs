//! The integer linear programme itself, written with `good_lp` and solved by `microlp`.
//!
//! Over candidate phones i, j:
//! - `used_i`, `head_i`, `tail_i` binary: i takes part, is the first, is the last;
//! - `count_i`: layers of i;
//! - `arc_ij` binary: i hands its hidden states to j; `flow_ij`: layers still to come after that hop, which
//!   orders the phones and forbids cycles beside the ring (a single-commodity flow, Gavish and Graves 1978);
//! - `back_ij`: the tail i sends the token to the head j; `back_ii` says that i is the whole ring;
//! - `is_before_i` binary, only where a decoder begins at a layer that i may not have: i is before that layer;
//! - `bytes_i`, only where layers differ in size: what i's layers weigh;
//! - `worst`, only for Throughput: the objective;
//! - `pace`, only where a prompt counts: the longest time of any stage or wire for a chunk of it.
//!
//! Under Efficiency what is summed up is joules, and one row more keeps the seconds of a round within their limit.
//!
//! Where all links and all layers are alike, the order of the inner phones changes nothing: arcs, flows and
//! `back_ij` are left out, and each hop is paid by the count of phones.

mod floor;
mod hops;
mod solving;

use good_lp::{Expression, ProblemVariables, Variable, VariableDefinition, constraint, variable};

use crate::caps::Caps;
use crate::costs::Costs;

/// The scale of the objective: the cutoff, or a guess at it, counts as this much. So do the model's bytes.
const SCALE: f64 = 100.0;
/// An answer has to be better than the cutoff by this part to be of interest.
const CUTOFF: f64 = 1e-7;

pub(super) enum Answer {
    /// The best order that is not excluded and better than the cutoff, and the objective it is believed to
    /// reach, which no other order is below.
    Order { phones: Vec<usize>, objective: f64 },
    /// There is none.
    Nothing,
    /// The solver met its limit or failed.
    GaveUp,
}

pub(super) struct Programme<'a, 'b> {
    costs: &'a Costs<'b>,
    /// The candidates; all other vectors follow their positions.
    phones: Vec<usize>,
    caps: Vec<Caps>,
    variables: ProblemVariables,
    n_columns: usize,
    rows: Vec<good_lp::Constraint>,
    objective: Expression,
    /// Seconds that one unit of the objective stands for.
    unit_seconds: f64,
    limit_seconds: f64,
    /// Links and layers are alike: only which phones and the two ends matter.
    orderless: bool,
    used: Vec<Column>,
    head: Vec<Column>,
    tail: Vec<Column>,
    count: Vec<Column>,
    whole: Vec<Option<Column>>,
    /// Positions from and to.
    arcs: Vec<(usize, usize, Column)>,
    /// Of the token's way back, too.
    backs: Vec<(usize, usize, Column)>,
    /// Units of one round, as it is put together.
    round: Expression,
}

/// A variable and its place among the solver's columns.
#[derive(Clone, Copy)]
struct Column {
    variable: Variable,
    index: usize,
}

// === impl Programme ===

impl<'a, 'b> Programme<'a, 'b> {
    /// The programme over `candidates`, without the `excluded` orders and, given a cutoff in seconds, without
    /// what is no better.
    pub(super) fn new(
        costs: &'a Costs<'b>,
        candidates: &[usize],
        excluded: &[Vec<usize>],
        cutoff: Option<f64>,
    ) -> Self {
        let guess = || guess(costs, candidates);
        let limit_seconds = cutoff.map_or(f64::INFINITY, |seconds| seconds * (1.0 - CUTOFF));
        // A phone too slow for any layer below the cutoff would only bring large figures.
        let slowest_pace = if costs.pace_price() > 0.0 { limit_seconds / costs.pace_price() } else { f64::INFINITY };
        let roles = candidates.iter().map(|&phone| {
            let caps = Caps::new(costs, phone).within(costs, phone, limit_seconds);
            let caps = caps.reading_within(costs, phone, slowest_pace);
            (phone, floor::capped(costs, phone, caps))
        });
        let (phones, caps): (Vec<usize>, Vec<Caps>) = roles.filter(|(_, caps)| caps.most(costs.n_layers) > 0).unzip();
        let mut programme = Self {
            costs,
            phones,
            caps,
            variables: ProblemVariables::new(),
            n_columns: 0,
            rows: Vec::new(),
            objective: Expression::default(),
            unit_seconds: cutoff.unwrap_or_else(guess) / SCALE,
            limit_seconds,
            orderless: is_orderless(costs, candidates),
            used: Vec::new(),
            head: Vec::new(),
            tail: Vec::new(),
            count: Vec::new(),
            whole: Vec::new(),
            arcs: Vec::new(),
            backs: Vec::new(),
            round: Expression::default(),
        };
        programme.write_phones();
        programme.write_roles();
        if programme.orderless {
            programme.write_even_hops();
        } else {
            programme.write_hops();
            programme.write_way_back();
        }
        if !costs.has_even_layers {
            programme.write_bytes();
        }
        for order in excluded {
            programme.exclude(order);
        }
        programme.write_floor();
        programme.write_objective();
        programme
    }

    fn units(&self, seconds: f64) -> f64 {
        seconds / self.unit_seconds
    }

    fn column(&mut self, definition: VariableDefinition) -> Column {
        let index = self.n_columns;
        self.n_columns += 1;
        Column { variable: self.variables.add(definition), index }
    }

    fn positions(&self) -> std::ops::Range<usize> {
        0..self.phones.len()
    }

    fn write_phones(&mut self) {
        let n_layers = self.costs.n_layers;
        // With layers of one size and a sum to minimise, whole orders give whole counts by themselves.
        let is_sum = self.costs.is_of_one() && self.costs.pace_price() == 0.0 && self.costs.round_limit().is_none();
        let whole_counts = !is_sum || !self.costs.has_even_layers;
        for at in self.positions() {
            for role in [&mut self.used, &mut self.head, &mut self.tail] {
                let index = self.n_columns;
                self.n_columns += 1;
                role.push(Column { variable: self.variables.add(variable().binary()), index });
            }
            let layers = variable().clamp(0.0, self.caps[at].most(n_layers) as f64);
            let count = self.column(if whole_counts { layers.integer() } else { layers });
            self.count.push(count);
            // Being the whole ring is one of the ways back where those are written: see there.
            let whole = (self.orderless && self.caps[at].whole).then(|| self.column(variable().binary()));
            self.whole.push(whole);
            let stage = self.stage(at);
            self.round += stage;
        }
    }

    /// Units of this phone's stage.
    fn stage(&self, at: usize) -> Expression {
        let (costs, phone) = (self.costs, self.phones[at]);
        self.units(costs.step_seconds(phone)) * self.used[at].variable
            + self.units(costs.layer_seconds(phone)) * self.count[at].variable
            + self.units(costs.embedding_seconds(phone)) * self.head[at].variable
            + self.units(costs.head_seconds(phone)) * self.tail[at].variable
    }

    /// Units of this phone's stage for a whole chunk of a prompt.
    fn stage_of_chunk(&self, at: usize) -> Expression {
        let (costs, phone) = (self.costs, self.phones[at]);
        let (step, first) = (costs.chunk_besides_seconds(phone, false), costs.chunk_besides_seconds(phone, true));
        self.units(step) * self.used[at].variable
            + self.units(costs.chunk_layer_seconds(phone)) * self.count[at].variable
            + self.units(first - step) * self.head[at].variable
    }

    /// Units that no stage and no wire is over.
    fn slowest(&mut self, stage: fn(&Self, usize) -> Expression, wire: impl Fn(usize, usize) -> f64) -> Variable {
        let slowest = self.column(variable().min(0.0)).variable;
        for at in self.positions() {
            let stage = stage(self, at);
            self.rows.push(constraint!(slowest >= stage));
            let wires = self.arcs.iter().filter(|(from, ..)| *from == at);
            let wires = wires.map(|&(i, j, arc)| self.units(wire(self.phones[i], self.phones[j])) * arc.variable);
            let wire: Expression = wires.sum();
            self.rows.push(constraint!(slowest >= wire));
        }
        if let (true, [one, other, ..]) = (self.orderless, &self.phones[..]) {
            let wire = self.units(wire(*one, *other));
            let whole: Expression = self.whole.iter().flatten().map(|c| c.variable).sum();
            self.rows.push(constraint!(slowest >= wire * (1.0 - whole)));
        }
        slowest
    }

    fn write_roles(&mut self) {
        let all = |columns: &[Column]| columns.iter().map(|c| c.variable).sum::<Expression>();
        let (used, head, tail) = (all(&self.used), all(&self.head), all(&self.tail));
        self.rows.push(constraint!(head == 1.0));
        self.rows.push(constraint!(tail == 1.0));
        self.rows.push(constraint!(used.clone() >= self.costs.min_stages() as f64));
        self.rows.push(constraint!(used <= self.costs.max_stages() as f64));
        for at in self.positions() {
            self.rows.push(constraint!(self.count[at].variable >= self.used[at].variable));
        }
    }

    /// No more layers than the role allows. `whole` has to be known.
    fn write_caps(&mut self) {
        for at in self.positions() {
            let Caps { inner, head, tail, .. } = self.caps[at];
            let (inner, first, last) = (inner as f64, head as f64, tail as f64);
            let mut most = inner * self.used[at].variable
                + (first - inner) * self.head[at].variable
                + (last - inner) * self.tail[at].variable;
            if let Some(whole) = self.whole[at] {
                most += (self.costs.n_layers as f64 + inner - first - last) * whole.variable;
            }
            self.rows.push(constraint!(self.count[at].variable <= most));
        }
    }

    /// Layers of different sizes: what each phone's layers weigh, whichever they are. All together they are
    /// the model, so that not every phone can have the light ones.
    fn write_bytes(&mut self) {
        let (costs, model) = (self.costs, &self.costs.problem.model);
        let total = costs.layers_bytes(0, costs.n_layers) as f64;
        let hundredths = |bytes: u64| {
            if total > 0.0 { bytes as f64 / total * SCALE } else { 0.0 }
        };
        let weights = (0..costs.n_layers).map(|l| hundredths(costs.layers_bytes(l, l + 1)));
        let (lightest, heaviest) = weights.fold((f64::INFINITY, 0.0), |(a, b), w| (w.min(a), w.max(b)));
        let mut all = Expression::default();
        for at in self.positions() {
            let bytes = self.column(variable().min(0.0)).variable;
            all += bytes;
            let (count, used) = (self.count[at].variable, self.used[at].variable);
            let budget = hundredths(costs.budget[self.phones[at]].saturating_sub(model.activation_bytes));
            // A whisker for rounding: the cuts are judged in whole bytes afterwards.
            self.rows.push(constraint!(bytes >= lightest * count - 1e-6));
            self.rows.push(constraint!(bytes <= heaviest * count + 1e-6));
            // A phone with room for the whole model has no use for the next row, whose figures may be large.
            if budget < SCALE {
                let mut room = budget * used
                    - hundredths(model.embedding_bytes) * self.head[at].variable
                    - hundredths(model.head_bytes) * self.tail[at].variable;
                if let Some(whole) = self.whole[at] {
                    room += hundredths(model.shared_bytes) * whole.variable;
                }
                self.rows.push(constraint!(bytes <= room + 1e-6));
            }
        }
        self.rows.push(constraint!(all == SCALE));
    }

    fn write_objective(&mut self) {
        let round = std::mem::take(&mut self.round);
        let costs = self.costs;
        self.objective = if !costs.is_of_one() {
            let worst = self.slowest(Self::stage, |from, to| costs.wire_seconds(from, to));
            self.rows.push(constraint!(worst >= round * (1.0 / costs.shares())));
            worst.into()
        } else if costs.pace_price() == 0.0 {
            round
        } else {
            let pace = self.slowest(Self::stage_of_chunk, |from, to| costs.chunk_wire_seconds(from, to));
            round + costs.pace_price() * pace
        };
        if self.limit_seconds.is_finite() {
            let limit = self.units(self.limit_seconds);
            self.rows.push(constraint!(self.objective.clone() <= limit));
        }
    }
}

/// A time of the size of an objective: the largest whole model on one phone, or hop.
fn guess(costs: &Costs<'_>, candidates: &[usize]) -> f64 {
    let wholes = candidates.iter().map(|&phone| costs.stage_seconds(phone, 0, costs.n_layers));
    let hops = candidates.iter().flat_map(|&i| candidates.iter().map(move |&j| costs.hop_seconds(i, j)));
    wholes.chain(hops.filter(|seconds| seconds.is_finite())).fold(f64::MIN_POSITIVE, f64::max)
}

/// True when the order of the inner phones changes nothing.
pub(super) fn is_orderless(costs: &Costs<'_>, candidates: &[usize]) -> bool {
    costs.has_even_layers && has_even_links(costs, candidates)
}

/// All pairs of candidates have one and the same link, and it works; where ways cost nothing, one is as good as another.
fn has_even_links(costs: &Costs<'_>, candidates: &[usize]) -> bool {
    let links = &costs.problem.links;
    let pairs = || candidates.iter().flat_map(|&i| candidates.iter().map(move |&j| (i, j))).filter(|(i, j)| i != j);
    match pairs().next() {
        _ if costs.way_rate() == 0.0 && costs.round_limit().is_none() => {
            pairs().all(|(a, b)| costs.hop_seconds(a, b).is_finite() && costs.back_seconds(a, b).is_finite())
        }
        Some((i, j)) => {
            costs.hop_seconds(i, j).is_finite() && pairs().all(|(a, b)| links.between(a, b) == links.between(i, j))
        }
        None => true,
    }
}
