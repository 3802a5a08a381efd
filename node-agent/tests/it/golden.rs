//! Golden data: logits and tokens of real and tiny models, for every split and both backends.

use std::fs;
use std::path::{Path, PathBuf};

use polyphony_agent::segment::{Capacity, Input, Output, Rounding, Segment, SegmentError};
use polyphony_kernels::{Arithmetic, Backend, Engine, EngineError, Row};
use polyphony_model::{Holds, LayerRange, Manifest, TensorReader};
use polyphony_protocol::ActivationType;
use polyphony_protocol::activation::{decode_rows, encode_rows};
use serde::Deserialize;

use crate::engines::open;

#[derive(Deserialize)]
pub struct Golden {
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub prompt_ids: Vec<u32>,
    /// Of every token, after the prompt; of tiny models alone.
    #[serde(default)]
    first_logits: Vec<f32>,
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
pub struct Step {
    pub token: u32,
    margin: f32,
    top: Vec<(u32, f32)>,
}

/// The segments of one model, in one process, with hidden states as they travel on a wire between them.
pub struct Ring {
    segments: Vec<Segment>,
    activation_type: ActivationType,
    position: u32,
    /// Rows of a step of a prompt.
    pub chunk: usize,
}

impl Ring {
    /// A type of hidden states alone means that keys and values are kept as they are computed.
    pub fn load(path: &Path, cuts: &[u32], backend: Backend, rounding: impl Into<Rounding>) -> Self {
        Self::load_on(path, cuts, || open(backend).unwrap(), rounding)
    }

    /// As [`Ring::load`], on engines that `open` opens.
    pub fn load_on(
        path: &Path,
        cuts: &[u32],
        open: impl Fn() -> Box<dyn Engine>,
        rounding: impl Into<Rounding>,
    ) -> Self {
        let rounding = rounding.into();
        let manifest = Manifest::build(path).unwrap();
        let n_layers = manifest.hyperparameters.n_layers;
        let bounds: Vec<u32> = [0].iter().chain(cuts).chain([n_layers].iter()).copied().collect();
        let capacity = Capacity { n_slots: 2, n_positions: 256, max_rows: 16 };
        let segments = bounds
            .windows(2)
            .map(|range| {
                let holds = Holds {
                    embedding: range[0] == 0,
                    layers: LayerRange { from: range[0], to: range[1] },
                    head: range[1] == n_layers,
                };
                Segment::load::<SegmentError, _>(open(), &manifest, holds, capacity, rounding, |tensor| {
                    Ok(TensorReader::open(path, &manifest, tensor).unwrap().read_all().unwrap())
                })
                .unwrap()
            })
            .collect();
        Self { segments, activation_type: rounding.activation_type, position: 0, chunk: 16 }
    }

    /// Feeds tokens in chunks of `chunk`; the logits after the last.
    pub fn feed(&mut self, slot: u32, tokens: &[u32], chunk: usize) -> Vec<f32> {
        let mut logits = Vec::new();
        for part in tokens.chunks(chunk) {
            logits = self.step(slot, part);
        }
        logits
    }

    fn step(&mut self, slot: u32, tokens: &[u32]) -> Vec<f32> {
        let rows: Vec<Row> = (0..tokens.len() as u32).map(|row| Row { slot, position: self.position + row }).collect();
        self.position += tokens.len() as u32;
        let mut input = Input::Tokens(tokens.to_vec());
        for segment in &mut self.segments {
            let width = segment.hidden_size();
            match segment.step(&rows, input, 1).unwrap() {
                Output::Logits(logits) => return logits,
                Output::Hidden(values) => {
                    let payload = encode_rows(self.activation_type, width, &values);
                    input = Input::Hidden(decode_rows(self.activation_type, width, rows.len(), &payload).unwrap());
                }
            }
        }
        unreachable!("the last segment is the tail");
    }
}

pub fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden")
}

pub fn golden(name: &str) -> Golden {
    serde_json::from_slice(&fs::read(golden_folder().join(name)).unwrap()).unwrap()
}

/// The files and folders of `golden/tiny`, of several parts the first.
pub fn tiny_models() -> Vec<PathBuf> {
    let folder = golden_folder().join("tiny");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_model = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        path.is_dir() || (name.ends_with(".gguf") && (!name.contains("-of-") || name.contains("-00001-of-")))
    };
    let mut models: Vec<_> = entries.filter(is_model).collect();
    models.sort();
    models
}

/// Whether there is a Vulkan device; says so aloud where there is none. One that is there and does not open is a failure.
pub fn vulkan_is_here() -> bool {
    match open(VULKAN) {
        Ok(_) => true,
        Err(error @ EngineError::NoAdapter { .. }) => {
            polyphony_skip::skipped(error);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// How far logits are from the reference's, by their differences from the first: what was measured over all steps of a golden file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Off {
    farthest: f32,
    mean: f32,
}

/// What is allowed where bits are lost is what was measured times this. The processor's bits are the same everywhere (`numerics.rs` holds
/// them); other Vulkan devices divide and fuse otherwise, which moves a logit by far less than 8 bits do.
pub const LOSSY: f32 = 1.25;
/// The same of f32, where such differences between devices are all that there is.
pub const EXACT: f32 = 4.0;

// === impl Off ===

impl Off {
    pub fn times(self, factor: f32) -> Self {
        off(self.farthest * factor, self.mean * factor)
    }
}

/// How far ahead a best token is that small errors ought not to change.
const SURE: f32 = 0.5;

/// What came of a comparison that held.
pub struct Compared {
    /// The share of steps whose best token is the same.
    pub same: f32,
    /// The same of those steps where the reference's best is ahead by more than [`SURE`].
    pub sure_same: f32,
    /// Of all logits of all steps.
    pub bits: Vec<u32>,
}

/// Feeds each case teacher-forced: the logits' differences from the first are within what is allowed, and so is the greedy token
/// wherever its margin is above twice that (each of two logits may be off by it).
pub fn compare(ring: &mut Ring, golden: &Golden, allowed: Off, max_steps: usize) -> Compared {
    let bound = allowed.farthest;
    let mut found = Off::default();
    let (mut n_same, mut n_steps, mut n_sure_same, mut n_sure, mut n_compared) = (0, 0, 0, 0, 0);
    let (mut bits, chunk) = (Vec::new(), ring.chunk);
    for (c, case) in golden.cases.iter().enumerate() {
        ring.position = 0;
        let mut logits = ring.feed(0, &case.prompt_ids, chunk);
        for (s, step) in case.steps.iter().take(max_steps).enumerate() {
            bits.extend(logits.iter().map(|logit| logit.to_bits()));
            let first = step.top[0];
            let mut expected = step.top[1..].to_vec();
            if s == 0 {
                expected.extend((0..).zip(case.first_logits.iter().copied()));
            }
            for (token, expected) in expected {
                let difference = logits[token as usize] - logits[first.0 as usize];
                let off = (difference - (expected - first.1)).abs();
                found.farthest = found.farthest.max(off);
                found.mean += off;
                n_compared += 1;
                assert!(off <= bound, "case {c}, step {s}, token {token}: off by {off}, {bound} allowed");
            }
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
            let is_same = usize::from(best == step.token);
            (n_same, n_steps) = (n_same + is_same, n_steps + 1);
            if step.margin > SURE {
                (n_sure_same, n_sure) = (n_sure_same + is_same, n_sure + 1);
            }
            if step.margin > 2.0 * bound {
                assert_eq!(best, step.token, "case {c}, step {s}");
            }
            logits = ring.feed(0, &[step.token], chunk);
        }
    }
    found.mean /= n_compared as f32;
    println!(
        "{found:?} of {n_compared} logits; {allowed:?} allowed; {n_same} of {n_steps} tokens the same, {n_sure_same} of {n_sure} sure ones"
    );
    assert!(found.mean <= allowed.mean, "off by {} on the mean, {} allowed", found.mean, allowed.mean);
    let share = |same: usize, of: usize| same as f32 / of.max(1) as f32;
    Compared { same: share(n_same, n_steps), sure_same: share(n_sure_same, n_sure), bits }
}

pub const CPU: Backend = Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 };
pub const CPU_INT8: Backend = Backend::Cpu { threads: 1, arithmetic: Arithmetic::Int8 };
pub const CPU_THREE: Backend = Backend::Cpu { threads: 3, arithmetic: Arithmetic::F32 };
pub const CPU_INT8_THREE: Backend = Backend::Cpu { threads: 3, arithmetic: Arithmetic::Int8 };
pub const VULKAN: Backend = Backend::Vulkan { arithmetic: Arithmetic::F32 };
pub const VULKAN_INT8: Backend = Backend::Vulkan { arithmetic: Arithmetic::Int8 };

const TINY: [&str; 7] = ["llama", "llama_f16", "llama_q8_0", "llama_q4_0", "llama_q4_1", "llama_freqs", "llama_linear"];

/// Llamas of other types of weights, and of several.
const TYPES: [&str; 14] = [
    "llama_bf16",
    "llama_q5_0",
    "llama_q5_1",
    "llama256_q2_k",
    "llama256_q3_k",
    "llama256_q4_k",
    "llama256_q5_k",
    "llama256_q6_k",
    "llama256_iq4_nl",
    "llama256_iq4_xs",
    "llama256_mxfp4",
    "llama256_mixed",
    "llama256_q4_0",
    "llama256_q4_k_m",
];

/// Other families than Llama.
const FAMILIES: [&str; 4] = ["qwen2", "qwen3", "gpt2", "bloom"];

pub const fn off(farthest: f32, mean: f32) -> Off {
    Off { farthest, mean }
}

/// f32 arithmetic on dequantised weights: the golden files round to 5 decimals.
const F32_TINY: Off = off(2.8e-5, 5.7e-6);
const F32_TYPES: Off = off(2.6e-5, 5.9e-6);
/// f16 hidden states after every layer, by model.
const F16: [(&str, Off); 2] = [("llama", off(0.0055, 0.00137)), ("bloom", off(0.0036, 0.00089))];
/// Hidden states of 8 bits, one scale for 32 values, after every layer.
const Q8: [(&str, Off); 2] = [("llama", off(0.171, 0.0291)), ("bloom", off(0.102, 0.0233))];
/// Activations of 8 bits in the products, one scale for 32 values.
const INT8: [(&str, Off); 17] = [
    ("llama_q8_0", off(0.384, 0.0498)),
    ("llama_q4_0", off(0.306, 0.0686)),
    ("llama_q4_1", off(0.301, 0.0525)),
    ("llama_q5_0", off(0.494, 0.0635)),
    ("llama_q5_1", off(0.556, 0.105)),
    ("llama256_q2_k", off(0.422, 0.0852)),
    ("llama256_q3_k", off(0.339, 0.0704)),
    ("llama256_q4_k", off(0.36, 0.0664)),
    ("llama256_q5_k", off(0.332, 0.0817)),
    ("llama256_q6_k", off(0.383, 0.0654)),
    ("llama256_iq4_nl", off(0.209, 0.0385)),
    ("llama256_iq4_xs", off(0.179, 0.0293)),
    ("llama256_mxfp4", off(0.147, 0.0363)),
    ("llama256_mixed", off(0.386, 0.0553)),
    ("llama256_q4_0", off(0.18, 0.0406)),
    ("llama256_q4_k_m", off(0.237, 0.0453)),
    // A logit of a router that is off by more than two experts are apart chooses another expert.
    ("gptoss", off(0.874, 0.0779)),
];
fn compare_tiny(backend: Backend, name: &str, allowed: Off) {
    compare_form(backend, name, &format!("{name}.gguf"), allowed);
}

/// Of a model that is in other files than one of its own name.
fn compare_form(backend: Backend, name: &str, files: &str, allowed: Off) {
    let golden = golden(&format!("tiny/{name}.json"));
    let path = golden_folder().join("tiny").join(files);
    let n_layers = Manifest::outline(&path).unwrap().hyperparameters.n_layers;
    for cuts in [&[][..], &[1], &[2, 3]] {
        // A stage has a layer at least.
        if cuts.iter().any(|cut| *cut >= n_layers) {
            continue;
        }
        println!("{name}, cut at {cuts:?}");
        compare(&mut Ring::load(&path, cuts, backend, ActivationType::F32), &golden, allowed, 12);
    }
}

#[test]
fn tiny_models_give_their_golden_logits_on_the_cpu() {
    TINY.iter().chain(&FAMILIES).for_each(|name| compare_tiny(CPU, name, F32_TINY.times(EXACT)));
}

#[test]
fn every_type_of_weights_gives_its_golden_logits_on_the_cpu() {
    TYPES.iter().for_each(|name| compare_tiny(CPU, name, F32_TYPES.times(EXACT)));
}

#[test]
fn every_type_of_weights_gives_its_golden_logits_on_vulkan() {
    if vulkan_is_here() {
        TYPES.iter().for_each(|name| compare_tiny(VULKAN, name, F32_TYPES.times(EXACT)));
    }
}

#[test]
fn tiny_models_give_their_golden_logits_on_vulkan() {
    if vulkan_is_here() {
        TINY.iter().chain(&FAMILIES).for_each(|name| compare_tiny(VULKAN, name, F32_TINY.times(EXACT)));
    }
}

/// Other forms of files: the golden file's name, and what is named of the model.
const FORMS: [(&str, &str); 4] = [
    ("split2", "split2-*-of-*.gguf"),
    ("split3", "split3-00002-of-00003.gguf"),
    ("qwen2_hf", "qwen2_hf"),
    ("llama_hf", "llama_hf"),
];

#[test]
fn every_model_of_the_folder_is_compared_with_its_golden_logits() {
    let lists: [&[&str]; 5] = [&TINY, &TYPES, &FAMILIES, &crate::families::FAMILIES, &["t5"]];
    let forms = FORMS.iter().map(|(name, _)| *name);
    let compared: Vec<&str> = lists.into_iter().flatten().copied().chain(forms).collect();
    for path in tiny_models() {
        let file = path.file_stem().unwrap().to_string_lossy();
        let name = file.split_once("-0").map_or(&*file, |(name, _)| name);
        assert!(compared.contains(&name), "{}", path.display());
    }
}

#[test]
fn models_in_several_files_give_their_golden_logits_on_the_cpu() {
    FORMS.iter().for_each(|(name, files)| compare_form(CPU, name, files, F32_TINY.times(EXACT)));
}

#[test]
fn models_in_several_files_give_their_golden_logits_on_vulkan() {
    if vulkan_is_here() {
        FORMS.iter().for_each(|(name, files)| compare_form(VULKAN, name, files, F32_TINY.times(EXACT)));
    }
}

#[test]
fn tiny_models_are_as_near_as_measured_with_less_than_f32_on_the_wire() {
    for (activation_type, measured) in [(ActivationType::F16, F16), (ActivationType::Q8, Q8)] {
        for (name, measured) in measured {
            println!("{name}, {activation_type:?}");
            let path = golden_folder().join(format!("tiny/{name}.gguf"));
            let golden = golden(&format!("tiny/{name}.json"));
            compare(&mut Ring::load(&path, &[2], CPU, activation_type), &golden, measured.times(LOSSY), 12);
        }
    }
}

#[test]
fn tiny_llamas_are_as_near_as_measured_with_8_bits_on_the_cpu() {
    INT8.iter().for_each(|(name, measured)| compare_tiny(CPU_INT8, name, measured.times(LOSSY)));
}

#[test]
fn tiny_llamas_are_as_near_as_measured_with_8_bits_on_vulkan() {
    if vulkan_is_here() {
        INT8.iter().for_each(|(name, measured)| compare_tiny(VULKAN_INT8, name, measured.times(LOSSY)));
    }
}

pub fn greedy(ring: &mut Ring, prompt: &[u32], chunk: usize, n: usize) -> (Vec<u32>, Vec<u32>) {
    let mut logits = ring.feed(0, prompt, chunk);
    let mut tokens = Vec::new();
    let mut bits = Vec::new();
    for _ in 0..n {
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a))).unwrap() as u32;
        tokens.push(best);
        bits.extend(logits.iter().take(64).map(|logit| logit.to_bits()));
        logits = ring.feed(0, &[best], chunk);
    }
    (tokens, bits)
}

/// Every split into 1, 2 and 3 segments, and three chunk sizes, give the same bits.
fn every_split_agrees(name: &str, backend: Backend, activation_type: ActivationType) {
    let path = golden_folder().join(format!("tiny/{name}.gguf"));
    let prompt = &golden(&format!("tiny/{name}.json")).cases[2].prompt_ids;
    let whole = greedy(&mut Ring::load(&path, &[], backend, activation_type), prompt, 16, 64);
    for cuts in [&[1][..], &[2], &[3], &[1, 2], &[1, 3], &[2, 3]] {
        for chunk in [1, 5, 16] {
            let split = greedy(&mut Ring::load(&path, cuts, backend, activation_type), prompt, chunk, 64);
            assert_eq!(split, whole, "cut at {cuts:?}, chunks of {chunk}, {activation_type:?}");
        }
    }
}

#[test]
fn every_split_and_chunk_gives_the_same_bits_on_the_cpu() {
    every_split_agrees("llama_q4_1", CPU, ActivationType::F16);
    every_split_agrees("llama_q4_1", CPU, ActivationType::F32);
    every_split_agrees("llama_q4_1", CPU, ActivationType::Q8);
    every_split_agrees("bloom", CPU, ActivationType::F16);
    every_split_agrees("bloom", CPU, ActivationType::Q8);
    every_split_agrees("llama_q4_1", CPU_INT8, ActivationType::F16);
    every_split_agrees("gptoss", CPU_THREE, ActivationType::F16);
    every_split_agrees("gptoss", CPU_INT8, ActivationType::Q8);
    every_split_agrees("llama_q4_1", CPU_THREE, ActivationType::F16);
    every_split_agrees("llama_q4_1", CPU_INT8_THREE, ActivationType::F16);
}

#[test]
fn every_split_and_chunk_gives_the_same_bits_on_vulkan() {
    if vulkan_is_here() {
        every_split_agrees("llama_q4_1", VULKAN, ActivationType::F16);
        every_split_agrees("llama_q4_1", VULKAN, ActivationType::Q8);
        every_split_agrees("llama_q4_1", VULKAN_INT8, ActivationType::F16);
        every_split_agrees("bloom", VULKAN, ActivationType::F16);
        every_split_agrees("gptoss", VULKAN_INT8, ActivationType::F16);
    }
}
