//! The oracle of the class: from the blocks of the file, scalar and as plain as the definition.

use super::Add;
use crate::blocks::Block;
use crate::canonical::exponent;
use crate::cpu::order::Order;
use crate::cpu::{Matrix, quantise_rows};
use crate::packing::{Codes, GROUP, Scales};

/// As the definition above says; in the order of GPUs blocks are added by eights. `out[r][o]`; `x` is `[rows][n_in]`, `out` `[rows][n_out]`. The matrix lies as in its file.
pub fn reference(
    order: Order,
    weight: Matrix<'_>,
    packing: (Codes, Scales),
    x: &[f32],
    add: &Add<'_>,
    out: &mut [f32],
) {
    let (n_out, n_in) = (weight.shape.n_rows, weight.shape.n_cols);
    let (codes, scales) = packing;
    let (n_values, n_bytes) = weight.shape.weight_type.block();
    let row_bytes = n_in / n_values * n_bytes;
    let rows: Vec<_> = x.chunks_exact(n_in).map(quantise_rows::reference).collect();
    for o in 0..n_out {
        let mut sums: Vec<_> = rows.iter().map(|_| order.of_groups()).collect();
        let mut block = Block::default();
        for (index, bytes) in weight.bytes[o * row_bytes..(o + 1) * row_bytes].chunks_exact(n_bytes).enumerate() {
            weight.shape.weight_type.take_apart(bytes, &mut block);
            let scale = match scales {
                Scales::Exponent => exponent(block.scale as u8),
                _ => half::f16::from_bits(block.scale).to_f32(),
            };
            let minimum = half::f16::from_bits(block.minimum).to_f32();
            let minimum = if scales.has_factors() { -minimum } else { minimum };
            for group in 0..n_values / GROUP {
                for (row, sum) in rows.iter().zip(&mut sums) {
                    let activations = &row[index * n_values / GROUP + group];
                    let (mut s, mut m) = (0i64, 0i64);
                    for (i, q) in activations.q.into_iter().enumerate() {
                        let place = if scales.has_halves() { 2 * group + i / 16 } else { group };
                        let factors = (i64::from(block.factors[place]), i64::from(block.minimum_factors[place]));
                        let (f, g) = if scales.has_factors() { factors } else { (1, 1) };
                        s += f * i64::from(codes.integer(block.codes[group * GROUP + i])) * i64::from(q);
                        m += g * i64::from(q);
                    }
                    let mut term = scale * s as f32;
                    if scales.has_minimum() {
                        term += minimum * m as f32;
                    }
                    sum.add(activations.d * term);
                }
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            let index = r * n_out + o;
            let (bias, residual) = add.terms(index, n_out, out[index]);
            out[index] = sum.all() + bias + residual;
        }
    }
}
