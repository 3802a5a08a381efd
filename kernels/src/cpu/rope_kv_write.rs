//! Rotary positions and the KV write in one, for one of the three parts of a row.

use crate::cpu::rope::{self, Heads};
use crate::ops::RopeKvWrite;
use crate::recording::Row;

/// The part of `qkv` that is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Queries,
    Keys,
    Values,
}

/// As [`RopeKvWrite`] says, for one part: `to` is `q`, or the cache of the part. `angles` is `[rows][n_rotated / 2][cos, sin]`, or nothing without a
/// turn.
pub fn reference(op: &RopeKvWrite, rows: &[Row], qkv: &[f32], angles: &[f32], part: Part, to: &mut [f32]) {
    write(op, rows, qkv, angles, part, to, rope::reference);
}

/// As [`reference()`], in f32.
pub fn fast(op: &RopeKvWrite, rows: &[Row], qkv: &[f32], angles: &[f32], part: Part, to: &mut [f32]) {
    write(op, rows, qkv, angles, part, to, rope::fast);
}

fn write(
    op: &RopeKvWrite,
    rows: &[Row],
    qkv: &[f32],
    angles: &[f32],
    part: Part,
    to: &mut [f32],
    turn: fn(&mut [f32], &[f32], Heads),
) {
    let (q_width, kv_width) = (op.n_heads * op.head_size, op.layout.kv_width);
    let heads = op.turn.as_ref().map(|turn| Heads::new(op.head_size, turn));
    let qkv = qkv.chunks_exact(q_width + 2 * kv_width);
    for (r, (row, qkv)) in rows.iter().zip(qkv).enumerate() {
        let cached = op.layout.range(row.slot, row.position..row.position + 1);
        let (from, to) = match part {
            Part::Queries => (&qkv[..q_width], &mut to[r * q_width..(r + 1) * q_width]),
            Part::Keys => (&qkv[q_width..q_width + kv_width], &mut to[cached]),
            Part::Values => (&qkv[q_width + kv_width..], &mut to[cached]),
        };
        to.copy_from_slice(from);
        if let (Some(heads), Part::Queries | Part::Keys) = (heads, part) {
            turn(to, &angles[r * heads.n_rotated..(r + 1) * heads.n_rotated], heads);
        }
    }
}
