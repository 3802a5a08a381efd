//! The bits of single ops of f32: those of the oracle in the order of sums of each backend.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::cpu::order::Order;
use polyphony_kernels::{
    Activate, Activation, Arithmetic, Engine, LayerNorm, Matmul, Recording, RmsNorm, ScaleRows, WeightType,
};

use super::engines::{cpu_int8, vulkan_with};
use super::random::Random;
use super::twins::filled;

/// Runs one recording on the oracle of each order and on the engines that it is the order of. Of GPUs those whose driver computes as written.
fn same_bits(what: &str, build: impl Fn(&mut dyn Engine, &mut Random) -> Recording) {
    let mut vulkan = vulkan_with(Arithmetic::Int8);
    let n_opened = vulkan.len();
    vulkan.retain(|engine| engine.numerics().contains("llvmpipe"));
    if vulkan.len() < n_opened {
        eprintln!("note: {what}: a driver that nobody has held to an order has bits of its own");
    }
    for (order, engines) in [(Order::Processor, vec![cpu_int8(1), cpu_int8(3)]), (Order::Vulkan, vulkan)] {
        let mut oracle = CpuEngine::int8_reference(order).unwrap();
        let recording = build(&mut oracle, &mut Random(7));
        let expected = oracle.run(&recording).unwrap();
        for mut engine in engines {
            let recording = build(engine.as_mut(), &mut Random(7));
            let found = engine.run(&recording).unwrap();
            let n_others =
                found.iter().zip(&expected).filter(|(found, expected)| found.to_bits() != expected.to_bits());
            assert_eq!(n_others.count(), 0, "{what}: {} of {} values", engine.device(), expected.len());
        }
    }
}

#[test]
fn norms_have_the_bits_of_their_order() {
    for (width, n_rows) in [(16, 9), (24, 3), (64, 1), (96, 5), (576, 2), (1000, 1)] {
        same_bits(&format!("RMS norm of {width}"), |engine, random| {
            let x = filled(engine, random, n_rows * width);
            let weight = engine.load_vector(&random.values(width)).unwrap();
            let out = engine.alloc(n_rows * width).unwrap();
            let mut recording = Recording::new(vec![]);
            recording.push(RmsNorm { x, first_row: 0, weight, eps: 1e-5, width, n_rows, out });
            recording.readback(out, 0..n_rows * width);
            recording
        });
        for is_biased in [false, true] {
            same_bits(&format!("layer norm of {width}, biased: {is_biased}"), |engine, random| {
                let x = filled(engine, random, n_rows * width);
                let weight = engine.load_vector(&random.values(width)).unwrap();
                let bias = is_biased.then(|| engine.load_vector(&random.values(width)).unwrap());
                let out = engine.alloc(n_rows * width).unwrap();
                let mut recording = Recording::new(vec![]);
                recording.push(LayerNorm { x, first_row: 0, weight, bias, eps: 1e-5, width, n_rows, out });
                recording.readback(out, 0..n_rows * width);
                recording
            });
        }
    }
}

#[test]
fn activations_have_the_bits_of_their_definition() {
    for function in [Activation::Gelu, Activation::Relu, Activation::Silu, Activation::SiluClamped] {
        same_bits(&format!("{function:?}"), |engine, random| {
            let (width, n_rows) = (200, 5);
            let x = filled(engine, random, n_rows * width);
            let out = engine.alloc(n_rows * width).unwrap();
            let mut recording = Recording::new(vec![]);
            // Random values are below 1.
            recording.push(ScaleRows { x, scale: 20.0, cap: None, width, n_rows });
            recording.push(Activate { function, x, factor: None, width, n_rows, out });
            recording.readback(out, 0..n_rows * width);
            recording
        });
    }
}

#[test]
fn products_of_floats_have_the_bits_of_their_order() {
    for weight_type in [WeightType::F32, WeightType::F16, WeightType::Bf16] {
        for (n_out, n_in, n_rows) in [(5, 32, 1), (64, 72, 3), (33, 576, 4), (100, 120, 6), (9, 4000, 9)] {
            for is_biased in [false, true] {
                same_bits(&format!("{weight_type:?}, {n_out} of {n_in}, biased: {is_biased}"), |engine, random| {
                    let weight = random.matrix(weight_type, n_out, n_in);
                    let weight = engine.load_matrix(weight_type, n_out, n_in, &weight).unwrap();
                    let x = filled(engine, random, n_rows * n_in);
                    let bias = is_biased.then(|| engine.load_vector(&random.values(n_out)).unwrap());
                    let out = engine.alloc(n_rows * n_out).unwrap();
                    let mut recording = Recording::new(vec![]);
                    recording.push(Matmul { weight, x, first_row: 0, n_rows, bias, residual: Some(out), out });
                    recording.readback(out, 0..n_rows * n_out);
                    recording
                });
            }
        }
    }
}
