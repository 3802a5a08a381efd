//! Same bits everywhere: what an engine makes of a token row is a function of the tokens before it, not of how the work was cut.

use polyphony_kernels::ops::rope::frequencies;
use polyphony_kernels::{
    Activate, Activation, ActivationRounding, AddRows, Arithmetic, Attention, BufferId, Engine, GateUp, KvLayout,
    KvType, KvWrite, Matmul, MatrixId, Recording, RmsNorm, Rope, RopeStyle, RoundRows, Row, ScaleRows, Turn, VectorId,
    WeightType,
};
use proptest::prelude::*;

use super::engines::{cpu, cpu_int8, vulkan, vulkan_with};
use super::random::Random;

pub const HIDDEN: usize = 96;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_SIZE: usize = 24;
const FFN: usize = 192;
pub const LAYOUT: KvLayout =
    KvLayout { n_slots: 2, n_positions: 80, kv_width: KV_HEADS * HEAD_SIZE, kv_type: KvType::F32 };
/// Rows of the largest step.
const MAX_ROWS: usize = 160;

/// One transformer layer with random weights.
pub struct Layer {
    norm: VectorId,
    sinks: VectorId,
    q: MatrixId,
    k: MatrixId,
    v: MatrixId,
    attention_out: MatrixId,
    gate: MatrixId,
    up: MatrixId,
    down: MatrixId,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
    layout: KvLayout,
    /// hidden, normed, q, k, v, attended, gate, up, gated.
    buffers: [BufferId; 9],
}

impl Layer {
    pub fn new(engine: &mut dyn Engine, kv_type: KvType) -> Self {
        let mut random = Random(11);
        let norm: Vec<f32> = random.values(HIDDEN).iter().map(|x| 1.0 + x / 4.0).collect();
        let mut matrix = |weight_type, n_rows, n_cols| {
            let ggml = random.matrix(weight_type, n_rows, n_cols);
            engine.load_matrix(weight_type, n_rows, n_cols, &ggml).unwrap()
        };
        let (q, k, v) = (
            matrix(WeightType::Q4_1, HEADS * HEAD_SIZE, HIDDEN),
            matrix(WeightType::Q4_0, KV_HEADS * HEAD_SIZE, HIDDEN),
            matrix(WeightType::Q8_0, KV_HEADS * HEAD_SIZE, HIDDEN),
        );
        let attention_out = matrix(WeightType::F16, HIDDEN, HEADS * HEAD_SIZE);
        let (gate, up) = (matrix(WeightType::Q4_1, FFN, HIDDEN), matrix(WeightType::F32, FFN, HIDDEN));
        let down = matrix(WeightType::Q4_1, HIDDEN, FFN);
        let norm = engine.load_vector(&norm).unwrap();
        let sinks = engine.load_vector(&[0.5, -1.0, 2.0, 0.0]).unwrap();
        let layout = KvLayout { kv_type, ..LAYOUT };
        let (k_cache, v_cache) = (engine.alloc(layout.len()).unwrap(), engine.alloc(layout.len()).unwrap());
        let widths =
            [HIDDEN, HIDDEN, HEADS * HEAD_SIZE, LAYOUT.kv_width, LAYOUT.kv_width, HEADS * HEAD_SIZE, FFN, FFN, FFN];
        let buffers = widths.map(|width| engine.alloc(MAX_ROWS * width).unwrap());
        Layer { norm, sinks, q, k, v, attention_out, gate, up, down, k_cache, v_cache, layout, buffers }
    }

    /// The layer over these rows; the input of a row is a function of its slot and position.
    pub fn step(&self, rows: &[Row]) -> Recording {
        let [hidden, normed, q, k, v, attended, gate, up, gated] = self.buffers;
        let n_rows = rows.len();
        let mut recording = Recording::new(rows.to_vec());
        let input = rows.iter().flat_map(|row| Random(u64::from(row.slot * 1000 + row.position)).values(HIDDEN));
        recording.upload(hidden, 0, input.collect());
        let matmul = |weight, x, residual, out| Matmul { weight, x, first_row: 0, n_rows, bias: None, residual, out };
        let norm =
            RmsNorm { x: hidden, first_row: 0, weight: self.norm, eps: 1e-5, width: HIDDEN, n_rows, out: normed };
        let turn = Turn { style: RopeStyle::Pairs, frequencies: frequencies(1e4, HEAD_SIZE).into(), magnitude: 1.0 };
        let rope = |x, n_heads| Rope { x, n_heads, head_size: HEAD_SIZE, turn: turn.clone() };
        recording.push(norm.clone());
        recording.push(matmul(self.q, normed, None, q));
        recording.push(matmul(self.k, normed, None, k));
        recording.push(matmul(self.v, normed, None, v));
        recording.push(rope(q, HEADS));
        recording.push(rope(k, KV_HEADS));
        recording.push(KvWrite { k, v, k_cache: self.k_cache, v_cache: self.v_cache, layout: self.layout });
        recording.push(Attention {
            q,
            k_cache: self.k_cache,
            v_cache: self.v_cache,
            layout: self.layout,
            n_heads: HEADS,
            n_kv_heads: KV_HEADS,
            head_size: HEAD_SIZE,
            scale: 0.2,
            cap: Some(5.0),
            window: Some(70),
            lengths: None,
            bias: None,
            sinks: Some(self.sinks),
            out: attended,
        });
        recording.push(matmul(self.attention_out, attended, Some(hidden), hidden));
        recording.push(norm);
        recording.push(matmul(self.gate, normed, None, gate));
        recording.push(matmul(self.up, normed, None, up));
        let (function, factor) = (Activation::Silu, Some(up));
        recording.push(Activate { function, x: gate, factor, width: FFN, n_rows, out: gated });
        recording.push(matmul(self.down, gated, None, normed));
        recording.push(AddRows { x: normed, scale: 0.4, width: HIDDEN, n_rows, out: hidden });
        recording.push(ScaleRows { x: hidden, scale: 1.5, cap: Some(30.0), width: HIDDEN, n_rows });
        recording.push(RoundRows { x: hidden, width: HIDDEN, n_rows, to: ActivationRounding::F16 });
        recording.readback(hidden, 0..n_rows * HIDDEN);
        recording
    }

    /// Runs the steps one after the other; returns the bits of each row by slot and position.
    pub fn bits(&self, engine: &mut dyn Engine, steps: &[Vec<Row>]) -> Vec<(u32, u32, Vec<u32>)> {
        let mut bits = Vec::new();
        for rows in steps {
            let values = engine.run(&self.step(rows)).unwrap();
            for (row, values) in rows.iter().zip(values.chunks_exact(HIDDEN)) {
                bits.push((row.slot, row.position, values.iter().map(|value| value.to_bits()).collect()));
            }
        }
        bits.sort();
        bits
    }
}

/// Two sessions of so many tokens, a row a step.
fn one_by_one(n_tokens: [u32; 2]) -> Vec<Vec<Row>> {
    let rows =
        [0u32, 1].into_iter().flat_map(|slot| (0..n_tokens[slot as usize]).map(move |position| Row { slot, position }));
    rows.map(|row| vec![row]).collect()
}

/// The same rows cut into steps: `cuts` says of each step how many rows of either session it takes.
fn cut(n_tokens: [u32; 2], cuts: &[(u32, u32)]) -> Vec<Vec<Row>> {
    let mut next = [0u32; 2];
    let mut steps = Vec::new();
    for &(first, second) in cuts.iter().chain([&(u32::MAX, u32::MAX)]) {
        let mut rows = Vec::new();
        for (slot, count) in [(0, first), (1, second)] {
            let end = n_tokens[slot].min(next[slot].saturating_add(count));
            rows.extend((next[slot]..end).map(|position| Row { slot: slot as u32, position }));
            next[slot] = end;
        }
        if !rows.is_empty() {
            steps.push(rows);
        }
    }
    steps
}

fn cuts() -> impl Strategy<Value = ([u32; 2], Vec<(u32, u32)>)> {
    let n_tokens = [1u32..20, 1u32..80];
    (n_tokens, prop::collection::vec((0u32..8, 0u32..30), 0..6))
}

fn the_cut_changes_no_bit(one: &mut dyn Engine, other: &mut dyn Engine, cases: u32) {
    for kv_type in KvType::ALL {
        the_cut_changes_no_bit_of(kv_type, one, other, cases.div_ceil(2));
    }
}

fn the_cut_changes_no_bit_of(kv_type: KvType, one: &mut dyn Engine, other: &mut dyn Engine, cases: u32) {
    let (layer, other_layer) = (Layer::new(one, kv_type), Layer::new(other, kv_type));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    // Values that the strategy does not see need a cell: the runner takes its test by shared reference.
    let engines = std::cell::RefCell::new((one, other));
    runner
        .run(&cuts(), |(n_tokens, cuts)| {
            let (one, other) = &mut *engines.borrow_mut();
            let alone = layer.bits(*one, &one_by_one(n_tokens));
            let together = other_layer.bits(*other, &cut(n_tokens, &cuts));
            prop_assert!(alone.iter().all(|(.., bits)| bits.iter().all(|bits| f32::from_bits(*bits).is_finite())));
            prop_assert_eq!(alone, together);
            Ok(())
        })
        .unwrap();
}

/// Of engines that differ in where their weights lie: each and the next.
fn neither_cut_nor_source_changes_a_bit(mut engines: Vec<Box<dyn Engine>>) {
    for at in 1..engines.len() {
        let (before, after) = engines.split_at_mut(at);
        the_cut_changes_no_bit(before[at - 1].as_mut(), after[0].as_mut(), 4);
    }
}

#[test]
fn neither_steps_nor_threads_change_a_bit_on_the_processor() {
    the_cut_changes_no_bit(cpu(1).as_mut(), cpu(1).as_mut(), 24);
    the_cut_changes_no_bit(cpu(1).as_mut(), cpu(3).as_mut(), 24);
}

#[test]
fn neither_steps_nor_threads_change_a_bit_of_8_bit_activations_on_the_processor() {
    the_cut_changes_no_bit(cpu_int8(1).as_mut(), cpu_int8(1).as_mut(), 24);
    the_cut_changes_no_bit(cpu_int8(1).as_mut(), cpu_int8(3).as_mut(), 24);
}

/// The layer above is so small that a step of one row stays on one thread; these matrices are not.
#[test]
fn a_product_that_is_cut_over_threads_has_the_bits_of_one_that_is_not() {
    let n_out = 1031;
    for weight_type in WeightType::ALL {
        let n_in = 576_usize.next_multiple_of(weight_type.block().0);
        let (mut random, both) = (Random(17), Random(18).matrix(weight_type, 2 * n_out, n_in));
        let matrix = random.matrix(weight_type, n_out, n_in);
        let x = random.values(5 * n_in);
        let bits = |engine: &mut dyn Engine, n_rows: usize| -> Vec<u32> {
            let weight = engine.load_matrix(weight_type, n_out, n_in, &matrix).unwrap();
            let both = engine.load_matrix(weight_type, 2 * n_out, n_in, &both).unwrap();
            let [input, out, gated] = [n_in, n_out, n_out].map(|width| engine.alloc(n_rows * width).unwrap());
            let mut recording = Recording::default();
            recording.upload(input, 0, x[..n_rows * n_in].to_vec());
            recording.push(Matmul { weight, x: input, first_row: 0, n_rows, bias: None, residual: None, out });
            let function = Activation::Silu;
            recording.push(GateUp { function, weight: both, x: input, n_rows, out: gated });
            recording.readback(out, 0..n_rows * n_out);
            recording.readback(gated, 0..n_rows * n_out);
            engine.run(&recording).unwrap().into_iter().map(f32::to_bits).collect()
        };
        for (arithmetic, engine) in [("f32", cpu as fn(usize) -> Box<dyn Engine>), ("int8", cpu_int8)] {
            for n_rows in [1, 2, 5] {
                let alone = bits(engine(1).as_mut(), n_rows);
                for n_threads in [2, 3, 7] {
                    let found = bits(engine(n_threads).as_mut(), n_rows);
                    assert!(found == alone, "{arithmetic}, {weight_type:?}, {n_rows} rows, {n_threads} threads");
                }
            }
        }
    }
}

#[test]
fn activations_of_8_bits_change_no_bit_with_the_cut_either() {
    neither_cut_nor_source_changes_a_bit(vulkan_with(Arithmetic::Int8));
}

#[test]
fn neither_steps_nor_the_source_of_weights_change_a_bit_on_vulkan() {
    neither_cut_nor_source_changes_a_bit(vulkan());
}
