//! Matrix times rows, dequantised on the fly.

mod floats;
pub mod int8;
mod quantised;
mod row_scales;

use super::{Arithmetic, CpuEngine, Products, Run};
use crate::cpu::Matrix;
use crate::cpu::crew::Crew;
use crate::cpu::matrix::STRIP;
use crate::cpu::order::Order;
use crate::ops::Matmul;
use crate::packing::Packing;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// What is added to the product.
pub struct Add<'a> {
    /// `[n_out]`.
    pub bias: Option<&'a [f32]>,
    pub residual: Residual<'a>,
}

/// Nothing is added.
pub(super) const NOTHING: Add<'static> = Add { bias: None, residual: Residual::None };

/// Rows added last.
pub enum Residual<'a> {
    None,
    /// What `out` held before.
    Out,
    /// `[rows][n_out]` and maybe more.
    Rows(&'a [f32]),
}

impl Add<'_> {
    /// Bias and residual of place `index` of `out`, whose value before was `before`.
    #[inline(always)]
    fn terms(&self, index: usize, n_out: usize, before: f32) -> (f32, f32) {
        let bias = self.bias.map_or(0.0, |bias| bias[index % n_out]);
        let residual = match self.residual {
            Residual::None => 0.0,
            Residual::Out => before,
            Residual::Rows(rows) => rows[index],
        };
        (bias, residual)
    }

    /// Adds to all products of row number `row`.
    fn apply(&self, row: usize, products: &[f32], out: &mut [f32]) {
        let n_out = out.len();
        // A loop each, so that none asks anything of each value.
        match (self.bias, &self.residual) {
            (None, Residual::None) => sums(products, out, |_| 0.0, |_, _| 0.0),
            (None, Residual::Out) => sums(products, out, |_| 0.0, |_, before| before),
            (None, Residual::Rows(rows)) => {
                let residual = &rows[row * n_out..][..n_out];
                sums(products, out, |_| 0.0, |at, _| residual[at]);
            }
            (Some(bias), Residual::None) => sums(products, out, |at| bias[at], |_, _| 0.0),
            (Some(bias), Residual::Out) => sums(products, out, |at| bias[at], |_, before| before),
            (Some(bias), Residual::Rows(rows)) => {
                let residual = &rows[row * n_out..][..n_out];
                sums(products, out, |at| bias[at], |at, _| residual[at]);
            }
        }
    }
}

/// `out = product + bias + residual`, the latter of a place and what was there.
#[inline(always)]
fn sums(products: &[f32], out: &mut [f32], bias: impl Fn(usize) -> f32, residual: impl Fn(usize, f32) -> f32) {
    for (at, (out, product)) in out.iter_mut().zip(products).enumerate() {
        *out = product + bias(at) + residual(at, *out);
    }
}

/// `out[r][o] = Σᵢ weight[o][i] · x[r][i] + bias[o] + residual[r][o]`; `x` is `[rows][n_in]`, `out` `[rows][n_out]`.
pub fn reference(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32]) {
    let (n_out, n_in) = (weight.shape.n_rows, weight.shape.n_cols);
    let mut values = vec![0.0; n_in];
    for o in 0..n_out {
        weight.values(o, &mut values);
        for (r, x) in x.chunks_exact(n_in).enumerate() {
            let product: f64 = values.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let index = r * n_out + o;
            let (bias, residual) = add.terms(index, n_out, out[index]);
            out[index] = (product + f64::from(bias) + f64::from(residual)) as f32;
        }
    }
}

/// As [`reference()`], in f32, each product's sum in an order.
pub fn in_order(order: Order, weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32]) {
    let (n_out, n_in) = (weight.shape.n_rows, weight.shape.n_cols);
    let mut values = vec![0.0; n_in];
    for o in 0..n_out {
        weight.values(o, &mut values);
        for (r, x) in x.chunks_exact(n_in).enumerate() {
            let index = r * n_out + o;
            let (bias, residual) = add.terms(index, n_out, out[index]);
            out[index] = order.product(&values, x) + bias + residual;
        }
    }
}

/// As [`reference()`], in f32. Every output is one sum of 16 lanes over the columns, however many rows and threads there are.
pub fn fast(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32], crew: &Crew) {
    match weight.shape.weight_type.packing() {
        Packing::F32 => floats::multiply::<floats::F32>(weight, x, add, out, crew),
        Packing::F16 => floats::multiply::<floats::F16>(weight, x, add, out, crew),
        Packing::Bf16 => floats::multiply::<floats::Bf16>(weight, x, add, out, crew),
        Packing::Quantised(codes, scales) => quantised::multiply(weight, (codes, scales), x, add, out, crew),
    }
}

/// Products of all of a matrix's rows with `n_rows` rows of activations, cut into pieces for the crew; `products` makes
/// those of some of the matrix's strips as `[strip][row][output]`.
fn spread(
    weight: Matrix<'_>,
    n_rows: usize,
    add: &Add<'_>,
    out: &mut [f32],
    crew: &Crew,
    products: impl Fn(&[u8], &mut [f32]) + Sync + Send,
) {
    let (n_out, n_in, strip) = (weight.shape.n_rows, weight.shape.n_cols, weight.form.strip());
    let n_strips = n_out.div_ceil(strip);
    let strip_bytes = weight.bytes.len() / n_strips;
    // Outputs of a piece of work: enough that a hand-over to another thread does not show, and strips in pairs, which may be taken at once.
    let piece = (1usize << 16).div_ceil(n_in * n_rows).clamp(8, n_out.max(8)).next_multiple_of(2 * strip);
    // What one thread writes lies together.
    let mut by_strips = vec![0.0; n_strips * strip * n_rows];
    let size = n_out * n_in * n_rows;
    if crew.n_threads() == 1 || n_out <= piece {
        products(weight.bytes, &mut by_strips);
    } else {
        let strips = weight.bytes.chunks(piece / strip * strip_bytes);
        let pieces = strips.zip(by_strips.chunks_mut(piece * n_rows));
        crew.each(size, pieces, || (), |(), (strips, out)| products(strips, out));
    }
    if n_rows == 1 {
        return add.apply(0, &by_strips, out);
    }
    let room = || vec![0.0; n_strips * strip];
    crew.each(n_out * n_rows, out.chunks_exact_mut(n_out).enumerate(), room, |of_row, (row, out)| {
        match strip {
            STRIP => gather::<STRIP>(&by_strips, (row, n_rows), of_row),
            _ => gather::<1>(&by_strips, (row, n_rows), of_row),
        }
        add.apply(row, of_row, out);
    });
}

/// One row's products, of `[strip][row][output]` with `N` outputs a strip.
fn gather<const N: usize>(by_strips: &[f32], (row, n_rows): (usize, usize), of_row: &mut [f32]) {
    let of_strips = by_strips.as_chunks::<N>().0.chunks_exact(n_rows);
    for (to, strip) in of_row.as_chunks_mut::<N>().0.iter_mut().zip(of_strips) {
        *to = strip[row];
    }
}

// === impl CpuEngine ===

impl CpuEngine {
    /// In the engine's arithmetic.
    pub(super) fn multiply(&self, weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32]) {
        match (&self.arithmetic, weight.shape.weight_type.packing().quantised()) {
            (Arithmetic::Reference, _) => reference(weight, x, add, out),
            (Arithmetic::Fast(crew, Products::Int8), Some(packing)) => {
                int8::fast(weight, packing, x, add, out, crew);
            }
            (Arithmetic::Fast(_, Products::Defined(order)), Some(packing)) => {
                int8::reference(*order, weight, packing, x, add, out);
            }
            (Arithmetic::Fast(_, Products::Defined(order)), None) => in_order(*order, weight, x, add, out),
            (Arithmetic::Fast(crew, _), _) => fast(weight, x, add, out, crew),
        }
    }
}

// === impl Run ===

impl Run for Matmul {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let weight = engine.matrix(self.weight)?;
            let first = self.first_row * weight.shape.n_cols;
            let x = &engine.buffer(self.x)[first..first + self.n_rows * weight.shape.n_cols];
            let out = &mut out[..self.n_rows * weight.shape.n_rows];
            let add = Add {
                bias: self.bias.map(|bias| engine.vector(bias)),
                residual: match self.residual {
                    None => Residual::None,
                    Some(residual) if residual == self.out => Residual::Out,
                    Some(residual) => Residual::Rows(engine.buffer(residual)),
                },
            };
            engine.multiply(weight, x, &add, out);
            Ok(())
        })
    }
}
