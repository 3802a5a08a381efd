//! Where a step's time goes, by kind of op, in a model of SmolLM2-135M's shapes: milliseconds of a token, and of a chunk of a prompt.
//!
//! `cargo run -p polyphony-kernels --example step_speed -- [--positions N] [--rows N] [--type NAME] [ENGINE]…`. Engines are `cpu`, `cpu-2` (threads) and
//! `vulkan`, each also with `-int8`; without one, `vulkan-int8`. The kinds are timed each alone, so what a step costs once is in each of them.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::ops::rope::frequencies;
use polyphony_kernels::vulkan::{Options, VulkanEngine};
use polyphony_kernels::{
    Activation, Arithmetic, Attention, BufferId, EmbedRows, Engine, EngineError, GateUp, KvLayout, KvType, Matmul,
    MatrixId, Op, Recording, RmsNorm, RopeKvWrite, RopeStyle, Row, Turn, WeightType,
};

const LAYERS: usize = 30;
const HIDDEN: usize = 576;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_SIZE: usize = 64;
const FEED_FORWARD: usize = 1536;
const VOCABULARY: usize = 49_152;

/// How long one kind is measured.
const MEASURE_FOR: Duration = Duration::from_millis(1000);

fn main() -> Result<(), EngineError> {
    let mut words = std::env::args().skip(1);
    let (mut n_positions, mut n_rows, mut weight_type, mut engines) = (64, 1, WeightType::Q4_0, Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--positions" => n_positions = words.next().unwrap().parse().unwrap(),
            "--rows" => n_rows = words.next().unwrap().parse().unwrap(),
            "--type" => {
                let name = words.next().unwrap();
                weight_type = WeightType::ALL.into_iter().find(|one| one.name() == name).unwrap();
            }
            _ => engines.push(word),
        }
    }
    if engines.is_empty() {
        engines.push("vulkan-int8".to_owned());
    }
    for name in engines {
        let arithmetic = if name.ends_with("-int8") { Arithmetic::Int8 } else { Arithmetic::F32 };
        let mut engine: Box<dyn Engine> = match name.trim_end_matches("-int8") {
            "cpu" => Box::new(CpuEngine::with_arithmetic(1, arithmetic)?),
            "cpu-2" => Box::new(CpuEngine::with_arithmetic(2, arithmetic)?),
            "vulkan" => Box::new(VulkanEngine::new(Options { arithmetic, ..Options::default() })?),
            other => panic!("no engine is called {other}"),
        };
        println!("{name}: {}", engine.device());
        measure(engine.as_mut(), weight_type, n_positions, n_rows)?;
    }
    Ok(())
}

/// A step whose last row sees `n_positions`.
fn measure(
    engine: &mut dyn Engine,
    weight_type: WeightType,
    n_positions: usize,
    n_rows: usize,
) -> Result<(), EngineError> {
    let rows: Vec<Row> = (n_positions - n_rows..n_positions).map(|at| Row { slot: 0, position: at as u32 }).collect();
    let (ops, logits) = step(engine, weight_type, n_positions, n_rows)?;
    let time = |engine: &mut dyn Engine, kind: Option<&str>| -> Result<[f64; 2], EngineError> {
        let mut recording = Recording::new(rows.clone());
        recording.ops = ops.iter().filter(|op| kind.is_none_or(|kind| self::kind(op) == kind)).cloned().collect();
        let values = if kind.is_none_or(|kind| kind == "head") { 0..VOCABULARY } else { 0..1 };
        recording.readback(logits, values);
        engine.run(&recording)?;
        let (start, mut runs) = (Instant::now(), Vec::new());
        while start.elapsed() < MEASURE_FOR || runs.len() < 3 {
            let began = Instant::now();
            engine.run(&recording)?;
            runs.push(began.elapsed().as_secs_f64() * 1e3);
        }
        runs.sort_by(f64::total_cmp);
        Ok([runs[0], runs[runs.len() / 2]])
    };
    println!("  {:<16}{:>10}{:>10}", "", "least ms", "median");
    let tell =
        |kind: &str, n: usize, [least, median]: [f64; 2]| println!("  {kind:<16}{least:>10.3}{median:>10.3}  of {n}");
    tell("all", ops.len(), time(engine, None)?);
    tell("nothing", 0, time(engine, Some("nothing"))?);
    let mut kinds: Vec<String> = Vec::new();
    for op in &ops {
        let kind = kind(op);
        if !kinds.contains(&kind) {
            let n = ops.iter().filter(|other| self::kind(other) == kind).count();
            tell(&kind, n, time(engine, Some(&kind))?);
            kinds.push(kind);
        }
    }
    Ok(())
}

fn kind(op: &Op) -> String {
    match op {
        // The head's is the last.
        Op::Matmul(product)
            if product.n_rows == 1 && product.residual.is_none() && product.bias.is_none() && product.first_row > 0 =>
        {
            "head".to_owned()
        }
        Op::Matmul(product) if product.residual.is_some() => "Matmul, added".to_owned(),
        op => op.name().to_owned(),
    }
}

/// The ops of a step, and where its logits are.
fn step(
    engine: &mut dyn Engine,
    weight_type: WeightType,
    n_positions: usize,
    n_rows: usize,
) -> Result<(Vec<Op>, BufferId), EngineError> {
    let matrix = |engine: &mut dyn Engine, weight_type: WeightType, n_out: usize, n_in: usize| {
        // Scales of 2^-9 or so: what is multiplied does not matter as long as it is finite.
        engine.load_matrix(weight_type, n_out, n_in, &vec![0x18; weight_type.matrix_bytes(n_out, n_in).unwrap()])
    };
    let table = matrix(engine, WeightType::Q8_0, VOCABULARY, HIDDEN)?;
    let norm = engine.load_vector(&[1.0; HIDDEN])?;
    let layout = KvLayout { n_slots: 1, n_positions, kv_width: KV_HEADS * HEAD_SIZE, kv_type: KvType::F16 };
    // One row more: the head's is the last.
    let (x, normed) = (engine.alloc((n_rows + 1) * HIDDEN)?, engine.alloc((n_rows + 1) * HIDDEN)?);
    let qkv_width = (HEADS + 2 * KV_HEADS) * HEAD_SIZE;
    let qkv = engine.alloc(n_rows * qkv_width)?;
    let (q, attended) = (engine.alloc(n_rows * HIDDEN)?, engine.alloc(n_rows * HIDDEN)?);
    let gated = engine.alloc(n_rows * FEED_FORWARD)?;
    let logits = engine.alloc(VOCABULARY)?;
    let frequencies: Arc<[f64]> = frequencies(10_000.0, HEAD_SIZE).into();
    let turn = Turn { style: RopeStyle::Halves, frequencies, magnitude: 1.0 };
    let product = |weight: MatrixId, x: BufferId, residual: Option<BufferId>, out: BufferId| Matmul {
        weight,
        x,
        first_row: 0,
        n_rows,
        bias: None,
        residual,
        out,
    };
    let rms_norm = || RmsNorm { x, first_row: 0, weight: norm, eps: 1e-5, width: HIDDEN, n_rows, out: normed };
    let tokens = (0..n_rows as u32).map(|at| at * 7 + 5).collect();
    let mut ops: Vec<Op> = vec![EmbedRows { table, tokens, scale: 1.0, adds: false, out: x }.into()];
    for _ in 0..LAYERS {
        let [k_cache, v_cache] = [engine.alloc(layout.len())?, engine.alloc(layout.len())?];
        let qkv_weight = matrix(engine, weight_type, qkv_width, HIDDEN)?;
        let out_weight = matrix(engine, weight_type, HIDDEN, HIDDEN)?;
        let gate_up = matrix(engine, weight_type, 2 * FEED_FORWARD, HIDDEN)?;
        let down = matrix(engine, weight_type, HIDDEN, FEED_FORWARD)?;
        ops.push(rms_norm().into());
        ops.push(product(qkv_weight, normed, None, qkv).into());
        let (n_heads, n_kv_heads, head_size) = (HEADS, KV_HEADS, HEAD_SIZE);
        let turn = Some(turn.clone());
        ops.push(RopeKvWrite { qkv, n_heads, n_kv_heads, head_size, turn, q, k_cache, v_cache, layout }.into());
        let attention = Attention {
            q,
            k_cache,
            v_cache,
            layout,
            n_heads,
            n_kv_heads,
            head_size,
            scale: 0.125,
            cap: None,
            window: None,
            lengths: None,
            bias: None,
            sinks: None,
            out: attended,
        };
        ops.push(attention.into());
        ops.push(product(out_weight, attended, Some(x), x).into());
        ops.push(rms_norm().into());
        ops.push(GateUp { function: Activation::Silu, weight: gate_up, x: normed, n_rows, out: gated }.into());
        ops.push(product(down, gated, Some(x), x).into());
    }
    let head =
        Matmul { weight: table, x: normed, first_row: n_rows, n_rows: 1, bias: None, residual: None, out: logits };
    ops.push(head.into());
    Ok((ops, logits))
}
