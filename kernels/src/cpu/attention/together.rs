//! Attention at speed: heads that share keys and values, and rows of a slot that follow each other, read each position once.
//!
//! Every sum has the order of one head of one row alone, so nothing of this shows in the bits.

use std::ops::Range;

use super::tile::{Head, Room};
use super::{Caches, Seen};
use crate::cpu::crew::Crew;
use crate::ops::Attention;
use crate::recording::Row;

/// Rows that read together at most, scores that are kept of them, and positions that one of them may be away from the next: what all of them see is hardly more
/// than what one does.
const MAX_ROWS: usize = 8;
const MAX_SCORES: usize = 1 << 16;
const NEAR: u32 = 16;

/// What is asked of a step.
#[derive(Clone, Copy)]
struct Asked<'a> {
    op: &'a Attention,
    rows: &'a [Row],
    q: &'a [f32],
    caches: Caches<'a>,
}

/// As [`super::reference`], in f32; positions are added from the first seen upward, whatever else is in the step.
pub fn fast(op: &Attention, rows: &[Row], q: &[f32], caches: Caches<'_>, out: &mut [f32], crew: &Crew) {
    let asked = Asked { op, rows, q, caches };
    let (n_threads, width) = (crew.n_threads(), asked.heads_a_group() * op.head_size);
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
    crew.each(work, out.chunks_mut(size).enumerate(), Room::default, part);
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
            room.attend(&heads, Seen { k, v, n_positions: all.len(), ..heads[0].seen });
            let of_rows = room.sums().chunks_exact(n_heads * op.head_size);
            these.zip(of_rows).for_each(|(row, sums)| put(row - rows.start, sums));
            first += of_slot.len();
        }
    }
}

/// Whether two rows see much the same of one slot.
fn are_near(a: &Row, b: &Row) -> bool {
    a.slot == b.slot && a.position.abs_diff(b.position) <= NEAR
}
