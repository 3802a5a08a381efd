//! The heuristic: a deterministic local search over rings. It gives the start of the exact solver, and the
//! plan itself where there are too many phones for that.

mod counts;
mod priced;

use std::collections::BTreeSet;

use crate::costs::{Costs, MAX_TABLE, Ring, Score, TIE};
use crate::cuts::{best_cuts, best_cuts_below};
use counts::Counts;

/// Rings tried at most: what bounds the search's time.
const MAX_EVALUATIONS: usize = 5_000;
/// The same for descents from shaken rings.
const MAX_SHAKEN: usize = 10_000;
/// Phones that the search moves among at least, where there are so many.
const MIN_POOL: usize = 20;
/// Among them of those that may hold the ends, where not all may: so many of the fastest, and of the roomiest.
const MIN_TRUSTED: usize = 4;

/// The best ring found, None when none was found that fits.
pub(crate) fn search(costs: &Costs<'_>, previous: Option<&Ring>) -> Option<(Ring, Score)> {
    match costs.round_limit() {
        Some(limit) => priced::search(costs, previous, limit),
        None => search_sum(costs, previous),
    }
}

/// A ring that may be faster at as many joules; None where those do not count.
pub(crate) fn quicker(costs: &Costs<'_>, known: &Ring) -> Option<(Ring, Score)> {
    if costs.counts_joules() { priced::quicker(costs, known) } else { None }
}

/// The same where no round has a limit.
fn search_sum(costs: &Costs<'_>, previous: Option<&Ring>) -> Option<(Ring, Score)> {
    let pool = pool(costs, previous);
    let counts = Counts::new(costs, &pool);
    let mut search = Search { costs, pool, counts, left: MAX_EVALUATIONS, best: None };
    for start in search.starts(previous) {
        search.descend(start);
    }
    let (order, _) = search.best?;
    best_cuts(costs, &order)
}

/// A better ring than `known`, if descents from its surroundings find one: some phones taken out of it, others put in,
/// by a fixed sequence of choices. Where a round has a limit, prices have shown many rings, and none is looked for.
pub(crate) fn shake(costs: &Costs<'_>, known: &Ring) -> Option<(Ring, Score)> {
    if costs.round_limit().is_some() {
        return None;
    }
    let pool = pool(costs, Some(known));
    let counts = Counts::new(costs, &pool);
    let mut search = Search { costs, pool, counts, left: MAX_SHAKEN, best: None };
    search.evaluate(&known.phones, None)?;
    let mut choices = Choices(1);
    while search.left > 0 {
        let mut order = search.best.as_ref()?.0.clone();
        for _ in 0..2 {
            if order.len() > 1 {
                order.remove(choices.below(order.len()));
            }
        }
        for _ in 0..choices.below(4) {
            let phone = search.pool[choices.below(search.pool.len())];
            if !order.contains(&phone) {
                order.insert(choices.below(order.len() + 1), phone);
            }
        }
        search.descend(order);
    }
    let (order, _) = search.best?;
    best_cuts(costs, &order)
}

/// A sequence of numbers that is the same for everyone (a linear congruential one, Knuth's MMIX).
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n.max(1) as u64) as usize
    }
}

/// The costs over the phones that a plan is looked for among: all unless they are very many.
pub(crate) fn narrow<'a>(costs: &Costs<'a>, previous: Option<&Ring>) -> Costs<'a> {
    if costs.usable.len() <= MAX_TABLE {
        return costs.clone();
    }
    costs.narrowed(chosen(costs, previous, MAX_TABLE / 2))
}

/// The phones worth trying in a search: all when they are few.
fn pool(costs: &Costs<'_>, previous: Option<&Ring>) -> Vec<usize> {
    chosen(costs, previous, MIN_POOL)
}

/// The fastest phones, the roomiest and those in use: at least so many, and enough of them.
fn chosen(costs: &Costs<'_>, previous: Option<&Ring>, at_least: usize) -> Vec<usize> {
    let wanted = at_least.max(costs.min_stages() * 3 / 2).max(phones_needed(costs) * 3 / 2);
    if costs.usable.len() <= wanted {
        return costs.usable.clone();
    }
    // Where joules count, the cheapest ones are as good as the fastest ones for a start.
    let (cheap, fast, roomy) = (by_speed(costs), by_speed(costs.in_seconds()), by_room(costs));
    let mut pool: BTreeSet<usize> = previous.map(|ring| ring.phones.iter().copied().collect()).unwrap_or_default();
    if !costs.are_all_trusted() {
        for ranked in [&cheap, &fast, &roomy] {
            pool.extend(trusted(costs, ranked).take(MIN_TRUSTED));
        }
    }
    for rank in 0..costs.usable.len() {
        if pool.len() >= wanted {
            break;
        }
        pool.insert(cheap[rank]);
        pool.insert(fast[rank]);
        pool.insert(roomy[rank]);
    }
    pool.into_iter().collect()
}

/// How many of the roomiest phones together have the bytes of the model.
fn phones_needed(costs: &Costs<'_>) -> usize {
    let mut missing = costs.segment_bytes(0, costs.n_layers);
    let mut n = 0;
    for phone in by_room(costs) {
        n += 1;
        missing = missing.saturating_sub(costs.budget[phone].saturating_sub(costs.problem.model.activation_bytes));
        if missing == 0 {
            break;
        }
    }
    n
}

/// Those of `ranked` that may hold the ends.
fn trusted<'a>(costs: &'a Costs<'_>, ranked: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    ranked.iter().copied().filter(|&phone| costs.is_trusted(phone))
}

/// `ranked`, but for the first two that may hold the ends, who come before all others.
pub(crate) fn ends_first(costs: &Costs<'_>, ranked: &[usize]) -> Vec<usize> {
    let ends: Vec<usize> = trusted(costs, ranked).take(2).collect();
    let others = ranked.iter().copied().filter(|phone| !ends.contains(phone));
    ends.iter().copied().chain(others).collect()
}

/// Usable phones, the fastest first; where joules count, those whose layers cost the least.
pub(crate) fn by_speed(costs: &Costs<'_>) -> Vec<usize> {
    let mut phones = costs.usable.clone();
    let speed = |&i: &usize| costs.layer_seconds(i);
    phones.sort_by(|a, b| speed(a).total_cmp(&speed(b)).then(a.cmp(b)));
    phones
}

/// Usable phones, those with the largest budget first.
fn by_room(costs: &Costs<'_>) -> Vec<usize> {
    let mut phones = costs.usable.clone();
    phones.sort_by(|&a, &b| costs.budget[b].cmp(&costs.budget[a]).then(a.cmp(&b)));
    phones
}

struct Search<'a, 'b> {
    costs: &'a Costs<'b>,
    pool: Vec<usize>,
    counts: Counts<'a, 'b>,
    left: usize,
    best: Option<(Vec<usize>, Score)>,
}

// === impl Search ===

impl Search<'_, '_> {
    /// Rings to descend from: the one in force, and for each way of ranking the phones its shortest prefix that
    /// fits and the best of its prefixes.
    fn starts(&mut self, previous: Option<&Ring>) -> Vec<Vec<usize>> {
        let mut starts: Vec<Vec<usize>> = previous.map(|ring| ring.phones.clone()).into_iter().collect();
        let (min, max) = (self.costs.min_stages(), self.costs.max_stages());
        let mut rankings = vec![by_speed(self.costs), by_room(self.costs)];
        if !self.costs.are_all_trusted() {
            rankings.extend(rankings.clone().iter().map(|ranked| ends_first(self.costs, ranked)));
        }
        for ranked in rankings {
            let ranked: Vec<usize> = ranked.into_iter().filter(|phone| self.pool.contains(phone)).collect();
            let mut best: Option<(Vec<usize>, Score)> = None;
            let mut first = true;
            for k in min..=max.min(ranked.len()) {
                // Trusted and roomy phones at both ends, where embedding and output matrix need the space.
                let mut ends_roomy = ranked[..k].to_vec();
                ends_roomy
                    .sort_by_key(|&phone| std::cmp::Reverse((self.costs.is_trusted(phone), self.costs.budget[phone])));
                if k > 2 {
                    let tail = ends_roomy.remove(1);
                    ends_roomy.push(tail);
                }
                for order in [ranked[..k].to_vec(), ends_roomy] {
                    let Some(score) = self.evaluate(&order, None) else {
                        continue;
                    };
                    if std::mem::take(&mut first) {
                        starts.push(order.clone());
                    }
                    if best.as_ref().is_none_or(|(_, known)| score.beats(known)) {
                        best = Some((order, score));
                    }
                }
            }
            starts.extend(best.map(|(order, _)| order));
        }
        starts.dedup();
        starts
    }

    /// Takes the first better neighbour until there is none.
    fn descend(&mut self, start: Vec<usize>) {
        let mut here = start;
        let Some(mut score) = self.evaluate(&here, None) else {
            return;
        };
        loop {
            let mut moved = false;
            for neighbour in self.neighbours(&here) {
                if self.left == 0 {
                    return;
                }
                if let Some(better) = self.evaluate(&neighbour, Some(&score)).filter(|s| s.beats(&score)) {
                    (here, score, moved) = (neighbour, better, true);
                    break;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Rings one step away: a phone removed, exchanged for an unused one, two swapped, one inserted, one moved.
    fn neighbours(&self, ring: &[usize]) -> Vec<Vec<usize>> {
        let k = ring.len();
        let unused: Vec<usize> = self.pool.iter().copied().filter(|phone| !ring.contains(phone)).collect();
        let mut all = Vec::new();
        if k > self.costs.min_stages() {
            for at in 0..k {
                let mut next = ring.to_vec();
                next.remove(at);
                all.push(next);
            }
        }
        for at in 0..k {
            for &phone in &unused {
                let mut next = ring.to_vec();
                next[at] = phone;
                all.push(next);
            }
        }
        for a in 0..k {
            for b in a + 1..k {
                let mut next = ring.to_vec();
                next.swap(a, b);
                all.push(next);
            }
        }
        if k < self.costs.max_stages() {
            for at in 0..=k {
                for &phone in &unused {
                    let mut next = ring.to_vec();
                    next.insert(at, phone);
                    all.push(next);
                }
            }
        }
        for from in 0..k {
            for to in (0..k).filter(|&to| to != from) {
                let mut next = ring.to_vec();
                let phone = next.remove(from);
                next.insert(to, phone);
                all.push(next);
            }
        }
        all
    }

    /// The score of the best cuts in this order; None when nothing fits, or nothing is as good as `known`.
    fn evaluate(&mut self, phones: &[usize], known: Option<&Score>) -> Option<Score> {
        self.left = self.left.saturating_sub(1);
        if phones.len() < self.costs.min_stages() || phones.len() > self.costs.max_stages() {
            return None;
        }
        let mut score = self.counts.best(phones, known)?;
        if !self.costs.has_even_layers {
            let known = known.map_or(f64::INFINITY, |known| known.objective * (1.0 + TIE));
            score = best_cuts_below(self.costs, phones, known)?.1;
        }
        if self.best.as_ref().is_none_or(|(_, known)| score.beats(known)) {
            self.best = Some((phones.to_vec(), score));
        }
        Some(score)
    }
}
