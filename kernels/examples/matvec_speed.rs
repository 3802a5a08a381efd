//! Speed of matrix times rows on the shapes of SmolLM2-135M, on every engine: nanoseconds a multiply-add, by the wall and of processor time,
//! and 10^9 weight bytes a second.
//!
//! `cargo run -p polyphony-kernels --example matvec_speed -- [--json] [--peer] [ENGINE]…`; with `--json` one object a line, with `--peer` the shape that
//! llama.cpp's `test-backend-ops perf -o MUL_MAT` measures. Engines are `cpu`, `cpu-2` (threads),
//! `cpu-int8`, `cpu-int8-2`, and `image` and `storage`, each also with `-int8`.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::vulkan::{Lanes, Options, VulkanEngine, WeightSource};
use polyphony_kernels::{Arithmetic, Engine, EngineError, Matmul, Recording, WeightType};

/// What is multiplied: name, type, outputs, inputs, times in a step.
type Shape = (&'static str, WeightType, usize, usize, usize);

const SHAPES: [Shape; 8] = [
    ("query-key-value", WeightType::Q4_1, 960, 576, 30),
    ("attention-out", WeightType::Q4_1, 576, 576, 30),
    ("gate-up", WeightType::Q4_1, 3072, 576, 30),
    ("down", WeightType::Q4_1, 576, 1536, 30),
    ("gate-up", WeightType::Q4_0, 3072, 576, 30),
    ("vocabulary", WeightType::Q8_0, 49_152, 576, 1),
    // As Q4_K_M files of Gemma 3 270M have them, widened to whole blocks.
    ("gate-up", WeightType::Q4K, 4096, 768, 18),
    ("down", WeightType::Q6K, 768, 2048, 18),
];

const OF_PEER: [Shape; 3] = [
    ("peer's", WeightType::Q4_0, 4096, 14_336, 1),
    ("peer's", WeightType::Q4K, 4096, 14_336, 1),
    ("peer's", WeightType::Q8_0, 4096, 14_336, 1),
];

/// How long one shape is measured.
const MEASURE_FOR: Duration = Duration::from_millis(250);

fn main() -> Result<(), EngineError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, names): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|word| word.starts_with("--"));
    let json = flags.iter().any(|flag| *flag == "--json");
    let shapes = if flags.iter().any(|flag| *flag == "--peer") { &OF_PEER[..] } else { &SHAPES };
    let wanted = |name: &str| names.iter().any(|wanted| *wanted == name);
    let all = names.is_empty();
    for (name, threads, arithmetic) in [
        ("cpu", 1, Arithmetic::F32),
        ("cpu-2", 2, Arithmetic::F32),
        ("cpu-int8", 1, Arithmetic::Int8),
        ("cpu-int8-2", 2, Arithmetic::Int8),
    ] {
        if all || wanted(name) {
            measure(&mut CpuEngine::with_arithmetic(threads, arithmetic)?, name, shapes, json)?;
        }
    }
    for (name, source, arithmetic) in [
        ("image", WeightSource::Image, Arithmetic::F32),
        ("image-int8", WeightSource::Image, Arithmetic::Int8),
        ("storage", WeightSource::Storage, Arithmetic::F32),
        ("storage-int8", WeightSource::Storage, Arithmetic::Int8),
    ] {
        let options = Options { source: Some(source), arithmetic, ..Options::default() };
        if all || wanted(name) {
            measure(&mut VulkanEngine::new(options.clone())?, name, shapes, json)?;
        }
        for n_rows in [1, 2, 4] {
            if wanted(&format!("{name}-lanes")) {
                let lanes = Some(Lanes { n_rows, workgroup: 32, n_splits: 1 });
                let engine = format!("{name}-{n_rows}");
                measure(&mut VulkanEngine::new(Options { lanes, ..options.clone() })?, &engine, shapes, json)?;
            }
        }
    }
    Ok(())
}

fn measure(engine: &mut dyn Engine, name: &str, shapes: &[Shape], json: bool) -> Result<(), EngineError> {
    if !json {
        println!("{name}: {}", engine.device());
        let heads = ["matrix", "type", "rows", "first ms", "wall ns", "cpu ns", "GB/s"];
        let [matrix, weight_type, rows, first, wall, cpu, bytes] = heads;
        println!("  {matrix:<18}{weight_type:>6}{rows:>6}{first:>10}{wall:>10}{cpu:>10}{bytes:>8}");
    }
    for &(matrix, weight_type, n_out, n_in, times) in shapes {
        let n_bytes = weight_type.matrix_bytes(n_out, n_in).unwrap();
        // Scales of 2^-9 or so: what is multiplied does not matter as long as it is finite.
        let weight = engine.load_matrix(weight_type, n_out, n_in, &vec![0x18; n_bytes])?;
        for n_rows in [1, 4] {
            let (x, out) = (engine.alloc(n_rows * n_in)?, engine.alloc(n_rows * n_out)?);
            engine.write(x, 0, &vec![0.5; n_rows * n_in])?;
            let mut step = Recording::default();
            for _ in 0..times {
                step.push(Matmul { weight, x, first_row: 0, n_rows, bias: None, residual: None, out });
            }
            step.readback(out, 0..1);
            let start = Instant::now();
            engine.run(&step)?;
            let first = start.elapsed();
            let (start, cpu_start) = (Instant::now(), cpu_time());
            let mut n_runs = 0;
            while start.elapsed() < MEASURE_FOR {
                engine.run(&step)?;
                n_runs += 1;
            }
            let elapsed = start.elapsed();
            let multiply_adds = (n_out * n_in * n_rows * times * n_runs) as f64;
            let wall_ns = elapsed.as_nanos() as f64 / multiply_adds;
            let cpu_ns = (cpu_time() - cpu_start).as_nanos() as f64 / multiply_adds;
            let gigabytes = (n_bytes * times * n_runs) as f64 / elapsed.as_secs_f64() / 1e9;
            let weight_type = weight_type.name();
            if json {
                println!(
                    r#"{{"kernel":"matmul","matrix":"{matrix}","type":"{weight_type}","rows":{n_rows},"engine":"{name}","cpu_ns_per_multiply_add":{cpu_ns:.4},"wall_ns_per_multiply_add":{wall_ns:.4},"gigabytes_per_second":{gigabytes:.3}}}"#
                );
            } else {
                let first = first.as_secs_f64() * 1e3;
                println!(
                    "  {matrix:<18}{weight_type:>6}{n_rows:>6}{first:>10.1}{wall_ns:>10.3}{cpu_ns:>10.3}{gigabytes:>8.2}"
                );
            }
        }
    }
    Ok(())
}

/// Processor time of this process, in steps of 10 ms; zero where there is no `/proc`.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: fields 14 and 15 of all are user and system time in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let hundredths: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(hundredths * 10)
}
