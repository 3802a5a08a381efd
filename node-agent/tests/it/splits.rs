//! Splits: every model of the golden folder gives the same bits in one segment, in two and in three, in each class.

use polyphony_agent::segment::Rounding;
use polyphony_kernels::{Backend, KvType};
use polyphony_model::Manifest;
use polyphony_protocol::ActivationType;

use crate::engines::open;
use crate::golden::{CPU, CPU_INT8, VULKAN, VULKAN_INT8, tiny_models, vulkan_is_here};
use crate::oracle::bits;

/// Two segments, and three where there are as many layers.
fn cuts(n_layers: u32) -> Vec<Vec<u32>> {
    let mut cuts = Vec::new();
    if n_layers > 1 {
        cuts.push(vec![n_layers / 2]);
    }
    if n_layers > 2 {
        cuts.push(vec![1, n_layers - 1]);
    }
    cuts
}

fn give_the_same_bits(backend: Backend) {
    // As a deployment has it that says nothing.
    let rounding = Rounding { activation_type: ActivationType::F16, kv_type: KvType::F16 };
    let (models, mut others, mut n_cuts) = (tiny_models(), Vec::new(), 0);
    for path in &models {
        let engine = || open(backend).unwrap();
        let whole = bits(path, &[], &engine, rounding);
        for cuts in cuts(Manifest::build(path).unwrap().hyperparameters.n_layers) {
            n_cuts += 1;
            if bits(path, &cuts, &engine, rounding) != whole {
                others.push(format!("{}, cut at {cuts:?}", path.display()));
            }
        }
    }
    assert!(models.len() >= 40 && n_cuts > 80, "{} models, {n_cuts} cuts", models.len());
    assert_eq!(others, Vec::<String>::new(), "{backend:?}");
}

#[test]
fn every_model_gives_the_same_bits_however_it_is_cut_on_the_cpu() {
    give_the_same_bits(CPU);
    give_the_same_bits(CPU_INT8);
}

#[test]
fn every_model_gives_the_same_bits_however_it_is_cut_on_vulkan() {
    if vulkan_is_here() {
        give_the_same_bits(VULKAN);
    }
}

#[test]
fn every_model_gives_the_same_bits_however_it_is_cut_on_vulkan_in_8_bits() {
    if vulkan_is_here() {
        give_the_same_bits(VULKAN_INT8);
    }
}
