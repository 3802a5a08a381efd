//! Attention to the bit: every sum in the order that a class defines, one value after the other. Engines are held to it; none that serves runs it.

use std::ops::Range;

use super::{Caches, Seen, or_none};
use crate::cpu::exponential::{capped, exp};
use crate::cpu::order::Order;
use crate::ops::Attention;
use crate::recording::Row;
use crate::wgsl::PART;

/// As [`Attention`] says, in f32; `q` and `out` are `[rows][n_heads][head_size]`. Values of the caches are read as their type is defined.
pub fn in_order(order: Order, op: &Attention, rows: &[Row], q: &[f32], caches: Caches<'_>, out: &mut [f32]) {
    let heads = q.chunks_exact(op.head_size).zip(out.chunks_exact_mut(op.head_size));
    for (index, (q, out)) in heads.enumerate().take(rows.len() * op.n_heads) {
        let seen = Seen::new(op, rows, index, caches);
        let first = op.seen(index / op.n_heads, rows[index / op.n_heads]).start as usize;
        match order {
            Order::Processor => at_once(seen, q, out),
            Order::Vulkan => in_blocks(seen, first, q, out),
        }
    }
}

fn at_once(seen: Seen<'_>, q: &[f32], out: &mut [f32]) {
    let scores: Vec<f32> = (0..seen.n_positions).map(|p| score(seen, dot(seen, p, q, 16), p)).collect();
    let largest = scores.iter().copied().fold(seen.sink.unwrap_or(f32::NEG_INFINITY), f32::max);
    let mut total = seen.sink.map_or(0.0, |sink| exp(sink - largest));
    out.fill(0.0);
    for (position, score) in scores.into_iter().enumerate() {
        let weight = exp(score - largest);
        total += weight;
        for (i, out) in out.iter_mut().enumerate() {
            *out += weight * seen.value(seen.v, position, i);
        }
    }
    out.iter_mut().for_each(|out| *out /= total);
}

/// What some positions come to: the largest score, the sum of the weights, those of the values.
struct Shares {
    largest: f32,
    total: f32,
    values: Vec<f32>,
}

/// `first` is the position of the first that is seen.
fn in_blocks(seen: Seen<'_>, first: usize, q: &[f32], out: &mut [f32]) {
    const BLOCK: usize = 64;
    const LOWEST: f32 = -3.0e38;
    let none = || Shares { largest: LOWEST, total: 0.0, values: vec![0.0; q.len()] };
    let mut all = none();
    if let Some(sink) = seen.sink {
        (all.largest, all.total) = (sink, 1.0);
    }
    let end = first + seen.n_positions;
    let cut = |size: usize, within: Range<usize>| {
        let pieces = within.start / size..=(within.end - 1) / size;
        pieces.map(move |piece| (piece * size).max(within.start)..((piece + 1) * size).min(within.end))
    };
    for of_part in cut(PART, first..end) {
        let mut part = none();
        for positions in cut(BLOCK, of_part) {
            let score = |p| score(seen, dot(seen, p - first, q, 4), p - first);
            let scores: Vec<f32> = positions.clone().map(score).collect();
            let new_largest = scores.iter().copied().fold(part.largest, f32::max);
            let correction = exp(part.largest - new_largest);
            part.total *= correction;
            part.values.iter_mut().for_each(|value| *value *= correction);
            for (position, score) in positions.zip(scores) {
                let weight = exp(score - new_largest);
                part.total += weight;
                for (i, value) in part.values.iter_mut().enumerate() {
                    *value += weight * seen.value(seen.v, position - first, i);
                }
            }
            part.largest = new_largest;
        }
        let new_largest = all.largest.max(part.largest);
        let (before, now) = (exp(all.largest - new_largest), exp(part.largest - new_largest));
        all.total = all.total * before + part.total * now;
        for (value, of_part) in all.values.iter_mut().zip(&part.values) {
            *value = *value * before + of_part * now;
        }
        all.largest = new_largest;
    }
    for (out, value) in out.iter_mut().zip(&all.values) {
        *out = value / all.total;
    }
}

/// In `n` partial sums, of every n-th product each, whose halves are added to one another until one is left; of four, neighbours are.
fn dot(seen: Seen<'_>, position: usize, q: &[f32], n: usize) -> f32 {
    let mut sums = [0.0_f32; 16];
    for (i, q) in q.iter().enumerate() {
        sums[i % n] += q * seen.value(seen.k, position, i);
    }
    if n == 4 {
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

fn score(seen: Seen<'_>, dot: f32, position: usize) -> f32 {
    let scaled = or_none(dot * seen.scale);
    let score = seen.cap.map_or(scaled, |cap| capped(scaled, cap));
    if seen.is_biased() { score + seen.bias.of(position) } else { score }
}
