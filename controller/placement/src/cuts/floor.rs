//! The cuts of an order with the fewest joules whose round keeps a limit: a shortest path with a second resource.
//!
//! Prices of a second lead from the cheapest path to the fastest one, over the corners of the lower hull of all paths (Handler and Zang
//! 1980). What lies between two corners is found by labels, pairs of seconds and joules of which none is beaten in both; a label goes on only
//! where, by the last price, something better than the corner can still come of it.

use crate::costs::{Costs, Ring, Score, TIE};

/// Corners of the hull that are asked for at most.
const MAX_PRICES: usize = 24;
/// Labels of one order at most: beyond them the best of the hull's corners is taken.
const MAX_LABELS: usize = 200_000;

/// The best ring of this order, and whether it is known that no cut of the order is better; `None` where no cut keeps the limit.
pub(super) fn cheapest(
    costs: &Costs<'_>,
    phones: &[usize],
    limit: f64,
    may: impl Fn(usize, usize, usize) -> bool,
) -> Option<(Ring, Score, bool)> {
    let stages = Stages { costs, phones, n: costs.n_layers, may };
    let left = limit * (1.0 + TIE) - costs.in_seconds().hops_seconds(phones);
    let (ends, is_best) = stages.within(left)?;
    let ring = Ring { phones: phones.to_vec(), ends };
    let score = costs.score(&ring);
    score.objective.is_finite().then_some((ring, score, is_best))
}

/// Joules and seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spent {
    joules: f64,
    seconds: f64,
}

/// What counts of a stage.
type Weigh<'a> = &'a dyn Fn(Spent) -> f64;

/// The stages of an order, and which layers each may have.
struct Stages<'a, 'b, M> {
    costs: &'a Costs<'b>,
    phones: &'a [usize],
    /// Layers of the model.
    n: usize,
    may: M,
}

/// A way to a boundary.
#[derive(Clone, Copy)]
struct Label {
    spent: Spent,
    /// The boundary, and the label that it came from.
    at: usize,
    came: usize,
}

// === impl Spent ===

impl Spent {
    fn and(self, other: Spent) -> Spent {
        Spent { joules: self.joules + other.joules, seconds: self.seconds + other.seconds }
    }
}

// === impl Stages ===

impl<M: Fn(usize, usize, usize) -> bool> Stages<'_, '_, M> {
    fn spent(&self, stage: usize, from: usize, to: usize) -> Spent {
        let phone = self.phones[stage];
        Spent {
            joules: self.costs.stage_seconds(phone, from, to),
            seconds: self.costs.in_seconds().stage_seconds(phone, from, to),
        }
    }

    /// Where a stage that begins here may end.
    fn tos(&self, stage: usize, from: usize) -> impl Iterator<Item = usize> + '_ {
        let after = self.phones.len() - 1 - stage;
        let tos = if after == 0 { self.n..=self.n } else { from + 1..=self.n - after };
        tos.filter(move |&to| from < to && (self.may)(stage, from, to))
    }

    /// `least[stage][boundary]`: the least from there to the end; infinite where no way leads there.
    fn least(&self, weigh: Weigh<'_>) -> Vec<Vec<f64>> {
        let k = self.phones.len();
        let mut least = vec![vec![f64::INFINITY; self.n + 1]; k + 1];
        least[k][self.n] = 0.0;
        for stage in (0..k).rev() {
            for from in self.froms(stage) {
                let on = |to: usize| weigh(self.spent(stage, from, to)) + least[stage + 1][to];
                least[stage][from] = self.tos(stage, from).map(on).fold(f64::INFINITY, f64::min);
            }
        }
        least
    }

    /// Where a stage may begin: each before it has a layer.
    fn froms(&self, stage: usize) -> std::ops::Range<usize> {
        if stage == 0 { 0..1 } else { stage..self.n }
    }

    /// The ends of a way that is as short as can be, and what it spends.
    fn follow(&self, least: &[Vec<f64>], weigh: Weigh<'_>) -> Option<(Vec<usize>, Spent)> {
        let (mut from, mut ends) = (0, Vec::with_capacity(self.phones.len()));
        let mut sum = Spent { joules: 0.0, seconds: 0.0 };
        for stage in 0..self.phones.len() {
            let on = |to: usize| weigh(self.spent(stage, from, to)) + least[stage + 1][to];
            let to = self.tos(stage, from).min_by(|a, b| on(*a).total_cmp(&on(*b)))?;
            if on(to).is_infinite() {
                return None;
            }
            sum = sum.and(self.spent(stage, from, to));
            ends.push(to);
            from = to;
        }
        Some((ends, sum))
    }

    /// The ends with the fewest joules within so many seconds, and whether there are none with fewer.
    fn within(&self, left: f64) -> Option<(Vec<usize>, bool)> {
        let by = |weigh: Weigh<'_>| self.follow(&self.least(weigh), weigh);
        let (ends, mut cheap) = by(&|spent| spent.joules)?;
        if cheap.seconds <= left {
            return Some((ends, true));
        }
        let in_time = self.least(&|spent| spent.seconds);
        let (mut best, mut fast) = self.follow(&in_time, &|spent| spent.seconds)?;
        if fast.seconds.is_nan() || fast.seconds > left {
            return None;
        }
        let mut price = 0.0;
        for _ in 0..MAX_PRICES {
            // Of two ways that take as long as each other, or as much, there is none between.
            let next = (fast.joules - cheap.joules) / (cheap.seconds - fast.seconds);
            if !(next.is_finite() && next > 0.0) {
                break;
            }
            price = next;
            let weigh = |spent: Spent| spent.joules + price * spent.seconds;
            let Some((ends, found)) = by(&weigh) else { break };
            if weigh(found) >= weigh(fast).min(weigh(cheap)) * (1.0 - TIE) {
                break;
            }
            if found.seconds <= left {
                (best, fast) = (ends, found);
            } else {
                cheap = found;
            }
        }
        match self.labelled(left, price, fast.joules, &in_time) {
            Labelled::Found(ends) => Some((ends, true)),
            Labelled::Nothing => Some((best, true)),
            Labelled::TooMany => Some((best, false)),
        }
    }

    /// What is better than `known` joules, by labels.
    fn labelled(&self, left: f64, price: f64, known: f64, in_time: &[Vec<f64>]) -> Labelled {
        let priced = |spent: Spent| spent.joules + price * spent.seconds;
        let by_price = self.least(&priced);
        let most = known * (1.0 - TIE) + price * left;
        let mut labels = vec![Label { spent: Spent { joules: 0.0, seconds: 0.0 }, at: 0, came: 0 }];
        let mut now: Vec<usize> = vec![0];
        for stage in 0..self.phones.len() {
            let mut reached: Vec<Vec<Label>> = vec![Vec::new(); self.n + 1];
            let mut n_reached = 0;
            for &came in &now {
                let label = labels[came];
                for to in self.tos(stage, label.at) {
                    let spent = label.spent.and(self.spent(stage, label.at, to));
                    let is_of_use = spent.seconds + in_time[stage + 1][to] <= left
                        && spent.joules < known * (1.0 - TIE)
                        && priced(spent) + by_price[stage + 1][to] <= most;
                    if is_of_use {
                        n_reached += 1;
                        reached[to].push(Label { spent, at: to, came });
                    }
                }
                if n_reached > MAX_LABELS {
                    return Labelled::TooMany;
                }
            }
            now.clear();
            for mut here in reached {
                here.sort_by(|a, b| {
                    let in_time = a.spent.seconds.total_cmp(&b.spent.seconds);
                    in_time.then(a.spent.joules.total_cmp(&b.spent.joules))
                });
                let mut fewest = f64::INFINITY;
                for label in here {
                    if label.spent.joules < fewest * (1.0 - TIE * TIE) {
                        fewest = label.spent.joules;
                        now.push(labels.len());
                        labels.push(label);
                    }
                }
            }
            if labels.len() > MAX_LABELS {
                return Labelled::TooMany;
            }
        }
        let fewest = |a: &&usize, b: &&usize| labels[**a].spent.joules.total_cmp(&labels[**b].spent.joules);
        let Some(&last) = now.iter().min_by(fewest) else { return Labelled::Nothing };
        let (mut ends, mut at) = (Vec::new(), last);
        while at != 0 {
            ends.push(labels[at].at);
            at = labels[at].came;
        }
        ends.reverse();
        Labelled::Found(ends)
    }
}

/// What labels found.
enum Labelled {
    Found(Vec<usize>),
    /// No cut is better than what was known.
    Nothing,
    TooMany,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::problem::{Demand, Energy, Link, Links, ModelCosts, Objective, PhoneCosts, Problem, Speed};

    fn problem(phones: &[(f64, f64)], n_layers: usize, tokens: f64) -> Problem {
        let model = ModelCosts { layer_bytes: vec![1; n_layers], ..ModelCosts::default() };
        let speed = Speed { multiply_adds_per_second: 1e9, memory_bytes_per_second: 1e9, ..Speed::default() };
        let phone = |&(seconds_per_layer, watts): &(f64, f64)| PhoneCosts {
            seconds_per_layer,
            energy: Energy { active_watts: Some(watts), ..Energy::default() },
            ..PhoneCosts::from_speed(watts.to_string(), 1 << 20, &speed, &model)
        };
        Problem {
            phones: phones.iter().map(phone).collect(),
            links: Links::uniform(Link { latency_seconds: 0.0, bytes_per_second: 1e9 }),
            demand: Demand {
                context_length: 1,
                max_sessions: 1,
                generations_in_memory: 1.0,
                objective: Objective::Efficiency,
                min_tokens_per_second: Some(tokens),
                min_phones: 0,
                max_phones: u32::MAX,
                memory_fraction: 1.0,
                overlap: false,
                prompt: None,
            },
            previous: None,
            model,
        }
    }

    #[test]
    fn what_lies_between_two_corners_of_the_hull_is_found_too() {
        // A layer costs 1 s and 10 J, or 3 s and 3 J, or 2 s and 7 J, which no price of a second chooses.
        let problem = problem(&[(1.0, 10.0), (3.0, 1.0), (2.0, 3.5)], 4, 1.0 / 8.0);
        let costs = Costs::new(&problem);
        let fits = |_, _, _| true;
        let (ring, score, is_best) = cheapest(&costs, &[0, 1, 2], 8.0, fits).unwrap();
        // One layer each, and the fourth where it fits: 1 + 3 + 2 + 2 seconds.
        assert_eq!((ring.ends, is_best), (vec![1, 2, 4], true));
        assert!((score.objective - 27.0).abs() < 1e-9 && (score.round - 8.0).abs() < 1e-9, "{score:?}");
        assert!(cheapest(&costs, &[0, 1, 2], 6.9, fits).is_none(), "seven seconds are the least");
    }
}
