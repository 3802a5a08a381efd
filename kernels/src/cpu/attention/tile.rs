//! Heads that share keys and values: what they all see is read a few positions at a time, and each head's sums stay in registers over these.

use std::ops::Range;

use super::{Seen, or_none};
use crate::cpu::lanes::TOGETHER;
use crate::cpu::{exponential, lanes};

/// Values of a sum that are kept in registers.
const KEPT: usize = 32;

/// One head of one row.
pub(super) struct Head<'a> {
    pub seen: Seen<'a>,
    pub q: &'a [f32],
    /// Its first position, counted from the first that any of those beside it sees.
    pub before: usize,
}

/// What a thread keeps from one part to the next.
#[derive(Default)]
pub(super) struct Room {
    /// `[head][head_size]`, filled up with zeros to whole lanes: they add nothing to a sum, not to its bits either.
    queries: Vec<f32>,
    /// Keys or values of a tile: `[position][head_size]`, filled up likewise.
    tile: Vec<f32>,
    /// `[head][position]`, filled up to whole tiles; then the weights.
    scores: Vec<f32>,
    /// `[head]`.
    totals: Vec<f32>,
    /// `[head][head_size]`.
    sums: Vec<f32>,
}

impl Room {
    /// `[head][head_size]` of the last that attended.
    pub fn sums(&self) -> &[f32] {
        &self.sums
    }

    /// Heads that share keys and values, which `whole` has of all positions that any of them sees.
    pub fn attend(&mut self, heads: &[Head<'_>], whole: Seen<'_>) {
        let head_size = heads[0].q.len();
        let (width, n_scores) = (head_size.next_multiple_of(16), whole.n_positions.next_multiple_of(TOGETHER));
        let tiles = || {
            let first = (0..whole.n_positions).step_by(TOGETHER);
            first.map(|first| first..whole.n_positions.min(first + TOGETHER))
        };
        self.queries.clear();
        for head in heads {
            self.queries.extend(head.q);
            self.queries.resize(self.queries.len().next_multiple_of(width), 0.0);
        }
        self.tile.clear();
        self.tile.resize(TOGETHER * width, 0.0);
        self.scores.resize(heads.len() * n_scores, 0.0);
        for positions in tiles() {
            whole.read(whole.k, positions.clone(), head_size, (&mut self.tile, width));
            lanes::dots(&self.queries, &self.tile, &mut self.scores[positions.start..], n_scores);
        }
        self.totals.clear();
        for (head, scores) in heads.iter().zip(self.scores.chunks_exact_mut(n_scores)) {
            self.totals.push(weigh(head, &mut scores[head.before..][..head.seen.n_positions]));
        }
        self.sums.clear();
        self.sums.resize(heads.len() * head_size, 0.0);
        for positions in tiles() {
            whole.read(whole.v, positions.clone(), head_size, (&mut self.tile, width));
            add(heads, &positions, &self.scores, &self.tile, &mut self.totals, &mut self.sums);
        }
        for (total, sums) in self.totals.iter().zip(self.sums.chunks_exact_mut(head_size)) {
            sums.iter_mut().for_each(|sum| *sum /= total);
        }
    }
}

impl Head<'_> {
    /// Those of some positions that this head sees, if any.
    fn of(&self, positions: &Range<usize>) -> Option<Range<usize>> {
        let seen = positions.start.max(self.before)..positions.end.min(self.before + self.seen.n_positions);
        (!seen.is_empty()).then_some(seen)
    }
}

lanes::simd! {
    /// Makes weights of the products of a head's query with all keys that it sees, and gives what its sink adds to their total.
    fn weigh(head: &Head<'_>, scores: &mut [f32]) -> f32 {
        for score in scores.iter_mut() {
            *score = or_none(*score * head.seen.scale);
        }
        if let Some(cap) = head.seen.cap {
            for score in scores.iter_mut() {
                *score = exponential::capped(*score, cap);
            }
        }
        if head.seen.is_biased() {
            for (place, score) in scores.iter_mut().enumerate() {
                *score += head.seen.bias.of(place);
            }
        }
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let mut largest = [f32::NEG_INFINITY; 8];
        let (eights, rest) = scores.as_chunks::<8>();
        for eight in eights {
            for (largest, score) in largest.iter_mut().zip(eight) {
                *largest = larger(*largest, *score);
            }
        }
        let sink = head.seen.sink.unwrap_or(f32::NEG_INFINITY);
        let largest = largest.into_iter().chain(rest.iter().copied()).fold(sink, larger);
        for score in scores.iter_mut() {
            *score = exponential::exp(*score - largest);
        }
        head.seen.sink.map_or(0.0, |sink| exponential::exp(sink - largest))
    }
}

lanes::simd! {
    /// Adds to each head's sums the values of a tile of positions, and to its total their weights: position after position.
    fn add(
        heads: &[Head<'_>],
        positions: &Range<usize>,
        weights: &[f32],
        values: &[f32],
        totals: &mut [f32],
        sums: &mut [f32],
    ) {
        let (n_weights, width, head_size) =
            (weights.len() / heads.len(), values.len() / TOGETHER, sums.len() / heads.len());
        let of_heads = heads.iter().zip(weights.chunks_exact(n_weights)).zip(totals);
        for (((head, weights), total), sums) in of_heads.zip(sums.chunks_exact_mut(head_size)) {
            let Some(seen) = head.of(positions) else { continue };
            let values = &values[(seen.start - positions.start) * width..];
            add_to(&weights[seen], values, width, total, sums);
        }
    }
}

/// One head's part, which sees all of the positions.
#[inline(always)]
fn add_to(weights: &[f32], values: &[f32], width: usize, total: &mut f32, sums: &mut [f32]) {
    for weight in weights {
        *total += weight;
    }
    let (kept, rest) = sums.as_chunks_mut::<KEPT>();
    let first_of_rest = kept.len() * KEPT;
    for (part, sums) in kept.iter_mut().enumerate() {
        let mut in_registers = *sums;
        for (weight, values) in weights.iter().zip(values.chunks_exact(width)) {
            let values = &values.as_chunks::<KEPT>().0[part];
            for (sum, value) in in_registers.iter_mut().zip(values) {
                *sum += weight * value;
            }
        }
        *sums = in_registers;
    }
    for (weight, values) in weights.iter().zip(values.chunks_exact(width)) {
        for (sum, value) in rest.iter_mut().zip(&values[first_of_rest..]) {
            *sum += weight * value;
        }
    }
}
