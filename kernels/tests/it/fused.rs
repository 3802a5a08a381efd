//! Fused ops: the bits of the ops that they stand for, on every engine, and the oracle's values.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::ops::rope::frequencies;
use polyphony_kernels::{
    Activate, Activation, BufferId, Engine, GateUp, KvLayout, KvType, KvWrite, Matmul, MatrixId, Recording, Rope,
    RopeKvWrite, RopeStyle, Row, Turn, WeightType,
};

use super::engines::engines;
use super::random::Random;

fn filled(engine: &mut dyn Engine, seed: u64, len: usize) -> BufferId {
    let buffer = engine.alloc(len).unwrap();
    engine.write(buffer, 0, &Random(seed).values(len)).unwrap();
    buffer
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Runs both recordings on every engine: equal bits, and with a tolerance near to what the oracle makes of the second.
fn the_same(tolerance: Option<f32>, build: impl Fn(&mut dyn Engine) -> [Recording; 2]) {
    let mut oracle = CpuEngine::reference();
    let [_, fused] = build(&mut oracle);
    let expected = oracle.run(&fused).unwrap();
    for mut engine in engines() {
        let [apart, fused] = build(engine.as_mut());
        let (apart, fused) = (engine.run(&apart).unwrap(), engine.run(&fused).unwrap());
        assert_eq!(bits(&fused), bits(&apart), "{}", engine.device());
        assert_eq!(fused.len(), expected.len());
        for (i, (found, expected)) in fused.iter().zip(&expected).enumerate() {
            let Some(tolerance) = tolerance else { break };
            let allowed = tolerance * expected.abs().max(1.0);
            assert!((found - expected).abs() <= allowed, "{}: value {i}: {found}, {expected}", engine.device());
        }
    }
}

/// The rows of two matrices taking turns.
fn taking_turns(gate: &[u8], up: &[u8], n_rows: usize) -> Vec<u8> {
    let row_bytes = gate.len() / n_rows;
    gate.chunks(row_bytes).zip(up.chunks(row_bytes)).flat_map(|(gate, up)| [gate, up].concat()).collect()
}

#[test]
fn gate_and_up_in_one_have_the_bits_of_three_ops() {
    for weight_type in WeightType::ALL {
        let functions = [Activation::Silu, Activation::Gelu, Activation::Silu];
        for ((width, n_in, n_rows), function) in
            [(5, 32_usize, 1), (64, 96, 3), (33, 576, 9)].into_iter().zip(functions)
        {
            let n_in = n_in.next_multiple_of(weight_type.block().0);
            // Sums of up to 768 products as in the twins of Matmul; the gate is at most as steep as 1.1 times the other factor, some 30.
            the_same(Some(5e-4), |engine| {
                let mut random = Random(5);
                let (gate, up) = (random.matrix(weight_type, width, n_in), random.matrix(weight_type, width, n_in));
                let both = taking_turns(&gate, &up, width);
                let both = engine.load_matrix(weight_type, 2 * width, n_in, &both).unwrap();
                let gate = engine.load_matrix(weight_type, width, n_in, &gate).unwrap();
                let up = engine.load_matrix(weight_type, width, n_in, &up).unwrap();
                let x = filled(engine, 6, n_rows * n_in);
                let mut buffers = [0; 4].map(|_| engine.alloc(n_rows * width).unwrap());
                buffers.reverse();
                let [gates, ups, gated, out] = buffers;
                let product =
                    |weight: MatrixId, out| Matmul { weight, x, first_row: 0, n_rows, bias: None, residual: None, out };
                let mut apart = Recording::default();
                apart.push(product(gate, gates));
                apart.push(product(up, ups));
                apart.push(Activate { function, x: gates, factor: Some(ups), width, n_rows, out: gated });
                apart.readback(gated, 0..n_rows * width);
                let mut fused = Recording::default();
                fused.push(GateUp { function, weight: both, x, n_rows, out });
                fused.readback(out, 0..n_rows * width);
                [apart, fused]
            });
        }
    }
}

#[test]
fn rope_and_kv_write_in_one_have_the_bits_of_three_ops() {
    for style in [RopeStyle::Pairs, RopeStyle::Halves] {
        for (n_heads, n_kv_heads, head_size, n_rotated, n_rows) in
            [(4, 2, 16, 16, 9), (9, 3, 64, 64, 1), (2, 1, 24, 12, 3), (3, 3, 10, 2, 4), (2, 2, 7, 4, 2)]
        {
            let (q_width, kv_width) = (n_heads * head_size, n_kv_heads * head_size);
            // Two products of size 1 and their sum; words of two values or four are no numbers.
            let both = |kv_type, tolerance| {
                the_same(tolerance, |engine| {
                    let layout = KvLayout { n_slots: 2, n_positions: 40, kv_width, kv_type };
                    let rows: Vec<Row> =
                        (0..n_rows).map(|r| Row { slot: (r % 2) as u32, position: (4 * r) as u32 }).collect();
                    let turn = Turn { style, frequencies: frequencies(1e4, n_rotated).into(), magnitude: 1.1 };
                    let values = Random(9).values(n_rows * (q_width + 2 * kv_width));
                    let part = |from: usize, width: usize| -> Vec<f32> {
                        values.chunks(q_width + 2 * kv_width).flat_map(|row| row[from..from + width].to_vec()).collect()
                    };
                    let qkv = engine.alloc(values.len()).unwrap();
                    let [q, q_fused] = [0; 2].map(|_| engine.alloc(n_rows * q_width).unwrap());
                    let [k, v] = [0; 2].map(|_| engine.alloc(n_rows * kv_width).unwrap());
                    let [k_cache, v_cache, k_fused, v_fused] = [0; 4].map(|_| filled(engine, 3, layout.len()));

                    let mut apart = Recording::new(rows.clone());
                    apart.upload(q, 0, part(0, q_width));
                    apart.upload(k, 0, part(q_width, kv_width));
                    apart.upload(v, 0, part(q_width + kv_width, kv_width));
                    apart.push(Rope { x: q, n_heads, head_size, turn: turn.clone() });
                    apart.push(Rope { x: k, n_heads: n_kv_heads, head_size, turn: turn.clone() });
                    apart.push(KvWrite { k, v, k_cache, v_cache, layout });
                    let mut fused = Recording::new(rows);
                    fused.upload(qkv, 0, values.clone());
                    fused.push(RopeKvWrite {
                        qkv,
                        n_heads,
                        n_kv_heads,
                        head_size,
                        turn: Some(turn),
                        q: q_fused,
                        k_cache: k_fused,
                        v_cache: v_fused,
                        layout,
                    });
                    for (recording, q, k, v) in
                        [(&mut apart, q, k_cache, v_cache), (&mut fused, q_fused, k_fused, v_fused)]
                    {
                        recording.readback(q, 0..n_rows * q_width);
                        recording.readback(k, 0..layout.len());
                        recording.readback(v, 0..layout.len());
                    }
                    [apart, fused]
                })
            };
            both(KvType::F32, Some(1e-6));
            both(KvType::F16, None);
            both(KvType::Q8, None);
        }
    }
}
