//! Tests of plans: what a layer costs in dispatches.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::kv_type::KvType;
use crate::ops::activate::Activation;
use crate::ops::attention::Attention;
use crate::ops::gate_up::GateUp;
use crate::ops::matmul::Matmul;
use crate::ops::rms_norm::RmsNorm;
use crate::ops::rope::{RopeStyle, frequencies};
use crate::ops::rope_kv_write::RopeKvWrite;
use crate::ops::round_rows::{ActivationRounding, RoundRows};
use crate::recording::KvLayout;
use crate::weight_type::WeightType;

/// The dispatches of so many layers of SmolLM2-135M for one token.
fn dispatches(arithmetic: Arithmetic, n_layers: usize) -> usize {
    const HIDDEN: usize = 576;
    const FFN: usize = 1536;
    const KV: usize = 192;
    let mut shapes = Shapes::default();
    let mut matrix = |n_rows, n_cols| {
        let shape = MatrixShape { weight_type: WeightType::Q4_1, n_rows, n_cols };
        shapes.add_matrix(shape, WeightType::Q4_1.matrix_bytes(n_rows, n_cols).unwrap()).unwrap()
    };
    let (joined, output) = (matrix(HIDDEN + 2 * KV, HIDDEN), matrix(HIDDEN, HIDDEN));
    let (gate_up, down) = (matrix(2 * FFN, HIDDEN), matrix(HIDDEN, FFN));
    let norm = shapes.add_vector(HIDDEN).unwrap();
    let vectors = [vec![1.0; HIDDEN].into_boxed_slice()];
    let mut buffer = |len| shapes.add_buffer(len).unwrap();
    let [hidden, normed, q, attended] = [(); 4].map(|()| buffer(HIDDEN));
    let (qkv, ffn) = (buffer(HIDDEN + 2 * KV), buffer(FFN));
    let layout = KvLayout { n_slots: 1, n_positions: 16, kv_width: KV, kv_type: KvType::F16 };
    let [k_cache, v_cache] = [(); 2].map(|()| buffer(layout.len()));
    let turn = Turn { style: RopeStyle::Pairs, frequencies: frequencies(1e4, 64).into(), magnitude: 1.0 };
    let rms = RmsNorm { x: hidden, first_row: 0, weight: norm, eps: 1e-5, width: HIDDEN, n_rows: 1, out: normed };
    let product = |weight, x, residual, out| Matmul { weight, x, first_row: 0, n_rows: 1, bias: None, residual, out };
    let mut recording = Recording::new(vec![Row { slot: 0, position: 0 }]);
    for _ in 0..n_layers {
        recording.push(rms.clone());
        recording.push(product(joined, normed, None, qkv));
        recording.push(RopeKvWrite {
            qkv,
            n_heads: 9,
            n_kv_heads: 3,
            head_size: 64,
            turn: Some(turn.clone()),
            q,
            k_cache,
            v_cache,
            layout,
        });
        recording.push(Attention {
            q,
            k_cache,
            v_cache,
            layout,
            n_heads: 9,
            n_kv_heads: 3,
            head_size: 64,
            scale: 0.125,
            cap: None,
            window: None,
            lengths: None,
            bias: None,
            sinks: None,
            out: attended,
        });
        recording.push(product(output, attended, Some(hidden), hidden));
        recording.push(rms.clone());
        recording.push(GateUp { function: Activation::Silu, weight: gate_up, x: normed, n_rows: 1, out: ffn });
        recording.push(product(down, ffn, Some(hidden), hidden));
        recording.push(RoundRows { x: hidden, width: HIDDEN, n_rows: 1, to: ActivationRounding::F16 });
    }
    let facts = Facts {
        tuning: Tuning::all(Lanes { n_rows: 1, workgroup: 32, n_splits: 1 }, false),
        arithmetic,
        source: WeightSource::Storage,
        is_software: false,
        workgroup: 32,
        uniform_alignment: 64,
        max_storage: 128 << 20,
        max_texture: 8192,
    };
    Plan::new(facts, &shapes, &vectors, &recording).unwrap().dispatches.len()
}

#[test]
fn a_llama_layer_is_nine_dispatches() {
    assert_eq!([1, 30].map(|n_layers| dispatches(Arithmetic::F32, n_layers)), [9, 9 * 30]);
}

#[test]
fn activations_of_8_bits_cost_two_dispatches_more_where_no_norm_makes_them() {
    assert_eq!([1, 30].map(|n_layers| dispatches(Arithmetic::Int8, n_layers)), [11, 11 * 30]);
}
