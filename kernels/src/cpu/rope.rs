//! Rotary position embedding of one token's row.

use std::sync::Arc;

use super::{CpuEngine, Run};
use crate::ops::{Rope, RopeStyle, Turn};
use crate::recording::Row;
use crate::shapes::ShapeError;

/// How the heads of a row are turned.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub head_size: usize,
    pub n_rotated: usize,
    pub style: RopeStyle,
}

impl Heads {
    pub fn new(head_size: usize, turn: &Turn) -> Self {
        Self { head_size, n_rotated: turn.n_rotated(), style: turn.style }
    }

    /// The places in a head of the two values of pair i.
    fn pair(self, i: usize) -> (usize, usize) {
        match self.style {
            RopeStyle::Pairs => (2 * i, 2 * i + 1),
            RopeStyle::Halves => (i, i + self.n_rotated / 2),
        }
    }
}

/// Turns every head of `row` (`[n_heads][head_size]`) by `angles` (`[n_rotated / 2][cos, sin]`).
pub fn reference(row: &mut [f32], angles: &[f32], heads: Heads) {
    for head in row.chunks_exact_mut(heads.head_size) {
        for (i, angle) in angles.chunks_exact(2).enumerate() {
            let (cos, sin) = (f64::from(angle[0]), f64::from(angle[1]));
            let (first, second) = heads.pair(i);
            let (a, b) = (f64::from(head[first]), f64::from(head[second]));
            head[first] = (a * cos - b * sin) as f32;
            head[second] = (a * sin + b * cos) as f32;
        }
    }
}

/// As [`reference()`], in f32.
pub fn fast(row: &mut [f32], angles: &[f32], heads: Heads) {
    for head in row.chunks_exact_mut(heads.head_size) {
        for (i, angle) in angles.chunks_exact(2).enumerate() {
            let (cos, sin) = (angle[0], angle[1]);
            let (first, second) = heads.pair(i);
            let (a, b) = (head[first], head[second]);
            head[first] = a * cos - b * sin;
            head[second] = a * sin + b * cos;
        }
    }
}

// === impl CpuEngine ===

impl CpuEngine {
    /// The angles of a turn, computed once in a run for all layers alike.
    pub(super) fn angles(&mut self, turn: &Turn, rows: &[Row]) -> Arc<[f32]> {
        if let Some((_, angles)) = self.angles.iter().find(|(known, _)| known == turn) {
            return angles.clone();
        }
        let angles: Arc<[f32]> = turn.angles(rows).into();
        self.angles.push((turn.clone(), angles.clone()));
        angles
    }
}

// === impl Run ===

impl Run for Rope {
    fn run(&self, engine: &mut CpuEngine, rows: &[Row]) -> Result<(), ShapeError> {
        let angles = engine.angles(&self.turn, rows);
        engine.update(self.x, |engine, x| {
            let width = self.n_heads * self.head_size;
            let heads = Heads::new(self.head_size, &self.turn);
            let kernel = if engine.is_reference() { reference } else { fast };
            for (row, angles) in x.chunks_exact_mut(width).zip(angles.chunks_exact(self.turn.n_rotated())) {
                kernel(row, angles, heads);
            }
        });
        Ok(())
    }
}
