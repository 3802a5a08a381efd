//! Types of KV caches: each has one result however a model is cut, as near to the golden one as was measured.

use polyphony_agent::segment::Rounding;
use polyphony_kernels::{Backend, KvType};
use polyphony_protocol::ActivationType;

use crate::golden::{
    CPU, CPU_INT8, LOSSY, Off, Ring, VULKAN, VULKAN_INT8, compare, golden, golden_folder, greedy, off, vulkan_is_here,
};
use crate::real_models::SMOLLM2;

/// Over hidden states as they are computed: what is lost is lost by the cache.
fn of_f32(kv_type: KvType) -> Rounding {
    Rounding { activation_type: ActivationType::F32, kv_type }
}

fn of_f16(kv_type: KvType) -> Rounding {
    Rounding { activation_type: ActivationType::F16, kv_type }
}

/// One segment, two and three, each with prompts in chunks of another size; heads of 16 and of 10 values, windows, caps, sinks.
fn every_split_agrees(backend: Backend) {
    for name in ["llama_q4_1", "gemma2", "falcon", "lfm2", "bloom"] {
        let path = golden_folder().join(format!("tiny/{name}.gguf"));
        let prompt = &golden(&format!("tiny/{name}.json")).cases[2].prompt_ids;
        let mut all = Vec::new();
        for kv_type in KvType::ALL {
            let whole = greedy(&mut Ring::load(&path, &[], backend, of_f16(kv_type)), prompt, 16, 24);
            for (cuts, chunk) in [(&[1][..], 5), (&[1, 3], 3), (&[2], 1)] {
                let split = greedy(&mut Ring::load(&path, cuts, backend, of_f16(kv_type)), prompt, chunk, 24);
                assert!(split == whole, "{name}, {kv_type:?}: cut at {cuts:?}, in chunks of {chunk}");
            }
            assert!(!all.contains(&whole), "{name}: {kv_type:?} keeps what another type does");
            all.push(whole);
        }
    }
}

#[test]
fn every_split_gives_the_same_bits_on_the_cpu() {
    every_split_agrees(CPU);
    every_split_agrees(CPU_INT8);
}

#[test]
fn every_split_gives_the_same_bits_on_vulkan() {
    if vulkan_is_here() {
        every_split_agrees(VULKAN);
        every_split_agrees(VULKAN_INT8);
    }
}

/// Keys and values of 11 significant bits, over all steps of a golden file.
const F16: [Off; 3] = [off(0.01287, 0.00147), off(0.00395, 0.00063), off(0.0203, 0.00165)];
/// Of 8 bits, one scale for 32 values.
const Q8: [Off; 3] = [off(0.219, 0.0302), off(0.078, 0.0138), off(0.412, 0.0588)];

/// Two tiny models and a real one, in the order of what was measured.
fn are_as_near_as_measured(kv_type: KvType, measured: [Off; 3]) {
    let tiny = ["llama", "bloom"].map(|name| {
        let path = golden_folder().join(format!("tiny/{name}.gguf"));
        (Some(path), golden(&format!("tiny/{name}.json")), 0.0)
    });
    // Of 96 steps of the real model at most two may have another best token.
    let real = [(SMOLLM2.path(), golden(SMOLLM2.golden), 0.97)];
    for ((path, golden, share), measured) in tiny.into_iter().chain(real).zip(measured) {
        let Some(path) = path else { continue };
        println!("{}, {kv_type:?}", path.display());
        let mut ring = Ring::load(&path, &[2], CPU, of_f32(kv_type));
        let same = compare(&mut ring, &golden, measured.times(LOSSY), usize::MAX).same;
        assert!(same >= share, "{same}");
    }
}

#[test]
fn f16_caches_are_as_near_as_measured() {
    are_as_near_as_measured(KvType::F16, F16);
}

#[test]
fn caches_of_8_bits_are_as_near_as_measured() {
    are_as_near_as_measured(KvType::Q8, Q8);
}
