//! Twin tests: every op on every engine against the oracle, over odd sizes.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::ops::rope::frequencies;
use polyphony_kernels::{
    Activate, Activation, ActivationRounding, Attention, BufferId, EmbedRows, Engine, KvLayout, KvType, KvWrite,
    LayerNorm, Matmul, PositionBias, Recording, RmsNorm, Rope, RopeKvWrite, RopeStyle, RoundRows, Row, Turn,
    WeightType,
};

use super::engines::engines;
use super::random::Random;

/// Runs one recording, built anew in each engine, on the oracle and on every engine, and compares what comes back.
pub fn twins(tolerance: f32, build: impl Fn(&mut dyn Engine, &mut Random) -> Recording) {
    twins_of(&mut engines(), tolerance, build);
}

fn twins_of(
    engines: &mut [Box<dyn Engine>],
    tolerance: f32,
    build: impl Fn(&mut dyn Engine, &mut Random) -> Recording,
) {
    let mut oracle = CpuEngine::reference();
    let recording = build(&mut oracle, &mut Random(7));
    let expected = oracle.run(&recording).unwrap();
    for engine in engines {
        let recording = build(engine.as_mut(), &mut Random(7));
        let found = engine.run(&recording).unwrap();
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= tolerance * expected.abs().max(1.0),
                "{}: value {i} is {found}, the oracle has {expected}",
                engine.device()
            );
        }
    }
}

/// A buffer of random values.
pub fn filled(engine: &mut dyn Engine, random: &mut Random, len: usize) -> BufferId {
    let buffer = engine.alloc(len).unwrap();
    engine.write(buffer, 0, &random.values(len)).unwrap();
    buffer
}

fn rows(n_rows: usize) -> Vec<Row> {
    (0..n_rows).map(|r| Row { slot: (r % 2) as u32, position: (3 * r) as u32 }).collect()
}

/// The width, or where the type's blocks are longer, that of whole ones.
fn whole_blocks(weight_type: WeightType, width: usize) -> usize {
    width.next_multiple_of(weight_type.block().0)
}

#[test]
fn embedded_rows_are_those_of_the_table_in_every_type() {
    for weight_type in WeightType::ALL {
        for (n_vocabulary, width) in
            [(40, 64), (9000, 96)].map(|(rows, width)| (rows, whole_blocks(weight_type, width)))
        {
            // Each value is one multiplication and at most one addition, which a GPU may fuse, and the sum of two such: half a unit in the
            // last place of 1 each time.
            twins(2e-6, |engine, random| {
                let table = random.matrix(weight_type, n_vocabulary, width);
                let table = engine.load_matrix(weight_type, n_vocabulary, width, &table).unwrap();
                let out = engine.alloc(6 * width).unwrap();
                let tokens = vec![3, 39, 0, n_vocabulary as u32 - 1, 3];
                let mut recording = Recording::new(vec![]);
                recording.push(EmbedRows { table, tokens: tokens.clone(), scale: 1.0, adds: false, out });
                recording.push(EmbedRows {
                    table,
                    tokens: tokens.into_iter().rev().collect(),
                    scale: 0.75,
                    adds: true,
                    out,
                });
                recording.readback(out, 0..6 * width);
                recording
            });
        }
    }
}

#[test]
fn norms_of_rows_are_the_oracles() {
    for (width, n_rows) in [(16, 9), (24, 3), (64, 1), (96, 5), (576, 2), (1000, 1)] {
        // f32 sums of up to 1000 squares and a GPU's division: some 1e-7 each.
        twins(5e-6, |engine, random| {
            let x = filled(engine, random, (n_rows + 1) * width);
            let weight = engine.load_vector(&random.values(width)).unwrap();
            let out = engine.alloc(n_rows * width).unwrap();
            let mut recording = Recording::new(vec![]);
            recording.push(RmsNorm { x, first_row: 1, weight, eps: 1e-5, width, n_rows, out });
            recording.readback(out, 0..n_rows * width);
            recording
        });
    }
}

#[test]
fn layer_norms_of_rows_are_the_oracles() {
    for (width, n_rows) in [(16, 9), (24, 3), (64, 1), (96, 5), (576, 2), (1000, 1)] {
        // As for the norms without a mean; the mean of values of size 1 is some 0.1, so little is lost to the difference.
        twins(5e-6, |engine, random| {
            let x = filled(engine, random, (n_rows + 1) * width);
            let weight = engine.load_vector(&random.values(width)).unwrap();
            let bias = Some(engine.load_vector(&random.values(width)).unwrap());
            let [out, plain] = [0; 2].map(|_| engine.alloc(n_rows * width).unwrap());
            let mut recording = Recording::new(vec![]);
            let norm = LayerNorm { x, first_row: 1, weight, bias, eps: 1e-5, width, n_rows, out };
            recording.push(norm.clone());
            recording.push(LayerNorm { bias: None, out: plain, ..norm });
            recording.readback(out, 0..n_rows * width);
            recording.readback(plain, 0..n_rows * width);
            recording
        });
    }
}

#[test]
fn products_of_matrices_are_the_oracles_in_every_type() {
    for weight_type in WeightType::ALL {
        for (n_out, n_in, n_rows) in [(5, 32, 1), (64, 96, 3), (96, 64, 9), (33, 576, 4), (100, 192, 6)] {
            let n_in = whole_blocks(weight_type, n_in);
            // f32 sums of at most 768 products of size 1: each addition is off by 1e-7 of a sum that stays below some 30.
            twins(2e-5, |engine, random| {
                let weight = random.matrix(weight_type, n_out, n_in);
                let weight = engine.load_matrix(weight_type, n_out, n_in, &weight).unwrap();
                let x = filled(engine, random, (n_rows + 2) * n_in);
                let out = engine.alloc(n_rows * n_out).unwrap();
                let mut recording = Recording::new(vec![]);
                recording.push(Matmul { weight, x, first_row: 2, n_rows, bias: None, residual: None, out });
                recording.readback(out, 0..n_rows * n_out);
                recording
            });
        }
    }
}

#[test]
fn matrices_of_any_width_are_filled_up_and_nothing_beside_a_row_is_looked_at() {
    for weight_type in [WeightType::F32, WeightType::F16, WeightType::Bf16] {
        for (n_out, n_in, n_rows) in [(5, 1, 1), (64, 72, 3), (9, 120, 6), (33, 50, 4), (7, 4099, 5)] {
            // As above for sums of up to 4099 products: some 60 in size.
            twins(1e-4, |engine, random| {
                let table = random.matrix(weight_type, n_out, n_in);
                let weight = engine.load_matrix(weight_type, n_out, n_in, &table).unwrap();
                // What lies before and behind the rows is no number.
                let x = engine.alloc((n_rows + 2) * n_in).unwrap();
                let mut values = vec![f32::NAN; (n_rows + 2) * n_in];
                values[n_in..(n_rows + 1) * n_in].copy_from_slice(&random.values(n_rows * n_in));
                engine.write(x, 0, &values).unwrap();
                let out = engine.alloc(n_rows * n_out).unwrap();
                let (last, embedded) = (engine.alloc(n_out).unwrap(), engine.alloc(3 * n_in).unwrap());
                let product =
                    |first_row, n_rows, out| Matmul { weight, x, first_row, n_rows, bias: None, residual: None, out };
                let mut recording = Recording::new(vec![]);
                recording.push(product(1, n_rows, out));
                recording.push(product(n_rows, 1, last));
                recording.push(EmbedRows { table: weight, tokens: vec![4, 0], scale: 1.0, adds: false, out: embedded });
                recording.push(EmbedRows { table: weight, tokens: vec![3], scale: 1.0, adds: true, out: embedded });
                recording.readback(out, 0..n_rows * n_out);
                recording.readback(last, 0..n_out);
                recording.readback(embedded, 0..3 * n_in);
                recording
            });
        }
    }
}

#[test]
fn matrices_over_the_limits_of_textures_and_uniforms_are_split_rightly() {
    let wide =
        [(WeightType::Q8_0, 8200, 32, 2), (WeightType::Q4_1, 8, 9000 / 32 * 32, 5), (WeightType::F32, 3, 4128, 1)];
    // Of every type more columns than a window has, so that a dispatch begins within them.
    let long = WeightType::ALL.map(|weight_type| (weight_type, 4, 4352, 2));
    for (weight_type, n_out, n_in, n_rows) in wide.into_iter().chain(long) {
        // As above for 9000 products: sums stay below some 100, their errors grow with the root of the count.
        twins(1e-4, |engine, random| {
            let weight = random.matrix(weight_type, n_out, n_in);
            let weight = engine.load_matrix(weight_type, n_out, n_in, &weight).unwrap();
            let x = filled(engine, random, n_rows * n_in);
            let out = filled(engine, random, n_rows * n_out);
            let mut recording = Recording::new(vec![]);
            recording.push(Matmul { weight, x, first_row: 0, n_rows, bias: None, residual: Some(out), out });
            recording.readback(out, 0..n_rows * n_out);
            recording
        });
    }
}

#[test]
fn bias_and_residual_are_added_apart_or_in_place() {
    for (in_place, with_bias, n_rows) in [(false, true, 1), (true, false, 5), (true, true, 2), (false, false, 3)] {
        let (n_out, n_in) = (48, 96);
        // As for the products alone.
        twins(2e-5, |engine, random| {
            let weight = random.matrix(WeightType::F16, n_out, n_in);
            let weight = engine.load_matrix(WeightType::F16, n_out, n_in, &weight).unwrap();
            let x = filled(engine, random, n_rows * n_in);
            let out = filled(engine, random, n_rows * n_out);
            let apart = filled(engine, random, n_rows * n_out);
            let bias = engine.load_vector(&random.values(n_out)).unwrap();
            let mut recording = Recording::new(vec![]);
            recording.push(Matmul {
                weight,
                x,
                first_row: 0,
                n_rows,
                bias: with_bias.then_some(bias),
                residual: Some(if in_place { out } else { apart }),
                out,
            });
            recording.readback(out, 0..n_rows * n_out);
            recording
        });
    }
}

#[test]
fn heads_turn_as_the_oracles_in_both_styles() {
    for style in [RopeStyle::Pairs, RopeStyle::Halves] {
        for (n_heads, head_size, n_rotated, n_rows) in [(4, 16, 16, 9), (2, 24, 12, 3), (9, 64, 64, 1), (3, 10, 2, 4)] {
            // Two products of size 1 and their sum.
            twins(1e-6, |engine, random| {
                let x = filled(engine, random, n_rows * n_heads * head_size);
                let rows = (0..n_rows).map(|r| Row { slot: 0, position: (r * 12_345) as u32 }).collect();
                let mut recording = Recording::new(rows);
                let plain = frequencies(10_000.0, n_rotated);
                let linear = Turn { style, frequencies: plain.iter().map(|of| of / 4.0).collect(), magnitude: 1.0 };
                recording.push(Rope { x, n_heads, head_size, turn: linear });
                let divided = plain.iter().zip(1..).map(|(of, factor)| of / f64::from(factor)).collect();
                recording.push(Rope {
                    x,
                    n_heads,
                    head_size,
                    turn: Turn { style, frequencies: divided, magnitude: 1.2 },
                });
                recording.readback(x, 0..n_rows * n_heads * head_size);
                recording
            });
        }
    }
}

#[test]
fn keys_and_values_go_to_their_slots_and_positions() {
    let layout = KvLayout { n_slots: 2, n_positions: 20, kv_width: 24, kv_type: KvType::F32 };
    // Copies are exact.
    twins(0.0, |engine, random| {
        let (k, v) = (filled(engine, random, 5 * 24), filled(engine, random, 5 * 24));
        let (k_cache, v_cache) = (filled(engine, random, layout.len()), filled(engine, random, layout.len()));
        let mut recording = Recording::new(rows(5));
        recording.push(KvWrite { k, v, k_cache, v_cache, layout });
        recording.readback(k_cache, 0..layout.len());
        recording.readback(v_cache, 0..layout.len());
        recording
    });
}

#[test]
fn attention_is_the_oracles_over_all_head_sizes_groups_and_windows() {
    for (n_heads, n_kv_heads, head_size, n_rows, window) in [
        (4, 2, 16, 9, None),
        (4, 2, 24, 3, Some(5)),
        (9, 3, 64, 2, None),
        (2, 2, 64, 7, Some(1)),
        (3, 1, 128, 1, Some(70)),
        (1, 1, 256, 2, None),
        (4, 2, 10, 5, Some(6)),
        (3, 3, 7, 2, None),
    ] {
        let layout = KvLayout { n_slots: 2, n_positions: 200, kv_width: n_kv_heads * head_size, kv_type: KvType::F32 };
        // Weighted means of values of size 1 over up to 200 positions.
        twins(5e-6, |engine, random| {
            let q = filled(engine, random, n_rows * n_heads * head_size);
            let (k_cache, v_cache) = (filled(engine, random, layout.len()), filled(engine, random, layout.len()));
            let out = engine.alloc(n_rows * n_heads * head_size).unwrap();
            let rows = (0..n_rows).map(|r| Row { slot: (r % 2) as u32, position: (199 - 24 * r) as u32 }).collect();
            let mut recording = Recording::new(rows);
            recording.push(Attention {
                q,
                k_cache,
                v_cache,
                layout,
                n_heads,
                n_kv_heads,
                head_size,
                scale: 1.7,
                cap: None,
                window,
                lengths: None,
                bias: None,
                sinks: None,
                out,
            });
            recording.readback(out, 0..n_rows * n_heads * head_size);
            recording
        });
    }
}

#[test]
fn attention_with_biases_and_lengths_is_the_oracles() {
    // Slopes or distances, causal or with lengths that are under, at and beyond the row's own position.
    for (slopes, lengths) in
        [(true, None), (false, None), (false, Some(vec![580, 1, 257])), (true, Some(vec![3, 70, 64]))]
    {
        let (n_heads, head_size, n_rows) = (6, 24, 3);
        let layout = KvLayout { n_slots: 2, n_positions: 600, kv_width: n_heads * head_size, kv_type: KvType::F32 };
        // As without a bias; ALiBi's 128 · 1.0 is added to scores of some 10, each to 1e-7 of it.
        twins(2e-5, |engine, random| {
            let q = filled(engine, random, n_rows * n_heads * head_size);
            let (k_cache, v_cache) = (filled(engine, random, layout.len()), filled(engine, random, layout.len()));
            let out = engine.alloc(n_rows * n_heads * head_size).unwrap();
            let bias = if slopes {
                let slopes: Vec<f32> = (0..n_heads).map(|head| 0.5f32.powi(head as i32)).collect();
                PositionBias::Slopes(engine.load_vector(&slopes).unwrap())
            } else {
                let (n_before, n_after) = (20, 9);
                let table = engine.load_vector(&random.values(n_heads * 30)).unwrap();
                PositionBias::Distances { table, n_before, n_after }
            };
            let rows = (0..n_rows).map(|r| Row { slot: (r % 2) as u32, position: (64 * r) as u32 }).collect();
            let mut recording = Recording::new(rows);
            recording.push(Attention {
                q,
                k_cache,
                v_cache,
                layout,
                n_heads,
                n_kv_heads: n_heads,
                head_size,
                scale: 1.0,
                cap: None,
                window: None,
                lengths: lengths.clone(),
                bias: Some(bias),
                sinks: None,
                out,
            });
            recording.readback(out, 0..n_rows * n_heads * head_size);
            recording
        });
    }
}

#[test]
fn queries_keys_and_values_move_unturned_where_positions_are_not_rotary() {
    for head_size in [6, 7] {
        unturned(head_size);
    }
}

fn unturned(head_size: usize) {
    let (n_heads, n_kv_heads, n_rows) = (4, 2, 5);
    let layout = KvLayout { n_slots: 2, n_positions: 20, kv_width: n_kv_heads * head_size, kv_type: KvType::F32 };
    // Copies are exact.
    twins(0.0, |engine, random| {
        let qkv = filled(engine, random, n_rows * (n_heads + 2 * n_kv_heads) * head_size);
        let q = engine.alloc(n_rows * n_heads * head_size).unwrap();
        let (k_cache, v_cache) = (filled(engine, random, layout.len()), filled(engine, random, layout.len()));
        let mut recording = Recording::new(rows(n_rows));
        recording.push(RopeKvWrite { qkv, n_heads, n_kv_heads, head_size, turn: None, q, k_cache, v_cache, layout });
        recording.readback(q, 0..n_rows * n_heads * head_size);
        recording.readback(k_cache, 0..layout.len());
        recording.readback(v_cache, 0..layout.len());
        recording
    });
}

#[test]
fn activations_are_the_oracles_even_at_the_ends_of_the_exponential() {
    for function in [Activation::Gelu, Activation::Relu, Activation::Silu] {
        for (width, n_rows, has_factor) in [(24, 9, false), (192, 1, true), (1536, 3, false)] {
            // As the gates; the exponent's own rounding counts only where the exponential is far from 1, at values of some 10.
            twins(4e-6, |engine, random| {
                let x = engine.alloc(n_rows * width).unwrap();
                let values: Vec<f32> =
                    (0..n_rows * width).map(|i| random.value() * [1.0, 10.0, 300.0][i % 3]).collect();
                engine.write(x, 0, &values).unwrap();
                let factor = has_factor.then(|| filled(engine, random, n_rows * width));
                let out = engine.alloc(n_rows * width).unwrap();
                let mut recording = Recording::new(vec![]);
                recording.push(Activate { function, x, factor, width, n_rows, out });
                recording.readback(out, 0..n_rows * width);
                recording
            });
        }
    }
}

#[test]
fn rows_are_rounded_to_the_very_bits_of_the_oracle() {
    let width = 100;
    let mut values = Random(3).values(width * 4);
    // Row 1: up to 100,000, as real hidden states; row 2: 40 powers of two apart; row 3 holds an infinity and stays.
    for (i, value) in values.iter_mut().enumerate() {
        match i / width {
            1 => *value *= 100_000.0,
            2 => *value *= 2f32.powi(-((i % 40) as i32)),
            _ => {}
        }
    }
    values[3 * width + 5] = f32::INFINITY;
    let run = |engine: &mut dyn Engine, to| -> Vec<u32> {
        let x = engine.alloc(values.len()).unwrap();
        let mut recording = Recording::new(vec![]);
        recording.upload(x, 0, values.clone());
        recording.push(RoundRows { x, width, n_rows: 4, to });
        recording.readback(x, 0..values.len());
        engine.run(&recording).unwrap().iter().map(|value| value.to_bits()).collect()
    };
    for to in [ActivationRounding::F16, ActivationRounding::Q8] {
        let expected = run(&mut CpuEngine::reference(), to);
        for mut engine in engines() {
            assert_eq!(run(engine.as_mut(), to), expected, "{}, {to:?}", engine.device());
        }
    }
}
