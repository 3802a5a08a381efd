//! Energy: what a ring takes out of batteries, and how its floor of tokens a second is kept.
//!
//! Under Efficiency a stage counts its seconds × its phone's weighted watts, and hops count nothing: what radios take is not measured.
//! All sums that are minimised over rings stay sums, in joules instead of seconds. Where a round has a limit, *priced* costs have none, but
//! add a price for each second of the round, in watts: nothing within the limit is below the least of these less price × limit
//! (Lagrange's relaxation; Geoffrion 1974).

use std::rc::Rc;

use super::{Costs, HopTable, Ring, Score, TIE};
use crate::problem::{Objective, watts_of};

/// What is counted instead of seconds.
#[derive(Clone)]
pub(super) struct Joules<'a> {
    /// The same problem in seconds, of tokens alone.
    seconds: Rc<Costs<'a>>,
    /// By phone, weighted.
    watts: Rc<Vec<f64>>,
    /// Joules for each second of a round.
    price: f64,
    /// Seconds that a round may take; infinite without a floor, and where there is a price instead.
    limit: f64,
}

// === impl Joules ===

impl<'a> Joules<'a> {
    /// `None` where joules do not count.
    pub(super) fn of(costs: &Costs<'a>) -> Option<Self> {
        let watts = watts_of(&costs.problem.phones).into_iter().map(|of| of.weighted).collect();
        (costs.minimised == Objective::Efficiency).then(|| Self {
            seconds: Rc::new(costs.clone().of_tokens_alone()),
            watts: Rc::new(watts),
            price: 0.0,
            limit: costs.problem.demand.round_limit_seconds().unwrap_or(f64::INFINITY),
        })
    }

    pub(super) fn narrowed(&self, usable: &[usize], hops: &Option<Rc<HopTable>>) -> Self {
        let seconds = Costs { usable: usable.to_vec(), hops: hops.clone(), ..(*self.seconds).clone() };
        Self { seconds: Rc::new(seconds), ..self.clone() }
    }

    /// What a second of work counts, and one of reading a prompt: that is no part of a round.
    pub(super) fn rates(&self, phone: usize) -> (f64, f64) {
        (self.watts[phone] + self.price, self.watts[phone])
    }

    /// A ring whose round takes too long is none.
    pub(super) fn score(&self, joules: f64, ring: &Ring) -> Score {
        let round = self.seconds.score(ring).round;
        let is_kept = round <= self.limit * (1.0 + TIE);
        Score { objective: if is_kept { joules } else { f64::INFINITY }, round }
    }
}

// === impl Costs ===

impl<'a> Costs<'a> {
    /// What is minimised is joules.
    pub(crate) fn counts_joules(&self) -> bool {
        self.joules.is_some()
    }

    /// Joules that a second on a way counts; seconds where seconds do.
    pub(crate) fn way_rate(&self) -> f64 {
        self.joules.as_ref().map_or(1.0, |joules| joules.price)
    }

    /// Seconds that a round may take; `None` where that is no matter.
    pub(crate) fn round_limit(&self) -> Option<f64> {
        self.joules.as_ref().map(|joules| joules.limit).filter(|limit| limit.is_finite())
    }

    /// The same in seconds, of tokens alone; itself, where it is that.
    pub(crate) fn in_seconds(&self) -> &Costs<'a> {
        self.joules.as_ref().map_or(self, |joules| &joules.seconds)
    }

    /// The same with a price for each second of a round, in watts, and without its limit; itself where joules do not count.
    pub(crate) fn at_price(&self, watts: f64) -> Costs<'a> {
        let joules = self.joules.as_ref().map(|joules| Joules { price: watts, limit: f64::INFINITY, ..joules.clone() });
        let groups = self.groups as u32;
        Costs { joules, ..self.clone() }.of_rows(self.rows, groups)
    }

    /// The same without a limit of the round.
    pub(crate) fn unlimited(&self) -> Costs<'a> {
        if self.round_limit().is_some() { self.at_price(0.0) } else { self.clone() }
    }

    /// The least and the most of the weighted watts of phones that can be used.
    pub(crate) fn watts_within(&self) -> (f64, f64) {
        let watts = self.joules.iter().flat_map(|joules| self.usable.iter().map(|&phone| joules.watts[phone]));
        watts.fold((f64::INFINITY, 0.0), |(least, most), watts| (least.min(watts), most.max(watts)))
    }
}
