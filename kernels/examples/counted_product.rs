//! One product of a matrix with one row of activations of 8 bits, some times, for those who count instructions.
//!
//! `cargo run -p polyphony-kernels --example counted_product -- TYPE OUTPUTS INPUTS TIMES`, such as `Q4_0 512 2048 3`.

#![allow(clippy::unwrap_used)]

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::{Arithmetic, Engine, EngineError, Matmul, Recording, WeightType};

fn main() -> Result<(), EngineError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, numbers @ ..] = &words[..] else { panic!("say TYPE OUTPUTS INPUTS TIMES") };
    let weight_type = WeightType::named(name).expect("a type of GGUF");
    let [n_out, n_in, times] = [0, 1, 2].map(|at| numbers[at].parse::<usize>().unwrap());
    let mut engine = CpuEngine::with_arithmetic(1, Arithmetic::Int8)?;
    let n_bytes = weight_type.matrix_bytes(n_out, n_in).unwrap();
    // Scales of 2^-9 or so.
    let weight = engine.load_matrix(weight_type, n_out, n_in, &vec![0x18; n_bytes])?;
    let (x, out) = (engine.alloc(n_in)?, engine.alloc(n_out)?);
    engine.write(x, 0, &(0..n_in).map(|i| (i % 13) as f32 - 6.0).collect::<Vec<_>>())?;
    let mut recording = Recording::default();
    recording.push(Matmul { weight, x, first_row: 0, bias: None, residual: None, out, n_rows: 1 });
    for _ in 0..times {
        engine.run(&recording)?;
    }
    let values = engine.read(out, 0..n_out)?;
    println!("{}: the first output is {}", engine.device(), values[0]);
    Ok(())
}
