//! The best cuts for phones in a given order, by dynamic programming over the layer boundaries.

mod floor;

use std::collections::{BTreeMap, VecDeque};

use crate::costs::{Costs, Ring, Score, TIE};
use crate::limits::least;

/// The best way to cut the layers among `phones` in this order, or None when no cut fits their memory or two
/// neighbours cannot reach each other.
///
/// Latency: a shortest path over boundaries, for each pace of prompts that may be worth it. Throughput: the objective is max(slowest stage, slowest wire,
/// round ÷ shares); as the limit on the stages rises, the shortest round falls, so the best limit lies where
/// the two meet, which a binary search over the possible stage times finds. Efficiency: a shortest path whose round keeps the limit.
pub(crate) fn best_cuts(costs: &Costs<'_>, phones: &[usize]) -> Option<(Ring, Score)> {
    best_cuts_below(costs, phones, f64::INFINITY)
}

/// The same, or None where the objective is not below `known`: to be asked of many orders.
pub(crate) fn best_cuts_below(costs: &Costs<'_>, phones: &[usize], known: f64) -> Option<(Ring, Score)> {
    if phones.is_empty() || phones.len() > costs.n_layers {
        return None;
    }
    let hops = costs.hops_seconds(phones);
    if !hops.is_finite() {
        return None;
    }
    if let Some(limit) = costs.round_limit() {
        let (ring, score, _) = within_round(costs, phones, limit)?;
        return (score.objective < known).then_some((ring, score));
    }
    let limit = if costs.is_of_one() { f64::INFINITY } else { best_limit(costs, phones, hops)? };
    paced(costs, phones, known, |pace| Some(shortest(costs, phones, limit, pace * (1.0 + TIE))?.0))
}

/// The best cuts in this order, and whether it is known that none are better.
pub(crate) fn settled_cuts(costs: &Costs<'_>, phones: &[usize]) -> Option<(Ring, Score, bool)> {
    let can_be_cut = !phones.is_empty() && phones.len() <= costs.n_layers && costs.hops_seconds(phones).is_finite();
    match costs.round_limit() {
        Some(limit) if can_be_cut => within_round(costs, phones, limit),
        _ => best_cuts(costs, phones).map(|(ring, score)| (ring, score, true)),
    }
}

fn within_round(costs: &Costs<'_>, phones: &[usize], limit: f64) -> Option<(Ring, Score, bool)> {
    floor::cheapest(costs, phones, limit, |stage, from, to| costs.fits(phones[stage], from, to))
}

/// The best ring of all paces, or None where its objective is not below `known`; `ends_within` are the ends of the shortest round with no stage over so many seconds for a chunk of a prompt.
fn paced(
    costs: &Costs<'_>,
    phones: &[usize],
    known: f64,
    ends_within: impl Fn(f64) -> Option<Vec<usize>>,
) -> Option<(Ring, Score)> {
    let within = |pace: f64| {
        let ring = Ring { phones: phones.to_vec(), ends: ends_within(pace)? };
        let score = costs.score(&ring);
        Some((ring, score))
    };
    let price = costs.pace_price();
    if price == 0.0 {
        return within(f64::INFINITY);
    }
    let mut best: Option<(Ring, Score)> = None;
    let limits = (costs.slowest_chunk_wire(phones), f64::INFINITY);
    least(limits, price, known, usize::MAX, |pace| {
        let (ring, score) = within(pace)?;
        let rest = (score.round, costs.pace(&ring));
        if best.as_ref().is_none_or(|(_, known)| score.beats(known)) {
            best = Some((ring, score));
        }
        Some(rest)
    });
    best
}

/// The best cuts in this order with each stage within its span `[from, to)`; None when there is none. A layer may
/// be wherever its span allows: memory is not asked for again.
///
/// For each time that the slowest stage may take, the shortest round: few boundaries are free, so all are tried.
pub(crate) fn best_cuts_within(costs: &Costs<'_>, phones: &[usize], spans: &[(usize, usize)]) -> Option<(Ring, Score)> {
    let n = costs.n_layers;
    let hops = costs.hops_seconds(phones);
    if let Some(limit) = costs.round_limit() {
        let is_within = |stage: usize, from: usize, to: usize| spans[stage].0 <= from && to <= spans[stage].1;
        return floor::cheapest(costs, phones, limit, is_within).map(|(ring, score, _)| (ring, score));
    }
    let shortest = |limit: f64, pace: f64| {
        let mut sums: BTreeMap<usize, (f64, Vec<usize>)> = BTreeMap::from([(0, (0.0, Vec::new()))]);
        for (at, (&phone, &(span_from, span_to))) in phones.iter().zip(spans).enumerate() {
            let mut next: BTreeMap<usize, (f64, Vec<usize>)> = BTreeMap::new();
            for (&from, (sum, ends)) in sums.range(span_from..) {
                let tos = if at + 1 == phones.len() { n..=n } else { from + 1..=span_to.min(n - 1) };
                for to in tos.filter(|&to| from < to && to <= span_to) {
                    let seconds = costs.stage_seconds(phone, from, to);
                    let sum = sum + seconds;
                    let is_within = seconds <= limit && costs.chunk_seconds(phone, from, to) <= pace * (1.0 + TIE);
                    if is_within && next.get(&to).is_none_or(|(known, _)| sum < *known) {
                        next.insert(to, (sum, [&ends[..], &[to]].concat()));
                    }
                }
            }
            sums = next;
        }
        let (sum, ends) = sums.remove(&n)?;
        (sum + hops).is_finite().then_some(ends)
    };
    let scored = |limit: f64| paced(costs, phones, f64::INFINITY, |_| shortest(limit, f64::INFINITY));
    if costs.is_of_one() {
        return paced(costs, phones, f64::INFINITY, |pace| shortest(f64::INFINITY, pace));
    }
    let stage = |(&phone, &(from, to)): (&usize, &(usize, usize))| {
        (from..to).flat_map(move |a| (a + 1..=to).map(move |b| costs.stage_seconds(phone, a, b)))
    };
    let mut limits: Vec<f64> = phones.iter().zip(spans).flat_map(stage).collect();
    limits.sort_by(f64::total_cmp);
    limits.dedup();
    // The first limit that the shared round does not exceed, and the one before it.
    let meet =
        limits.partition_point(|&limit| scored(limit).is_none_or(|(_, score)| score.round / costs.shares() > limit));
    let end = (meet + 1).min(limits.len());
    let limits = limits[meet.saturating_sub(1)..end].to_vec();
    let mut best: Option<(Ring, Score)> = None;
    for (ring, score) in limits.into_iter().filter_map(scored) {
        if best.as_ref().is_none_or(|(_, known)| score.beats(known)) {
            best = Some((ring, score));
        }
    }
    best
}

/// Of all cuts that make neither the round nor the pace of prompts longer than `ring`'s, the one whose slowest stage is the fastest: it
/// answers prompts and several sessions sooner, at no cost to one.
pub(crate) fn balance(costs: &Costs<'_>, ring: Ring) -> Ring {
    let hops = costs.hops_seconds(&ring.phones);
    let known = costs.score(&ring);
    let most = if costs.counts_joules() { known.objective } else { known.round } * (1.0 + TIE);
    let pace = if costs.pace_price() == 0.0 { f64::INFINITY } else { costs.pace(&ring) * (1.0 + TIE) };
    let is_as_good = |(ends, stages): &(Vec<usize>, f64)| {
        let as_long = || !known.beats(&costs.score(&Ring { ends: ends.clone(), ..ring.clone() }));
        stages + hops <= most && (!costs.counts_joules() || as_long())
    };
    let within = |limit: f64| shortest(costs, &ring.phones, limit * (1.0 + TIE), pace).filter(is_as_good);
    let times = stage_times(costs.in_seconds(), &ring.phones);
    let first = times.partition_point(|&limit| within(limit).is_none());
    match times.get(first).and_then(|&limit| within(limit)) {
        Some((ends, _)) => Ring { ends, ..ring },
        None => ring,
    }
}

/// Every time that a stage of these phones can take, rising.
fn stage_times(costs: &Costs<'_>, phones: &[usize]) -> Vec<f64> {
    let mut times = Vec::new();
    for (stage, &phone) in phones.iter().enumerate() {
        let n = costs.n_layers;
        // Every other stage holds a layer at least.
        let most = n + 1 - phones.len();
        let first = if stage == 0 { 0 } else { 1 };
        let is_last = stage + 1 == phones.len();
        times.extend((1..=most).map(|count| match (first, is_last) {
            (0, true) => costs.stage_seconds(phone, 0, n),
            (_, true) => costs.stage_seconds(phone, n - count, n),
            _ => costs.stage_seconds(phone, first, first + count),
        }));
    }
    times.sort_by(f64::total_cmp);
    times.dedup();
    times
}

/// The objective that can be reached, to be used as the limit of every stage.
fn best_limit(costs: &Costs<'_>, phones: &[usize], hops: f64) -> Option<f64> {
    let times = stage_times(costs, phones);
    let shares = costs.shares();
    let shortest = |limit: f64| shortest(costs, phones, limit * (1.0 + TIE), f64::INFINITY);
    let shared_round = |limit: f64| shortest(limit).map(|(_, s)| (s + hops) / shares);
    // The first limit that the shared round does not exceed.
    let meet = times.partition_point(|&limit| shared_round(limit).is_none_or(|shared| shared > limit));
    let above = times.get(meet).copied();
    let below = meet.checked_sub(1).and_then(|i| shared_round(times[i]));
    let best = match (above, below) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b)?,
    };
    Some(best.max(costs.slowest_wire(phones)) * (1.0 + TIE))
}

/// The cut with the least sum of what stages cost, no stage over `limit` seconds, nor over `pace` for a whole chunk of a prompt, and that sum.
///
/// A stage's time is linear in its layers, and the layers that fit before a boundary are a window that slides with
/// it; so a stage takes as many steps as there are layers.
fn shortest(costs: &Costs<'_>, phones: &[usize], limit: f64, pace: f64) -> Option<(Vec<usize>, f64)> {
    let (n, k) = (costs.n_layers, phones.len());
    // sums[b]: the least sum when the stages so far end at boundary b; came[s][b]: where stage s then began.
    let mut sums = vec![f64::INFINITY; n + 1];
    sums[0] = 0.0;
    let mut next = sums.clone();
    let mut came = vec![0usize; k * (n + 1)];
    let mut window: VecDeque<(usize, f64)> = VecDeque::new();
    for (stage, &phone) in phones.iter().enumerate() {
        let after = k - 1 - stage;
        let may = |from: usize, to: usize| {
            costs.in_seconds().stage_seconds(phone, from, to) <= limit
                && costs.chunk_seconds(phone, from, to) <= pace
                && costs.fits(phone, from, to)
        };
        let came = &mut came[stage * (n + 1)..(stage + 1) * (n + 1)];
        next.fill(f64::INFINITY);
        // The last stage reaches the end in one piece; the others leave a layer for each that follows.
        if after == 0 {
            let froms = (stage..n).filter(|&from| (stage == 0) == (from == 0) && sums[from].is_finite());
            for from in froms.filter(|&from| may(from, n)) {
                let sum = sums[from] + costs.stage_seconds(phone, from, n);
                if sum < next[n] {
                    (next[n], came[n]) = (sum, from);
                }
            }
        } else if stage == 0 {
            for to in (1..=n - after).take_while(|&to| may(0, to)) {
                (next[to], came[to]) = (costs.stage_seconds(phone, 0, to), 0);
            }
        } else {
            window.clear();
            let layer = costs.layer_seconds(phone);
            for to in stage + 1..=n - after {
                let value = sums[to - 1] - (to - 1) as f64 * layer;
                if value.is_finite() {
                    while window.back().is_some_and(|&(_, known)| known > value) {
                        window.pop_back();
                    }
                    window.push_back((to - 1, value));
                }
                while window.front().is_some_and(|&(from, _)| !may(from, to)) {
                    window.pop_front();
                }
                if let Some(&(from, _)) = window.front() {
                    (next[to], came[to]) = (sums[from] + costs.stage_seconds(phone, from, to), from);
                }
            }
        }
        std::mem::swap(&mut sums, &mut next);
    }
    if sums[n].is_infinite() {
        return None;
    }
    let mut ends = vec![n; k];
    for stage in (1..k).rev() {
        ends[stage - 1] = came[stage * (n + 1) + ends[stage]];
    }
    Some((ends, sums[n]))
}
