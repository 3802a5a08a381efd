//! The int8 class on real matrices: those of every golden file, on every engine, against the oracle of the class.

use std::fs;

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::cpu::order::Order;
use polyphony_kernels::{Engine, Matmul, Recording, WeightType};
use polyphony_model::{Manifest, TensorEntry, TensorReader};

use crate::engines::open;
use crate::golden::{CPU_INT8, VULKAN_INT8, golden_folder, vulkan_is_here};

const N_ROWS: usize = 5;

/// Rows of many sizes, which are the same in every run.
fn rows(n_cols: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 % 4093) as f32 / 2046.0 - 1.0) * [1.0, 30.0, 0.02, 4.0][i / 48 % 4];
    (0..N_ROWS * n_cols).map(value).collect()
}

/// The products of a matrix with one row and with several.
fn products(engine: &mut dyn Engine, tensor: &TensorEntry, bytes: &[u8]) -> Vec<u32> {
    let weight_type = WeightType::named(tensor.tensor_type.name()).unwrap();
    let (n_cols, n_rows) = (tensor.shape[0] as usize, tensor.shape[1] as usize);
    let weight = engine.load_matrix(weight_type, n_rows, n_cols, bytes).unwrap();
    let x = engine.alloc(N_ROWS * n_cols).unwrap();
    let (one, all) = (engine.alloc(n_rows).unwrap(), engine.alloc(N_ROWS * n_rows).unwrap());
    let mut recording = Recording::default();
    recording.upload(x, 0, rows(n_cols));
    for (n, out) in [(1, one), (N_ROWS, all)] {
        recording.push(Matmul { weight, x, first_row: 0, n_rows: n, bias: None, residual: None, out });
        recording.readback(out, 0..n * n_rows);
    }
    engine.run(&recording).unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_quantised_matrix_of_every_golden_file_has_the_products_of_the_oracle() {
    // Each beside the oracle whose order of sums it has.
    let mut engines = vec![(open(CPU_INT8).unwrap(), Order::Processor)];
    if vulkan_is_here() {
        engines.push((open(VULKAN_INT8).unwrap(), Order::Vulkan));
    }
    let oracle = |order| CpuEngine::int8_reference(order).unwrap();
    let mut engines: Vec<_> = engines.into_iter().map(|(engine, order)| (engine, oracle(order))).collect();
    let mut seen = std::collections::BTreeSet::new();
    for file in fs::read_dir(golden_folder().join("tiny")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "gguf") {
            continue;
        }
        let manifest = Manifest::outline(&file).unwrap();
        let is_quantised = |tensor: &&TensorEntry| {
            let weight_type = WeightType::named(tensor.tensor_type.name());
            weight_type.is_some_and(|it| it.packing().quantised().is_some()) && tensor.shape.len() == 2
        };
        for tensor in manifest.tensors.iter().filter(is_quantised) {
            let bytes = TensorReader::open(&file, &manifest, tensor).unwrap().read_all().unwrap();
            for (engine, oracle) in &mut engines {
                let expected = products(oracle, tensor, &bytes);
                let found = products(engine.as_mut(), tensor, &bytes);
                assert!(found == expected, "{}: {} of {}", engine.device(), tensor.name, file.display());
            }
            seen.insert(tensor.tensor_type);
        }
    }
    let n_quantised = WeightType::ALL.iter().filter(|it| it.packing().quantised().is_some()).count();
    assert_eq!(seen.len(), n_quantised, "every type has a file: {seen:?}");
}
