//! The folder for pipelines and tunings: it saves time and changes no bit, whole or damaged.

use std::path::Path;

use polyphony_kernels::vulkan::Options;
use polyphony_kernels::{Activation, Arithmetic, Engine, GateUp, Matmul, Recording, WeightType};

use super::engines::vulkan_as;
use super::random::Random;

/// The bits of some products, or nothing where there is no adapter.
fn bits(arithmetic: Arithmetic, cache: Option<&Path>) -> Option<Vec<u32>> {
    let options = Options { arithmetic, cache: cache.map(Path::to_path_buf), ..Options::default() };
    let mut engine = vulkan_as(options)?;
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
    let folder = std::env::temp_dir().join(format!("polyphony-cache-{}", std::process::id()));
    for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
        let Some(expected) = bits(arithmetic, None) else { return };
        assert_eq!(bits(arithmetic, Some(&folder)), Some(expected.clone()), "a new folder");
        assert_eq!(bits(arithmetic, Some(&folder)), Some(expected.clone()), "a used folder");
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_string_lossy()).collect();
        assert!(names.iter().any(|name| name.starts_with("tuning-")), "{names:?}");
        for file in &files {
            let mut bytes = std::fs::read(file).unwrap();
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
            std::fs::write(file, bytes).unwrap();
        }
        assert_eq!(bits(arithmetic, Some(&folder)), Some(expected), "a damaged folder");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
