//! Activations of 8 bits: near to the oracle on what they become, within their bound of the oracle on what they were.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::cpu::order::Order;
use polyphony_kernels::vulkan::{Lanes, Options, WeightSource};
use polyphony_kernels::{Activation, Arithmetic, Engine, GateUp, Matmul, MatrixId, Recording, RmsNorm, WeightType};

use super::engines::{cpu_int8, vulkan_as, vulkan_with};
use super::random::Random;

/// Types whose matrices meet activations of 8 bits.
fn quantised_types() -> impl Iterator<Item = WeightType> {
    WeightType::ALL.into_iter().filter(|weight_type| weight_type.packing().quantised().is_some())
}

/// The product of a random matrix with these rows.
fn product(engine: &mut dyn Engine, weight_type: WeightType, [n_out, n_in]: [usize; 2], x: &[f32]) -> Vec<f32> {
    let weight = Random(21).matrix(weight_type, n_out, n_in);
    let weight = engine.load_matrix(weight_type, n_out, n_in, &weight).unwrap();
    times(engine, weight, [n_out, n_in], x)
}

/// The product of a matrix with these rows.
fn times(engine: &mut dyn Engine, weight: MatrixId, [n_out, n_in]: [usize; 2], x: &[f32]) -> Vec<f32> {
    let n_rows = x.len() / n_in;
    let (input, out) = (engine.alloc(x.len()).unwrap(), engine.alloc(n_rows * n_out).unwrap());
    let mut recording = Recording::default();
    recording.upload(input, 0, x.to_vec());
    recording.push(Matmul { weight, x: input, first_row: 0, n_rows, bias: None, residual: None, out });
    recording.readback(out, 0..n_rows * n_out);
    engine.run(&recording).unwrap()
}

/// Every engine of this arithmetic, and whose order of sums it has.
fn engines() -> Vec<(Order, Box<dyn Engine>)> {
    let processors = [cpu_int8(1), cpu_int8(3)].map(|engine| (Order::Processor, engine));
    let gpus = vulkan_with(Arithmetic::Int8).into_iter().map(|engine| (Order::Vulkan, engine));
    processors.into_iter().chain(gpus).collect()
}

const SHAPES: [(usize, usize, usize); 5] = [(5, 32, 1), (96, 64, 9), (33, 576, 4), (8200, 96, 2), (4, 11_008, 5)];

/// The oracle of the class.
fn oracle(order: Order) -> CpuEngine {
    CpuEngine::int8_reference(order).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn products_have_the_bits_of_the_oracle_on_every_engine() {
    for weight_type in quantised_types() {
        for (n_out, n_in, n_rows) in SHAPES {
            let n_in = n_in.next_multiple_of(weight_type.block().0);
            let x = Random(22).values(n_in * n_rows);
            let expected = |order: Order| bits(&product(&mut oracle(order), weight_type, [n_out, n_in], &x));
            let expected = [Order::Processor, Order::Vulkan].map(|order| (order, expected(order)));
            for (order, mut engine) in engines() {
                let (_, expected) = expected.iter().find(|(of, _)| *of == order).unwrap();
                let found = bits(&product(engine.as_mut(), weight_type, [n_out, n_in], &x));
                assert!(found == *expected, "{}: {weight_type:?}, {n_out} of {n_in}, {n_rows} rows", engine.device());
            }
        }
    }
}

#[test]
fn products_are_within_their_bound_of_the_exact_ones() {
    for weight_type in quantised_types() {
        let (n_out, n_in) = (64, 768);
        let x = Random(23).values(n_in);
        let found = product(&mut oracle(Order::Processor), weight_type, [n_out, n_in], &x);
        let expected = product(&mut CpuEngine::reference(), weight_type, [n_out, n_in], &x);
        let weights = {
            let ggml = Random(21).matrix(weight_type, n_out, n_in);
            let mut values = vec![0.0; n_out * n_in];
            weight_type.dequantise(&ggml, &mut values);
            values
        };
        for (o, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Each activation is off by at most 1/248 of the largest of its 32.
            let groups = weights[o * n_in..(o + 1) * n_in].chunks(32).zip(x.chunks(32));
            let bound: f32 = groups
                .map(|(w, x)| {
                    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                    w.iter().map(|w| w.abs()).sum::<f32>() * largest / 248.0
                })
                .sum();
            assert!((found - expected).abs() <= bound + 1e-4, "{weight_type:?}: {found}, {expected}, bound {bound}");
        }
    }
}

/// Whether the byte of a block belongs to an f16 or an exponent.
fn is_of_scale(weight_type: WeightType, at: usize) -> bool {
    super::random::scales(weight_type).iter().any(|(scale, _)| (*scale..scale + 2).contains(&at))
        || (weight_type == WeightType::Mxfp4 && at == 0)
}

#[test]
fn rows_that_share_a_lane_or_a_multiplication_have_the_bits_of_rows_apart_even_at_the_ends() {
    let n_out = 9;
    for weight_type in quantised_types() {
        let n_in = 96_usize.next_multiple_of(weight_type.block().0);
        let mut weight = Random(24).matrix(weight_type, n_out, n_in);
        // Rows of the least and of the greatest bytes beside each other, and beside random ones.
        let (_, block_bytes) = weight_type.block();
        let row_bytes = weight.len() / n_out;
        for (row, byte) in [(1, 0xff), (2, 0xff), (3, 0x00), (5, 0xf0), (6, 0x80), (8, 0xff)] {
            for block in weight[row * row_bytes..(row + 1) * row_bytes].chunks_exact_mut(block_bytes) {
                // Where scales lie is as random as before.
                let scales: Vec<u8> =
                    (0..block.len()).map(|at| if is_of_scale(weight_type, at) { block[at] } else { byte }).collect();
                block.copy_from_slice(&scales);
            }
        }
        let alternating = (0..n_in).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 });
        for x in [vec![1.0; n_in], vec![-1.0; n_in], alternating.collect(), Random(25).values(n_in)] {
            // All four rows of activations too.
            let x: Vec<f32> = x.iter().cycle().take(5 * n_in).copied().collect();
            let found = |n_rows| {
                let lanes = Some(Lanes { n_rows, workgroup: 32, n_splits: 1 });
                let options = Options { arithmetic: Arithmetic::Int8, lanes, ..Options::default() };
                let mut engine = vulkan_as(options)?;
                let weight = engine.load_matrix(weight_type, n_out, n_in, &weight).unwrap();
                let bits = times(&mut engine, weight, [n_out, n_in], &x).into_iter().map(f32::to_bits);
                Some(bits.collect::<Vec<u32>>())
            };
            let Some(apart) = found(1) else { return };
            for n_rows in [2, 4] {
                assert_eq!(found(n_rows).as_ref(), Some(&apart), "{weight_type:?}, {n_rows} rows a lane");
            }
        }
    }
}

#[test]
fn no_split_of_columns_and_no_number_of_rows_changes_a_bit() {
    // A block that is not whole, several rounds of a split, and more columns than a window holds.
    for (weight_type, n_in) in [
        (WeightType::Q4_0, 1056),
        (WeightType::Q6K, 2304),
        (WeightType::Mxfp4, 11_008),
        (WeightType::F16, 600),
        (WeightType::F32, 4200),
    ] {
        let n_out = 35;
        let weight = Random(26).matrix(weight_type, n_out, n_in);
        let x = Random(27).values(13 * n_in);
        let mut known: Option<Vec<u32>> = None;
        for (n_rows, n_splits) in [(1, 1), (1, 8), (2, 4), (4, 2)] {
            for is_software in [true, false] {
                let lanes = Some(Lanes { n_rows, workgroup: 64, n_splits });
                let source = Some(WeightSource::Storage);
                let (arithmetic, is_software) = (Arithmetic::Int8, Some(is_software));
                let options = Options { arithmetic, source, lanes, is_software, ..Options::default() };
                let Some(mut engine) = vulkan_as(options) else { return };
                let matrix = engine.load_matrix(weight_type, n_out, n_in, &weight).unwrap();
                // Kernels for one row, for four and for eight.
                for n_activations in [1, 3, 13] {
                    let found = bits(&times(&mut engine, matrix, [n_out, n_in], &x[..n_activations * n_in]));
                    let known = known.get_or_insert_with(|| {
                        let found = times(&mut engine, matrix, [n_out, n_in], &x);
                        bits(&found)
                    });
                    let what =
                        format!("{weight_type:?}, {n_rows} rows a lane, {n_splits} splits, {n_activations} rows");
                    assert!(found == known[..found.len()], "{what}");
                }
            }
        }
    }
}

#[test]
fn zeros_and_tiny_values_give_zero() {
    for (_, mut engine) in engines() {
        for value in [0.0, 1e-35] {
            let found = product(engine.as_mut(), WeightType::Q4_1, [8, 64], &[value; 64]);
            assert_eq!(found, [0.0; 8]);
        }
    }
}

#[test]
fn a_norm_hands_on_the_activations_that_an_op_of_its_own_would_make() {
    for (_, mut engine) in engines() {
        let (width, n_rows) = (96, 5);
        let mut random = Random(31);
        let weight = random.matrix(WeightType::Q4_0, 64, width);
        let weight = engine.load_matrix(WeightType::Q4_0, 64, width, &weight).unwrap();
        let norm = engine.load_vector(&random.values(width)).unwrap();
        let [x, normed, copy] = [0; 3].map(|_| engine.alloc(n_rows * width).unwrap());
        let [out, out_copy] = [0; 2].map(|_| engine.alloc(n_rows * 32).unwrap());
        let mut recording = Recording::default();
        recording.upload(x, 0, random.values(n_rows * width));
        recording.push(RmsNorm { x, first_row: 0, weight: norm, eps: 1e-5, width, n_rows, out: normed });
        recording.push(GateUp { function: Activation::Silu, weight, x: normed, n_rows, out });
        recording.readback(normed, 0..n_rows * width);
        recording.readback(out, 0..n_rows * 32);
        let mut found = engine.run(&recording).unwrap();
        let fused = found.split_off(n_rows * width);
        let mut recording = Recording::default();
        recording.upload(copy, 0, found);
        recording.push(GateUp { function: Activation::Silu, weight, x: copy, n_rows, out: out_copy });
        recording.readback(out_copy, 0..n_rows * 32);
        assert_eq!(engine.run(&recording).unwrap(), fused, "{}", engine.device());
    }
}
