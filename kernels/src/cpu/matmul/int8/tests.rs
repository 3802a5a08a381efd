//! Tests of products of 8 bits: every way of every processor gives the oracle's bits.

use super::*;
use crate::canonical::{all, sample, strips};
use crate::cpu::matrix::{Form, WORD};
use crate::cpu::order::Order;
use crate::shapes::MatrixShape;
use crate::weight_type::WeightType;

/// Three strips, the last of them not full: two of them may be taken at a time.
const N_OUTPUTS: usize = 21;

/// Rows of activations, so many that they are taken at once in every way, with blocks that are large, small and nothing but zeros.
fn rows_of_activations(n_cols: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 37 % 255) as f32 - 127.0) * [1.0, 3e-3, 0.0, -0.7][i / 32 % 4];
    (1..=13).flat_map(|step| (0..n_cols).map(move |i| value(i * step + i / 3))).collect()
}

#[test]
fn every_way_gives_the_bits_of_the_oracle_beside_any_rows() {
    for weight_type in WeightType::ALL {
        let Some((codes, scales)) = weight_type.packing().quantised() else { continue };
        for n_cols in [1, 3, 10].map(|n: usize| (n * GROUP).next_multiple_of(weight_type.block().0)) {
            let shape = MatrixShape { weight_type, n_rows: N_OUTPUTS, n_cols };
            let layout = shape.layout(WORD);
            let (ggml, x) = (sample::matrix(weight_type, N_OUTPUTS, n_cols), rows_of_activations(n_cols));
            let n_rows = x.len() / n_cols;
            let mut expected = vec![0.0; N_OUTPUTS * n_rows];
            let file = Matrix { shape, form: Form::File, layout, bytes: &ggml };
            let nothing = Add { bias: None, residual: super::super::Residual::None };
            reference(Order::Processor, file, (codes, scales), &x, &nothing, &mut expected);
            assert!(expected.iter().all(|value| value.is_finite()) && expected.iter().any(|value| *value != 0.0));

            let strips = strips(shape, all(shape, &ggml), &ggml, WORD, STRIP).expect("they are in memory");
            let matrix = Packed { codes, scales, layout };
            let crew = Crew::new(2).expect("a second thread");
            for (name, kernel) in every_products() {
                for n in [1, 4, n_rows] {
                    for (first, x) in x.chunks(n * n_cols).enumerate() {
                        let (x, n_rows) = (Activations::blocks(x, n_cols, &crew), x.len() / n_cols);
                        let mut out = vec![9.0; N_OUTPUTS.next_multiple_of(STRIP) * n_rows];
                        // SAFETY: only those are listed whose features this processor has.
                        unsafe { kernel(&matrix, &strips, &x, &mut out) };
                        for (at, found) in out.iter().enumerate() {
                            let (row, o) = (at / STRIP % n_rows, at / STRIP / n_rows * STRIP + at % STRIP);
                            if o >= N_OUTPUTS {
                                continue;
                            }
                            let r = first * n + row;
                            let expected = expected[r * N_OUTPUTS + o];
                            let same = found.to_bits() == expected.to_bits();
                            assert!(same, "{name}, {weight_type:?}: {found} instead of {expected} for {o}, row {r}");
                        }
                    }
                }
            }
        }
    }
}
