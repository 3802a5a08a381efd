//! Products of rows with the experts that each has chosen: those of one expert together, as rows of one product.

use std::collections::BTreeMap;

use super::matmul::{Add, Residual};
use super::{CpuEngine, Run};
use crate::ops::ExpertMatmul;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// The choices by expert.
fn by_expert(chosen: &[f32], n_experts: usize) -> BTreeMap<usize, Vec<usize>> {
    let mut choices: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (choice, expert) in chosen.iter().enumerate() {
        // What no `Route` has written is some expert, too.
        choices.entry((*expert as usize).min(n_experts - 1)).or_default().push(choice);
    }
    choices
}

// === impl Run ===

impl Run for ExpertMatmul {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let weight = engine.matrix(self.weight)?;
            let (n_in, n_out) = (weight.shape.n_cols, weight.shape.n_rows / self.n_experts);
            let (x, chosen) = (engine.buffer(self.x), &engine.buffer(self.chosen)[..self.n_rows * self.n_chosen]);
            let rows_of = |choice: usize| if self.is_apart { choice } else { choice / self.n_chosen };
            for (expert, choices) in by_expert(chosen, self.n_experts) {
                let (part, before) = weight.rows(expert * n_out..(expert + 1) * n_out);
                let n_rows = part.shape.n_rows;
                let rows = choices.iter().map(|choice| &x[rows_of(*choice) * n_in..][..n_in]);
                let rows: Vec<f32> = rows.flatten().copied().collect();
                let bias = self.bias.map(|bias| &engine.vector(bias)[expert * n_out - before..][..n_rows]);
                let mut products = vec![0.0; choices.len() * n_rows];
                engine.multiply(part, &rows, &Add { bias, residual: Residual::None }, &mut products);
                for (choice, product) in choices.into_iter().zip(products.chunks_exact(n_rows)) {
                    out[choice * n_out..][..n_out].copy_from_slice(&product[before..][..n_out]);
                }
            }
            Ok(())
        })
    }
}
