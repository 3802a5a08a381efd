//! Numerics: a digest of the logits that each class gives, held by the class's name. Other bits need another name.

use polyphony_agent::segment::{DecoderRow, Rounding};
use polyphony_kernels::{Backend, KvType, Row};
use polyphony_protocol::ActivationType;
use sha2::{Digest, Sha256};

use crate::encoder_decoder::{self, Graph};
use crate::engines::open;
use crate::golden::{CPU, CPU_INT8, Ring, VULKAN, VULKAN_INT8, golden, golden_folder, vulkan_is_here};

/// Steps of each model.
const N_STEPS: usize = 8;

/// Models and hidden states, between them every op, every type of weights, and every rounding between layers.
const FED: [(&str, ActivationType); 25] = [
    ("llama", ActivationType::F16),
    ("llama_f16", ActivationType::F16),
    ("llama_q8_0", ActivationType::F16),
    ("llama_q4_0", ActivationType::F16),
    ("llama_q4_1", ActivationType::F16),
    ("llama_q4_1", ActivationType::F32),
    ("llama_q4_1", ActivationType::Q8),
    ("llama_freqs", ActivationType::F16),
    ("qwen2", ActivationType::F16),
    ("qwen3", ActivationType::F16),
    ("gpt2", ActivationType::F16),
    ("bloom", ActivationType::F16),
    ("llama_bf16", ActivationType::F16),
    ("llama_q5_0", ActivationType::F16),
    ("llama_q5_1", ActivationType::F16),
    ("llama256_q2_k", ActivationType::F16),
    ("llama256_q3_k", ActivationType::F16),
    ("llama256_q4_k", ActivationType::F16),
    ("llama256_q5_k", ActivationType::F16),
    ("llama256_q6_k", ActivationType::F16),
    ("llama256_iq4_nl", ActivationType::F16),
    ("llama256_iq4_xs", ActivationType::F16),
    ("llama256_mxfp4", ActivationType::F16),
    ("gptoss", ActivationType::F16),
    ("olmoe", ActivationType::F16),
];

/// Models and what keys and values are kept in, over f16: heads of whole fours and others, rows of whole groups and others.
const KEPT: [(&str, KvType); 6] = [
    ("llama_q4_1", KvType::F16),
    ("llama_q4_1", KvType::Q8),
    ("falcon", KvType::F16),
    ("falcon", KvType::Q8),
    ("gemma2", KvType::F16),
    ("gemma2", KvType::Q8),
];

fn digest(logits: &[f32]) -> String {
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_bits().to_le_bytes()).collect();
    hex::encode(&Sha256::digest(bytes)[..6])
}

/// The logits after a prompt and after each of the next tokens, which are given.
fn logits(model: &str, backend: Backend, rounding: impl Into<Rounding>) -> Vec<f32> {
    let case = &golden(&format!("tiny/{model}.json")).cases[2];
    let path = golden_folder().join(format!("tiny/{model}.gguf"));
    let mut ring = Ring::load(&path, &[], backend, rounding);
    let mut all = ring.feed(0, &case.prompt_ids, 16);
    for step in case.steps.iter().take(N_STEPS) {
        all.extend(ring.feed(0, &[step.token], 16));
    }
    all
}

/// The same of a model with an encoder.
fn encoded_logits(backend: Backend) -> Vec<f32> {
    let golden = encoder_decoder::golden();
    let case = &golden.cases[0];
    let mut graph = Graph::load(&[], backend, ActivationType::F16);
    graph.encode(0, &case.prompt_ids);
    let n_encoded = case.prompt_ids.len() as u32;
    let tokens = [golden.decoder_start].into_iter().chain(case.steps.iter().map(|step| step.token));
    let step = |(position, token)| graph.step(&[DecoderRow { row: Row { slot: 0, position }, n_encoded }], vec![token]);
    (0..).zip(tokens).take(N_STEPS).flat_map(step).collect()
}

/// Digests by class, in the order of `FED` and then the encoder's. A GPU's are of its device and driver alone; the driver made of
/// software gives the same bits whether its vectors are 128, 256 or 512 bits wide, which its device's name says.
#[rustfmt::skip]
const HELD: [(&str, [&str; FED.len() + 1]); 4] = [
    (
        "cpu-f32-r1",
        ["fbb486243ef6", "90e2651cd994", "7f7e9b6d42af", "38f4da244b87", "9bca6e1dd398", "aa1106e2fc2d", "d578ce38638d", "e427e789e8ad", "4bfcafb6a577", "7ca6d6ef293f", "3ef222500938", "8331e5fc63e7", "08c07168bd6e", "0545dcdd9095", "49ab593a781e", "ac8d4ef3551f", "60cc46e4d6bb", "85b1bad83487", "18602152cc16", "c40d309fba86", "768b3ae6a266", "34ea0ce3e5ba", "d5bde45988b9", "4c4edbb93e8f", "ccfa949f7c79", "fd3465846d92"],
    ),
    (
        "cpu-int8-r2",
        ["fbb486243ef6", "90e2651cd994", "442bed4978cf", "f992ed76c4dd", "f6aeb41c891c", "5a01b354722d", "5c33713c11da", "e427e789e8ad", "4bfcafb6a577", "7ca6d6ef293f", "3ef222500938", "8331e5fc63e7", "08c07168bd6e", "26c927160869", "7bcd2782eee6", "b66aef4eb7fd", "50765f16ed68", "293a442ae805", "7c71628e83c4", "d7f80b419ae5", "6fb191ce6737", "75c8b9fe7cd4", "fad977e37711", "fd8f691a1cd4", "ccfa949f7c79", "fd3465846d92"],
    ),
    (
        "vulkan-f32-r3-llvmpipe-llvm-15.0.6-mesa-22.3.6-llvm-15.0.6",
        ["2ac4b544ce0d", "61d67af22043", "41fe3dec3019", "9380325e1267", "a56ccc92662d", "1596fe437c2b", "92ddc9fc5d83", "fea1cc52d044", "1e4aac913f8b", "9c1aae52d00e", "ff31eded9eb2", "86cae1b53eac", "9bfa3a562e05", "09f3e825754c", "ecccede85c90", "4d0eec3a7bb9", "5ad624fcf6f7", "96f154b123ce", "891caf8cf6b1", "9e20da4d89d7", "b74f5f57e59d", "76303ae4a707", "09e16cdfb7b5", "74eba0ef7017", "80877176ec15", "cfe85fb482f7"],
    ),
    (
        "vulkan-int8-r4-llvmpipe-llvm-15.0.6-mesa-22.3.6-llvm-15.0.6",
        ["2ac4b544ce0d", "61d67af22043", "442bed4978cf", "f992ed76c4dd", "f6aeb41c891c", "5a01b354722d", "5c33713c11da", "fea1cc52d044", "1e4aac913f8b", "9c1aae52d00e", "ff31eded9eb2", "86cae1b53eac", "9bfa3a562e05", "3b7b19e0520d", "7bcd2782eee6", "dfdbdbd5ef72", "50765f16ed68", "e488a77e8927", "ca9a338d8277", "3ab91a06f446", "6fb191ce6737", "75c8b9fe7cd4", "fad977e37711", "5dd096cc9b94", "80877176ec15", "cfe85fb482f7"],
    ),
];

/// The same of [`KEPT`]. Whoever changes what a type keeps raises the revision of every class, whose names say nothing of it else.
#[rustfmt::skip]
const HELD_OF_KEPT: [(&str, [&str; KEPT.len()]); 4] = [
    ("cpu-f32-r1", ["3179be41a108", "97865470ed46", "0275e73d8b11", "150c12a95bbf", "4eaeb04fe73e", "36d3425097ca"]),
    ("cpu-int8-r2", ["b55926542892", "a903bb180d23", "0275e73d8b11", "150c12a95bbf", "4eaeb04fe73e", "36d3425097ca"]),
    ("vulkan-f32-r3-llvmpipe-llvm-15.0.6-mesa-22.3.6-llvm-15.0.6", ["8aafd4ae140d", "20699358fc99", "87da969b06d7", "686ecf637cee", "8c63a6503578", "4e85290abc5f"]),
    ("vulkan-int8-r4-llvmpipe-llvm-15.0.6-mesa-22.3.6-llvm-15.0.6", ["b55926542892", "a903bb180d23", "87da969b06d7", "686ecf637cee", "8c63a6503578", "4e85290abc5f"]),
];

/// What a class gives where that is not what is held of it.
fn keeps_others(backend: Backend) -> Option<String> {
    let class = class_of(backend);
    let found = KEPT.map(|(model, kv_type)| {
        digest(&logits(model, backend, Rounding { activation_type: ActivationType::F16, kv_type }))
    });
    match HELD_OF_KEPT.iter().find(|(name, _)| *name == class) {
        Some((_, held)) => (found.each_ref().map(String::as_str) != *held).then(|| format!("{class} gives {found:?}")),
        None if class.starts_with("vulkan") => {
            // No skip: it ran, and of a driver that nobody wrote down there is nothing to compare.
            eprintln!("note: no digests of {class} are held; it gives {found:?}");
            None
        }
        None => Some(format!("no digests of {class} are held; it gives {found:?}")),
    }
}

/// The name of a class, whatever the width of a software driver's vectors.
fn class_of(backend: Backend) -> String {
    let class = open(backend).unwrap().numerics();
    ["-128-bits", "-256-bits", "-512-bits"].iter().fold(class, |class, width| class.replace(width, ""))
}

/// Whether a class gives what is held of it. Of a device or driver of which nothing is held there is nothing to say.
fn gives_what_is_held(backend: Backend) {
    let class = class_of(backend);
    let found = FED.map(|(model, activation_type)| digest(&logits(model, backend, activation_type)));
    let found: Vec<String> = found.into_iter().chain([digest(&encoded_logits(backend))]).collect();
    let Some((_, held)) = HELD.iter().find(|(name, _)| *name == class) else {
        let why = format!("no digests of {class} are held; it gives {found:?}");
        assert!(class.starts_with("vulkan"), "{why}: write them down in HELD, in place of the revision's before");
        // No skip: it ran, and of a driver that nobody wrote down there is nothing to compare.
        eprintln!("note: {why}");
        return;
    };
    let names = FED.iter().map(|(model, activation_type)| format!("{model} over {activation_type:?}"));
    let compared = names.chain(["t5".to_owned()]).zip(held.iter().zip(&found));
    let other: Vec<String> = compared.filter(|(_, (held, found))| *held != found).map(|(name, _)| name).collect();
    assert!(
        other.is_empty(),
        "{class} gives other bits of {other:?}: phones of this version and the last would make one ring of two arithmetics. If the \
         change is meant, raise the class's revision in kernels/src/numerics.rs (every class's that changed) and write down its digests \
         here: {found:?}"
    );
}

#[test]
fn every_class_keeps_the_bits_of_its_revision() {
    let mut backends = vec![CPU, CPU_INT8];
    if vulkan_is_here() {
        backends.extend([VULKAN, VULKAN_INT8]);
    }
    let others: Vec<String> = backends.into_iter().filter_map(keeps_others).collect();
    assert!(
        others.is_empty(),
        "raise the revision of every class whose bits are meant to change, and write down its digests: {others:#?}"
    );
}

#[test]
fn cpu_f32_gives_the_bits_of_its_revision() {
    gives_what_is_held(CPU);
}

#[test]
fn cpu_int8_gives_the_bits_of_its_revision() {
    gives_what_is_held(CPU_INT8);
}

#[test]
fn vulkan_f32_gives_the_bits_of_its_revision() {
    if vulkan_is_here() {
        gives_what_is_held(VULKAN);
    }
}

#[test]
fn vulkan_int8_gives_the_bits_of_its_revision() {
    if vulkan_is_here() {
        gives_what_is_held(VULKAN_INT8);
    }
}
