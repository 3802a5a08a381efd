//! Attention at speed: heads that share keys and values, and rows of a slot that follow each other, read each position once.
//!
//! Every sum has the order of one head of one row alone, so nothing of this shows in the bits.

use std::ops::Range;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::{Caches, Seen, or_none};
use crate::cpu::{exponential, lanes};
use crate::ops::Attention;
use crate::ops::attention::MAX_HEAD_SIZE;
use crate::recording::Row;

/// Rows that read together at most, scores that are kept of them, and positions that one of them may be away from the next: what all of them see is hardly more
/// than what one does.
const MAX_ROWS: usize = 8;
const MAX_SCORES: usize = 1 << 16;
const NEAR: u32 = 16;
/// Below this a hand-over to other threads costs more than it saves (about 20 µs of work).
const LEAST_WORK: usize = 1 << 16;

/// What is asked of a step.
#[derive(Clone, Copy)]
struct Asked<'a> {
    op: &'a Attention,
    rows: &'a [Row],
    q: &'a [f32],
    caches: Caches<'a>,
}

/// One head of one row.
struct Head<'a> {
    seen: Seen<'a>,
    q: &'a [f32],
    /// Its first position, counted from the first that any of those beside it sees.
    before: usize,
}

/// What a thread keeps from one part to the next.
#[derive(Default)]
struct Room {
    /// `[head][position]`.
    scores: Vec<f32>,
    /// `[head]`.
    totals: Vec<f32>,
    /// `[head][head_size]`.
    sums: Vec<f32>,
}

/// As [`super::reference`], in f32; positions are added from the first seen upward, whatever else is in the step.
pub fn fast(op: &Attention, rows: &[Row], q: &[f32], caches: Caches<'_>, out: &mut [f32], pool: &ThreadPool) {
    let asked = Asked { op, rows, q, caches };
    let (n_threads, width) = (pool.current_num_threads(), asked.heads_a_group() * op.head_size);
    let out = &mut out[..rows.len() * op.n_heads * op.head_size];
    let seen = |(index, row): (usize, &Row)| op.seen(index, *row).len();
    let most = rows.iter().enumerate().map(seen).max().unwrap_or(0) * asked.heads_a_group();
    let n_together = (MAX_SCORES / most.max(1)).min(rows.len() / n_threads).clamp(1, MAX_ROWS);
    // Of a row alone, so many of a group that every thread has some: there may be no other row.
    let is_enough = |n: &usize| asked.heads_a_group().is_multiple_of(*n) && rows.len() * op.n_heads / n >= n_threads;
    let n_heads = (1..=asked.heads_a_group()).rev().find(is_enough).unwrap_or(1);
    let part = |room: &mut Room, (index, out): (usize, &mut [f32])| match n_together {
        1 => {
            let (row, head) = (index * n_heads / op.n_heads, index * n_heads % op.n_heads);
            asked.attend(row..row + 1, head..head + n_heads, room, |_, sums| out.copy_from_slice(sums));
        }
        n => {
            for group in 0..op.n_kv_heads {
                let heads = group * asked.heads_a_group()..(group + 1) * asked.heads_a_group();
                asked.attend(index * n..rows.len().min((index + 1) * n), heads, room, |row, sums| {
                    out[(row * op.n_kv_heads + group) * width..][..width].copy_from_slice(sums);
                });
            }
        }
    };
    let size = if n_together == 1 { n_heads * op.head_size } else { n_together * op.n_kv_heads * width };
    let work = rows.iter().enumerate().map(seen).sum::<usize>() * op.n_heads * op.head_size;
    if n_threads == 1 || work < LEAST_WORK {
        let mut room = Room::default();
        out.chunks_mut(size).enumerate().for_each(|item| part(&mut room, item));
    } else {
        pool.install(|| out.par_chunks_mut(size).enumerate().for_each_init(Room::default, part));
    }
}

// === impl Asked ===

impl Asked<'_> {
    fn heads_a_group(&self) -> usize {
        self.op.n_heads / self.op.n_kv_heads
    }

    /// Heads of one group, of some rows; `put` is told each row's number among them and what comes of its heads.
    fn attend(&self, rows: Range<usize>, heads: Range<usize>, room: &mut Room, mut put: impl FnMut(usize, &[f32])) {
        let op = self.op;
        let mut first = rows.start;
        for of_slot in self.rows[rows.clone()].chunk_by(are_near) {
            let positions = |row: usize| op.seen(row, self.rows[row]);
            let these = first..first + of_slot.len();
            let all = these.clone().map(positions).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
            let all = all.unwrap_or(0..0);
            let head_of = |row: usize, head: usize| {
                let seen = Seen::of(op, row, self.rows[row], head, self.caches);
                let q = &self.q[(row * op.n_heads + head) * op.head_size..][..op.head_size];
                Head { seen, q, before: (positions(row).start - all.start) as usize }
            };
            let n_heads = heads.len();
            let heads: Vec<Head<'_>> = these
                .clone()
                .flat_map(|row| heads.clone().map(move |head| (row, head)))
                .map(|(row, head)| head_of(row, head))
                .collect();
            let range = op.layout.range(of_slot[0].slot, all.clone());
            let (k, v) = (&self.caches.k[range.clone()], &self.caches.v[range]);
            let whole = Seen { k, v, n_positions: all.len(), ..heads[0].seen };
            room.scores.resize(heads.len() * all.len(), 0.0);
            room.totals.resize(heads.len(), 0.0);
            room.sums.resize(heads.len() * op.head_size, 0.0);
            attend(&heads, whole, &mut room.scores, &mut room.totals, &mut room.sums);
            let of_rows = room.sums.chunks_exact(n_heads * op.head_size);
            these.zip(of_rows).for_each(|(row, sums)| put(row - rows.start, sums));
            first += of_slot.len();
        }
    }
}

/// Whether two rows see much the same of one slot.
fn are_near(a: &Row, b: &Row) -> bool {
    a.slot == b.slot && a.position.abs_diff(b.position) <= NEAR
}

// === impl Head ===

impl Head<'_> {
    /// The place of a position among those that this head sees.
    #[inline(always)]
    fn place(&self, position: usize) -> Option<usize> {
        position.checked_sub(self.before).filter(|place| *place < self.seen.n_positions)
    }
}

lanes::simd! {
    /// Heads that share keys and values, which `whole` has of all positions that any of them sees.
    fn attend(heads: &[Head<'_>], whole: Seen<'_>, scores: &mut [f32], totals: &mut [f32], out: &mut [f32]) {
        let head_size = heads[0].q.len();
        let mut room = [0.0; MAX_HEAD_SIZE];
        let room = &mut room[..head_size];
        for position in 0..whole.n_positions {
            let key = whole.head(whole.k, position, room);
            for (head, scores) in heads.iter().zip(scores.chunks_exact_mut(whole.n_positions)) {
                let Some(place) = head.place(position) else { continue };
                let mut score = or_none(lanes::dot(head.q, key) * head.seen.scale);
                if let Some(cap) = head.seen.cap {
                    score = exponential::capped(score, cap);
                }
                if head.seen.is_biased() {
                    score += head.seen.bias.of(place);
                }
                scores[place] = score;
            }
        }
        for ((head, scores), total) in heads.iter().zip(scores.chunks_exact_mut(whole.n_positions)).zip(totals.iter_mut()) {
            let scores = &mut scores[..head.seen.n_positions];
            let mut largest = head.seen.sink.unwrap_or(f32::NEG_INFINITY);
            for score in scores.iter() {
                largest = if *score > largest { *score } else { largest };
            }
            for score in scores.iter_mut() {
                *score = exponential::exp(*score - largest);
            }
            *total = head.seen.sink.map_or(0.0, |sink| exponential::exp(sink - largest));
        }
        out.fill(0.0);
        for position in 0..whole.n_positions {
            let value = whole.head(whole.v, position, room);
            let of_heads = heads.iter().zip(scores.chunks_exact(whole.n_positions)).zip(totals.iter_mut());
            for (((head, scores), total), out) in of_heads.zip(out.chunks_exact_mut(head_size)) {
                let Some(place) = head.place(position) else { continue };
                let weight = scores[place];
                *total += weight;
                for (out, v) in out.iter_mut().zip(value) {
                    *out += weight * v;
                }
            }
        }
        for (total, out) in totals.iter().zip(out.chunks_exact_mut(head_size)) {
            for out in out {
                *out /= total;
            }
        }
    }
}
