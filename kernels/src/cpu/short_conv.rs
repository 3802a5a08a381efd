//! A short causal convolution of every channel over its slot's cache, gated.

use super::{CpuEngine, Run};
use crate::ops::ShortConv;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// As [`ShortConv`] says; `x` is `[rows][3][width]`, `taps` `[width][n_taps]`, `out` `[rows][width]`.
pub fn reference(op: &ShortConv, rows: &[Row], x: &[f32], taps: &[f32], cache: &[f32], out: &mut [f32]) {
    each(op, rows, x, out, |channel, first, n_seen, gate| {
        let product = |t: usize| {
            let (tap, at) = place(op, channel, first, n_seen, t);
            f64::from(taps[tap]) * f64::from(cache[at])
        };
        ((0..n_seen).map(product).sum::<f64>() * f64::from(gate)) as f32
    });
}

/// As [`reference()`], in f32, from the first tap to the last.
pub fn fast(op: &ShortConv, rows: &[Row], x: &[f32], taps: &[f32], cache: &[f32], out: &mut [f32]) {
    each(op, rows, x, out, |channel, first, n_seen, gate| {
        let mut sum = 0.0;
        for t in 0..n_seen {
            let (tap, at) = place(op, channel, first, n_seen, t);
            sum += taps[tap] * cache[at];
        }
        sum * gate
    });
}

/// Calls `value` with each channel, the place in the cache of the first position that its row sees, how many it sees, and its gate.
fn each(op: &ShortConv, rows: &[Row], x: &[f32], out: &mut [f32], value: impl Fn(usize, usize, usize, f32) -> f32) {
    let width = op.layout.kv_width;
    let inputs = x.chunks_exact(3 * width).zip(out.chunks_exact_mut(width));
    for (row, (x, out)) in rows.iter().zip(inputs) {
        let end = row.position + 1;
        let seen = end.saturating_sub(op.n_taps as u32)..end;
        let n_seen = seen.len();
        let first = op.layout.range(row.slot, seen).start;
        for (channel, (out, gate)) in out.iter_mut().zip(&x[width..2 * width]).enumerate() {
            *out = value(channel, first, n_seen, *gate);
        }
    }
}

/// The places of a tap and of what it is on: number `t` of the `n_seen` taps that are on a position.
fn place(op: &ShortConv, channel: usize, first: usize, n_seen: usize, t: usize) -> (usize, usize) {
    ((channel + 1) * op.n_taps - n_seen + t, first + t * op.layout.kv_width + channel)
}

// === impl Run ===

impl Run for ShortConv {
    fn run(&self, engine: &mut CpuEngine, rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let kernel = if engine.is_reference() { reference } else { fast };
            kernel(self, rows, engine.buffer(self.x), engine.vector(self.taps), engine.buffer(self.cache), out);
        });
        Ok(())
    }
}
