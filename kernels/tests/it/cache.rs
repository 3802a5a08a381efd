//! The folder for pipelines and tunings: it saves time and changes no bit, whole or damaged.

use std::path::Path;

use polyphony_kernels::vulkan::Options;
use polyphony_kernels::{Activation, Arithmetic, Engine, GateUp, Matmul, Recording, WeightType};

use super::engines::vulkan_as;
use super::random::Random;

/// The bits of some products, or nothing where there is no adapter.
fn bits(options: &Options, cache: Option<&Path>) -> Option<Vec<u32>> {
    let mut engine = vulkan_as(Options { cache: cache.map(Path::to_path_buf), ..options.clone() })?;
    let (n_out, n_in, n_rows) = (66, 96, 5);
    let mut random = Random(4);
    let ggml = random.matrix(WeightType::Q4_1, n_out, n_in);
    let weight = engine.load_matrix(WeightType::Q4_1, n_out, n_in, &ggml).unwrap();
    let x = engine.alloc(n_rows * n_in).unwrap();
    let (out, gated) = (engine.alloc(n_rows * n_out).unwrap(), engine.alloc(n_rows * n_out / 2).unwrap());
    let mut recording = Recording::default();
    recording.upload(x, 0, random.values(n_rows * n_in));
    recording.push(Matmul { weight, x, first_row: 0, n_rows, bias: None, residual: None, out });
    recording.push(GateUp { function: Activation::Silu, weight, x, n_rows, out: gated });
    recording.readback(out, 0..n_rows * n_out);
    recording.readback(gated, 0..n_rows * n_out / 2);
    Some(engine.run(&recording).unwrap().iter().map(|value| value.to_bits()).collect())
}

#[test]
fn a_folder_new_used_or_damaged_changes_no_bit() {
    // What a processor that plays the GPU gets, and what a real one does: there is more to choose from.
    for (arithmetic, is_software) in
        [(Arithmetic::F32, None), (Arithmetic::Int8, None), (Arithmetic::Int8, Some(false))]
    {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let options = Options { arithmetic, is_software, ..Options::default() };
        let Some(expected) = bits(&options, None) else { return };
        assert_eq!(bits(&options, Some(folder)), Some(expected.clone()), "a new folder");
        assert_eq!(bits(&options, Some(folder)), Some(expected.clone()), "a used folder");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_string_lossy()).collect();
        assert!(names.iter().any(|name| name.starts_with("tuning-")), "{names:?}");
        for file in &files {
            let mut bytes = std::fs::read(file).unwrap();
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
            std::fs::write(file, bytes).unwrap();
        }
        assert_eq!(bits(&options, Some(folder)), Some(expected), "a damaged folder");
    }
}
