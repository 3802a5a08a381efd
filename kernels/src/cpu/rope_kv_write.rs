//! Rotary positions and the KV write in one, for one of the three parts of a row.

use super::{Arithmetic, CpuEngine, Products, Run};
use crate::cpu::kv_row;
use crate::cpu::rope::{self, Heads};
use crate::kv_type::KvType;
use crate::ops::RopeKvWrite;
use crate::recording::Row;
use crate::shapes::ShapeError;

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
    write(op, rows, qkv, angles, part, to, (rope::reference, kv_row::reference));
}

/// As [`reference()`], in f32.
pub fn fast(op: &RopeKvWrite, rows: &[Row], qkv: &[f32], angles: &[f32], part: Part, to: &mut [f32]) {
    write(op, rows, qkv, angles, part, to, (rope::fast, kv_row::fast));
}

/// As [`fast`], bit for bit; what is kept is kept as its type is defined.
pub fn fast_kept_as_defined(op: &RopeKvWrite, rows: &[Row], qkv: &[f32], angles: &[f32], part: Part, to: &mut [f32]) {
    write(op, rows, qkv, angles, part, to, (rope::fast, kv_row::reference));
}

/// Turns a row; keeps one in a cache's type.
type Kernels = (fn(&mut [f32], &[f32], Heads), fn(KvType, &[f32], &mut [u32]));

fn write(
    op: &RopeKvWrite,
    rows: &[Row],
    qkv: &[f32],
    angles: &[f32],
    part: Part,
    to: &mut [f32],
    (turn, keep): Kernels,
) {
    let (q_width, kv_width) = (op.n_heads * op.head_size, op.layout.kv_width);
    let heads = op.turn.as_ref().map(|turn| Heads::new(op.head_size, turn));
    let turn_row = |r: usize, row: &mut [f32]| {
        if let Some(heads) = heads {
            turn(row, &angles[r * heads.n_rotated..(r + 1) * heads.n_rotated], heads);
        }
    };
    let mut keys = vec![0.0; if part == Part::Keys { kv_width } else { 0 }];
    let qkv = qkv.chunks_exact(q_width + 2 * kv_width);
    for (r, (row, qkv)) in rows.iter().zip(qkv).enumerate() {
        let cached = op.layout.range(row.slot, row.position..row.position + 1);
        match part {
            Part::Queries => {
                let to = &mut to[r * q_width..(r + 1) * q_width];
                to.copy_from_slice(&qkv[..q_width]);
                turn_row(r, to);
            }
            Part::Keys => {
                keys.copy_from_slice(&qkv[q_width..q_width + kv_width]);
                turn_row(r, &mut keys);
                keep(op.layout.kv_type, &keys, bytemuck::cast_slice_mut(&mut to[cached]));
            }
            Part::Values => {
                keep(op.layout.kv_type, &qkv[q_width + kv_width..], bytemuck::cast_slice_mut(&mut to[cached]));
            }
        }
    }
}

// === impl Run ===

impl Run for RopeKvWrite {
    fn run(&self, engine: &mut CpuEngine, rows: &[Row]) -> Result<(), ShapeError> {
        let angles = self.turn.as_ref().map(|turn| engine.angles(turn, rows));
        let angles = angles.as_deref().unwrap_or_default();
        for (part, to) in [(Part::Queries, self.q), (Part::Keys, self.k_cache), (Part::Values, self.v_cache)] {
            engine.update(to, |engine, to| {
                let kernel = match engine.arithmetic {
                    Arithmetic::Reference => reference,
                    Arithmetic::Fast(_, Products::Defined(_)) => fast_kept_as_defined,
                    Arithmetic::Fast(..) => fast,
                };
                kernel(self, rows, engine.buffer(self.qkv), angles, part, to);
            });
        }
        Ok(())
    }
}
