//! Speed of matrix times rows on the shapes of SmolLM2-135M, on every engine: nanoseconds a multiply-add, by the wall and of processor time.
//!
//! `cargo run -p polyphony-kernels --example matvec_speed [cpu|texture|storage]…`

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::vulkan::{VulkanEngine, WeightSource};
use polyphony_kernels::{Engine, EngineError, Matmul, Recording, WeightType};

/// What is multiplied: name, type, outputs, inputs, times in a step.
const SHAPES: [(&str, WeightType, usize, usize, usize); 5] = [
    ("q, attention out", WeightType::Q4_1, 576, 576, 30),
    ("k, v", WeightType::Q4_1, 192, 576, 30),
    ("gate, up", WeightType::Q4_1, 1536, 576, 30),
    ("down", WeightType::Q4_1, 576, 1536, 30),
    ("vocabulary", WeightType::Q8_0, 49_152, 576, 1),
];

fn main() -> Result<(), EngineError> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if wanted("cpu") {
        measure(&mut CpuEngine::new(1)?)?;
        measure(&mut CpuEngine::new(0)?)?;
    }
    for (name, source) in [("texture", WeightSource::Texture), ("storage", WeightSource::Storage)] {
        if wanted(name) {
            measure(&mut VulkanEngine::with_source(source)?)?;
        }
    }
    Ok(())
}

fn measure(engine: &mut dyn Engine) -> Result<(), EngineError> {
    println!("{}", engine.device());
    println!("  {:<18}{:>6}{:>10}{:>12}{:>12}", "matrix", "rows", "first ms", "wall ns", "cpu ns");
    for (name, weight_type, n_out, n_in, times) in SHAPES {
        let bytes = weight_type.matrix_bytes(n_out, n_in).unwrap();
        // Scales of 2^-9 or so: what is multiplied does not matter as long as it is finite.
        let weight = engine.load_matrix(weight_type, n_out, n_in, &vec![0x18; bytes])?;
        for n_rows in [1, 4, 32] {
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
            while start.elapsed() < Duration::from_millis(600) {
                engine.run(&step)?;
                n_runs += 1;
            }
            let multiply_adds = (n_out * n_in * n_rows * times * n_runs) as f64;
            let wall = start.elapsed().as_nanos() as f64 / multiply_adds;
            let cpu = (cpu_time() - cpu_start).as_nanos() as f64 / multiply_adds;
            println!("  {name:<18}{n_rows:>6}{:>10.1}{wall:>12.3}{cpu:>12.3}", first.as_secs_f64() * 1e3);
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
