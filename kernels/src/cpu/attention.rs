//! Attention of the step's rows over their slots' caches.

use std::ops::Range;

use super::{Arithmetic, CpuEngine, Products, Run};
use crate::cpu::{kv_row, lanes};
use crate::kv_type::KvType;
use crate::ops::{Attention, PositionBias};
use crate::recording::Row;
use crate::shapes::ShapeError;

pub mod in_order;
mod tile;
pub mod together;

/// Bytes that come from memory at once, and positions that they are asked for before they are read.
const LINE: usize = 64;
const AHEAD: usize = 16;

/// The caches of one layer, each as the op's layout says.
#[derive(Clone, Copy)]
pub struct Caches<'a> {
    /// Words.
    pub k: &'a [u32],
    pub v: &'a [u32],
    /// The op's bias and its sinks: nothing where it has none.
    pub bias: &'a [f32],
    pub sinks: &'a [f32],
}

/// What one head of one row sees: its positions' keys and values.
#[derive(Clone, Copy)]
struct Seen<'a> {
    /// Rows of the caches, from the first position seen.
    k: &'a [u32],
    v: &'a [u32],
    kv_type: KvType,
    /// Words of a row, values of one, and where in it this head begins.
    row_words: usize,
    kv_width: usize,
    first: usize,
    n_positions: usize,
    scale: f32,
    cap: Option<f32>,
    bias: Bias<'a>,
    sink: Option<f32>,
}

/// What raises the scores of one head of one row; `first` is the first position seen less the row's own.
#[derive(Clone, Copy)]
enum Bias<'a> {
    None,
    Slope { slope: f32, first: i64 },
    Distances { table: &'a [f32], n_before: i64, n_after: i64, first: i64 },
}

impl<'a> Seen<'a> {
    fn new(op: &Attention, rows: &[Row], index: usize, caches: Caches<'a>) -> Self {
        Self::of(op, index / op.n_heads, rows[index / op.n_heads], index % op.n_heads, caches)
    }

    /// Of row number `index` of the step.
    fn of(op: &Attention, index: usize, row: Row, head: usize, caches: Caches<'a>) -> Self {
        let positions = op.seen(index, row);
        let first = i64::from(positions.start) - i64::from(row.position);
        let n_positions = positions.len();
        let range = op.layout.range(row.slot, positions);
        let bias = match op.bias {
            None => Bias::None,
            Some(PositionBias::Slopes(_)) => Bias::Slope { slope: caches.bias[head], first },
            Some(PositionBias::Distances { n_before, n_after, .. }) => {
                let n_distances = (n_before + 1 + n_after) as usize;
                let table = &caches.bias[head * n_distances..][..n_distances];
                Bias::Distances { table, n_before: n_before.into(), n_after: n_after.into(), first }
            }
        };
        let kv_head = head / (op.n_heads / op.n_kv_heads) * op.head_size;
        Seen {
            k: &caches.k[range.clone()],
            v: &caches.v[range],
            kv_type: op.layout.kv_type,
            row_words: op.layout.row_words(),
            kv_width: op.layout.kv_width,
            first: kv_head,
            n_positions,
            scale: op.scale,
            cap: op.cap,
            bias,
            sink: op.sinks.map(|_| caches.sinks[head]),
        }
    }

    #[inline(always)]
    fn is_biased(&self) -> bool {
        !matches!(self.bias, Bias::None)
    }

    /// This head's values of some rows of `cache`, `n` wide, to the beginning of as many rows of `room`; those of later rows are asked for, since
    /// between them lie other heads' and no processor foresees that far.
    fn read(&self, cache: &[u32], positions: Range<usize>, n: usize, room: (&mut [f32], usize)) {
        for position in positions.clone() {
            let row = cache.as_ptr().wrapping_add((position + AHEAD) * self.row_words).cast::<u8>();
            let first = row.wrapping_add(self.first * self.kv_type.value_bytes());
            for at in (0..n * self.kv_type.value_bytes()).step_by(LINE) {
                lanes::fetch(first.wrapping_add(at));
            }
        }
        let rows = &cache[positions.start * self.row_words..positions.end * self.row_words];
        kv_row::read(self.kv_type, self.kv_width, rows, self.first..self.first + n, room);
    }

    /// Value `i` of this head in a row of `cache`, as its type is defined.
    fn value(&self, cache: &[u32], position: usize, i: usize) -> f32 {
        let row = &cache[position * self.row_words..][..self.row_words];
        kv_row::value(self.kv_type, self.kv_width, row, self.first + i)
    }
}

impl Bias<'_> {
    /// For position number `index` of those seen.
    #[inline(always)]
    fn of(&self, index: usize) -> f32 {
        match *self {
            Bias::None => 0.0,
            Bias::Slope { slope, first } => slope * (first + index as i64) as f32,
            Bias::Distances { table, n_before, n_after, first } => {
                table[((first + index as i64).clamp(-n_before, n_after) + n_before) as usize]
            }
        }
    }
}

/// A score that is infinite is no number: a key that was kept as infinite says nothing of how near it is, and what comes of it is no number either.
#[inline(always)]
fn or_none(score: f32) -> f32 {
    if score.is_finite() { score } else { f32::NAN }
}

/// As [`Attention`] says; `q` and `out` are `[rows][n_heads][head_size]`.
pub fn reference(op: &Attention, rows: &[Row], q: &[f32], caches: Caches<'_>, out: &mut [f32]) {
    let heads = q.chunks_exact(op.head_size).zip(out.chunks_exact_mut(op.head_size));
    for (index, (q, out)) in heads.enumerate().take(rows.len() * op.n_heads) {
        let seen = Seen::new(op, rows, index, caches);
        let scores: Vec<f64> = (0..seen.n_positions)
            .map(|p| {
                let key = |i| f64::from(seen.value(seen.k, p, i));
                let dot: f64 = q.iter().enumerate().map(|(i, q)| f64::from(*q) * key(i)).sum();
                let score = dot * f64::from(op.scale);
                let score = if score.is_finite() { score } else { f64::NAN };
                let score = op.cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh());
                score + f64::from(seen.bias.of(p))
            })
            .collect();
        let sink = seen.sink.map(f64::from);
        let largest = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - largest).exp());
        for (i, out) in out.iter_mut().enumerate() {
            let value = |p| f64::from(seen.value(seen.v, p, i));
            let sum: f64 = (0..seen.n_positions).map(|p| weights[p] * value(p)).sum();
            *out = (sum / total) as f32;
        }
    }
}

// === impl Run ===

impl Run for Attention {
    fn run(&self, engine: &mut CpuEngine, rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let bias = match self.bias {
                None => &[],
                Some(PositionBias::Slopes(vector) | PositionBias::Distances { table: vector, .. }) => {
                    engine.vector(vector)
                }
            };
            let [k, v] = [self.k_cache, self.v_cache].map(|cache| bytemuck::cast_slice(engine.buffer(cache)));
            let sinks = self.sinks.map_or(&[][..], |sinks| engine.vector(sinks));
            let caches = Caches { k, v, bias, sinks };
            let q = engine.buffer(self.q);
            let out = &mut out[..rows.len() * self.n_heads * self.head_size];
            match &engine.arithmetic {
                Arithmetic::Reference => reference(self, rows, q, caches, out),
                Arithmetic::Fast(_, Products::Defined(order)) => in_order::in_order(*order, self, rows, q, caches, out),
                Arithmetic::Fast(crew, _) => together::fast(self, rows, q, caches, out, crew),
            }
        });
        Ok(())
    }
}
