//! Known answers: a tiny layer and a few products, whose values the oracle knows. A device that gives others computes wrongly, whatever it serves.
//!
//! Public reports tell of GPUs that do, some only with one driver, some only after a while ([`quirks`](crate::vulkan::quirks) names them).
//! What is asked lies in the engine beside what it serves, and so goes through the same kernels, queue and memory.

use std::sync::Arc;

use crate::chance::Chance;
use crate::cpu::CpuEngine;
use crate::cpu::order::Order;
use crate::engine::{Arithmetic, Backend, Engine, EngineError};
use crate::kv_type::KvType;
use crate::ops::rope::frequencies;
use crate::ops::{
    Activation, ActivationRounding, Attention, EmbedRows, GateUp, Matmul, RmsNorm, RopeKvWrite, RopeStyle, RoundRows,
    Turn,
};
use crate::recording::{BufferId, KvLayout, MatrixId, Recording, Row};
use crate::weight_type::WeightType;

/// What one engine is asked, and what is right.
pub struct KnownAnswers {
    questions: Vec<Question>,
}

struct Question {
    what: String,
    recording: Recording,
    /// The same a row at a time: together they give the same bits.
    apart: Vec<Recording>,
    answers: Vec<f32>,
    /// By how much an answer may be off, in parts of the largest of them: what the roundings of an arithmetic can do.
    tolerance: f32,
}

// A layer that has all of one: two heads that share a key head, a gate, and a head of few tokens.
const HIDDEN: usize = 64;
const HEAD_SIZE: usize = 32;
const HEADS: usize = 2;
const QKV: usize = (HEADS + 2) * HEAD_SIZE;
const TOKENS: usize = 32;
/// What the layer's matrices are: it is in nearly every file, alone or beside others.
const LAYER_TYPE: WeightType = WeightType::Q4_0;
/// A prompt, and the token after it.
const STEPS: [&[u32]; 2] = [&[3, 17, 8, 30], &[11]];
/// A product: whole blocks of every type, of so many columns that several lanes of a GPU share them more than once.
const OUTPUTS: usize = 32;
const INPUTS: usize = 2304;
/// Rows of a product: as many as a kernel takes at once, and others that are left over.
const ROWS: usize = 12;

/// What is asked, and the same a row at a time where it is of several.
struct Asked {
    what: String,
    recording: Recording,
    apart: Vec<Recording>,
}

// === impl KnownAnswers ===

impl KnownAnswers {
    /// The largest part by which an answer may be off.
    pub const TOLERANCE: f32 = 0.02;

    /// Puts into the engine, which is of this backend, what it is to be asked: about matrices of these types, and a cache of that one. A few
    /// hundred KB.
    ///
    /// # Errors
    /// When the engine does not take it.
    pub fn load(
        engine: &mut dyn Engine,
        backend: Backend,
        weight_types: &[WeightType],
        kv_type: KvType,
    ) -> Result<Self, EngineError> {
        let (arithmetic, order) = match backend {
            Backend::Cpu { arithmetic, .. } | Backend::Mixed { arithmetic, .. } => (arithmetic, Order::Processor),
            Backend::Vulkan { arithmetic } => (arithmetic, Order::Vulkan),
        };
        let mut oracle = match arithmetic {
            Arithmetic::F32 => CpuEngine::reference(),
            Arithmetic::Int8 => CpuEngine::int8_reference(order)?,
        };
        let mut questions = Vec::new();
        for asked in [questions_of_layer, questions_of_products] {
            let right = asked(&mut oracle, weight_types, kv_type)?;
            for (of_engine, of_oracle) in asked(engine, weight_types, kv_type)?.into_iter().zip(right) {
                let Asked { what, recording, apart } = of_engine;
                let answers = oracle.run(&of_oracle.recording)?;
                questions.push(Question { what, recording, apart, answers, tolerance: tolerance(arithmetic) });
            }
        }
        Ok(Self { questions })
    }

    /// Asks. What comes of several rows at once is held to the bits of one at a time, too: a session goes by it that one never changes the other.
    ///
    /// # Errors
    /// [`EngineError::Wrong`] when an answer is, and whatever keeps the engine from answering.
    pub fn ask(&self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        for Question { what, recording, apart, answers, tolerance } in &self.questions {
            let found = engine.run(recording)?;
            let largest = answers.iter().fold(0.0_f32, |largest, answer| largest.max(answer.abs()));
            // What is no number is never near.
            let is_near = |found: f32, right: f32| (found - right).abs() <= tolerance * largest;
            require(what, &found, answers, is_near)?;
            let mut alone = Vec::new();
            for recording in apart {
                alone.extend(engine.run(recording)?);
            }
            if !apart.is_empty() {
                let what = format!("{what}, a row at a time,");
                require(&what, &alone, &found, |alone, together| alone.to_bits() == together.to_bits())?;
            }
        }
        Ok(())
    }
}

fn require(what: &str, found: &[f32], right: &[f32], is_right: impl Fn(f32, f32) -> bool) -> Result<(), EngineError> {
    let off = found.iter().zip(right).find(|(found, right)| !is_right(**found, **right));
    let off = off.map(|(found, right)| (*found, *right));
    match off.or((found.len() != right.len()).then_some((f32::NAN, f32::NAN))) {
        Some((found, right)) => Err(EngineError::Wrong { what: what.to_string(), found, right }),
        None => Ok(()),
    }
}

/// A rounding of an activation to 8 bits that goes the other way is one part in 254 of it; in f32 only the rounding between layers is told.
fn tolerance(arithmetic: Arithmetic) -> f32 {
    match arithmetic {
        Arithmetic::F32 => KnownAnswers::TOLERANCE / 10.0,
        Arithmetic::Int8 => KnownAnswers::TOLERANCE,
    }
}

/// A prompt and the token after it, through a layer and its head.
fn questions_of_layer(engine: &mut dyn Engine, _: &[WeightType], kv_type: KvType) -> Result<Vec<Asked>, EngineError> {
    let mut chance = Chance::new(1);
    let table = matrix(&mut chance, engine, WeightType::F16, TOKENS, HIDDEN)?;
    let qkv_weight = matrix(&mut chance, engine, LAYER_TYPE, QKV, HIDDEN)?;
    let out_weight = matrix(&mut chance, engine, LAYER_TYPE, HIDDEN, HEADS * HEAD_SIZE)?;
    let gate_up = matrix(&mut chance, engine, LAYER_TYPE, 2 * HIDDEN, HIDDEN)?;
    let down = matrix(&mut chance, engine, LAYER_TYPE, HIDDEN, HIDDEN)?;
    let head = matrix(&mut chance, engine, LAYER_TYPE, TOKENS, HIDDEN)?;
    let norm = engine.load_vector(&chance.values(HIDDEN))?;
    let most = STEPS[0].len();
    let n_positions = STEPS.iter().map(|tokens| tokens.len()).sum();
    // Prompts a row at a time have a slot of their own.
    let layout = KvLayout { n_slots: 2, n_positions, kv_width: HEAD_SIZE, kv_type };
    let [x, normed, q, attended] = buffers(engine, most * HIDDEN)?;
    let [qkv, gated] = buffers(engine, most * QKV)?;
    let [k_cache, v_cache] = buffers(engine, layout.len())?;
    let logits = engine.alloc(most * TOKENS)?;
    let frequencies: Arc<[f64]> = frequencies(10_000.0, HEAD_SIZE).into();
    let turn = Turn { style: RopeStyle::Halves, frequencies, magnitude: 1.0 };

    let step = |slot: u32, first_position: u32, tokens: &[u32]| {
        let n_rows = tokens.len();
        let rms_norm = || RmsNorm { x, first_row: 0, weight: norm, eps: 1e-5, width: HIDDEN, n_rows, out: normed };
        let product = |weight: MatrixId, from: BufferId, residual: Option<BufferId>, out: BufferId| Matmul {
            weight,
            x: from,
            first_row: 0,
            n_rows,
            bias: None,
            residual,
            out,
        };
        let positions = first_position..first_position + n_rows as u32;
        let mut recording = Recording::new(positions.map(|position| Row { slot, position }).collect());
        recording.push(EmbedRows { table, tokens: tokens.to_vec(), scale: 1.0, adds: false, out: x });
        recording.push(rms_norm());
        recording.push(product(qkv_weight, normed, None, qkv));
        recording.push(RopeKvWrite {
            qkv,
            n_heads: HEADS,
            n_kv_heads: 1,
            head_size: HEAD_SIZE,
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
            n_heads: HEADS,
            n_kv_heads: 1,
            head_size: HEAD_SIZE,
            scale: (HEAD_SIZE as f32).sqrt().recip(),
            cap: None,
            window: None,
            lengths: None,
            bias: None,
            sinks: None,
            out: attended,
        });
        recording.push(product(out_weight, attended, Some(x), x));
        recording.push(rms_norm());
        recording.push(GateUp { function: Activation::Silu, weight: gate_up, x: normed, n_rows, out: gated });
        recording.push(product(down, gated, Some(x), x));
        recording.push(RoundRows { x, width: HIDDEN, n_rows, to: ActivationRounding::F16 });
        recording.push(rms_norm());
        recording.push(product(head, normed, None, logits));
        recording.readback(logits, 0..n_rows * TOKENS);
        recording
    };
    let mut questions = Vec::new();
    let mut first_position = 0;
    for tokens in STEPS {
        let positions = first_position..first_position + tokens.len() as u32;
        first_position = positions.end;
        let rows = if tokens.len() == 1 { "a row" } else { "several rows" };
        questions.push(Asked {
            what: format!("a layer and its head, of {rows}"),
            recording: step(0, positions.start, tokens),
            apart: positions.zip(tokens.chunks(1)).map(|(position, token)| step(1, position, token)).collect(),
        });
    }
    Ok(questions)
}

/// Products with a matrix of each type.
fn questions_of_products(
    engine: &mut dyn Engine,
    weight_types: &[WeightType],
    _: KvType,
) -> Result<Vec<Asked>, EngineError> {
    let mut chance = Chance::new(2);
    let x = engine.alloc(ROWS * INPUTS)?;
    engine.write(x, 0, &chance.values(ROWS * INPUTS))?;
    let out = engine.alloc(ROWS * OUTPUTS)?;
    let apart = (0..ROWS).map(|_| engine.alloc(OUTPUTS)).collect::<Result<Vec<_>, _>>()?;
    let mut questions = Vec::new();
    for &weight_type in weight_types {
        let weight = matrix(&mut chance, engine, weight_type, OUTPUTS, INPUTS)?;
        let product = |first_row: usize, n_rows: usize, out: BufferId| Matmul {
            weight,
            x,
            first_row,
            n_rows,
            bias: None,
            residual: None,
            out,
        };
        let mut together = Recording::default();
        together.push(product(0, ROWS, out));
        together.readback(out, 0..ROWS * OUTPUTS);
        let mut alone = Recording::default();
        for (row, out) in apart.iter().enumerate() {
            alone.push(product(row, 1, *out));
            alone.readback(*out, 0..OUTPUTS);
        }
        questions.push(Asked {
            what: format!("a product of {} with {ROWS} rows", weight_type.name()),
            recording: together,
            apart: vec![alone],
        });
    }
    Ok(questions)
}

fn buffers<const N: usize>(engine: &mut dyn Engine, len: usize) -> Result<[BufferId; N], EngineError> {
    let mut buffers = [engine.alloc(len)?; N];
    for buffer in buffers.iter_mut().skip(1) {
        *buffer = engine.alloc(len)?;
    }
    Ok(buffers)
}

/// A matrix of blocks whose values are of a size that weights have: any bytes of which that is true.
fn matrix(
    chance: &mut Chance,
    engine: &mut dyn Engine,
    weight_type: WeightType,
    n_rows: usize,
    n_cols: usize,
) -> Result<MatrixId, EngineError> {
    let (n_values, n_bytes) = weight_type.block();
    let (mut values, mut block) = (vec![0.0; n_values], vec![0; n_bytes]);
    let mut ggml = Vec::with_capacity(n_rows * n_cols / n_values * n_bytes);
    for _ in 0..n_rows * n_cols / n_values {
        loop {
            block.fill_with(|| chance.bits() as u8);
            weight_type.dequantise(&block, &mut values);
            let is_number = values.iter().all(|value| value.is_finite());
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            if is_number && (0.05..1.0).contains(&largest) {
                break;
            }
        }
        ggml.extend_from_slice(&block);
    }
    engine.load_matrix(weight_type, n_rows, n_cols, &ggml)
}
