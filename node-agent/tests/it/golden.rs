//! Golden data: logits and tokens of real and tiny models, for every split and both backends.

use std::fs;
use std::path::{Path, PathBuf};

use polyphony_agent::segment::{Capacity, Input, Output, Segment, SegmentError};
use polyphony_kernels::{Arithmetic, Backend, Row};
use polyphony_model::{Holds, LayerRange, Manifest};
use polyphony_protocol::ActivationType;
use polyphony_protocol::activation::{decode_rows, encode_rows};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt_ids: Vec<u32>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    token: u32,
    margin: f32,
    top: Vec<(u32, f32)>,
}

/// The segments of one model, in one process, with hidden states as they travel on a wire between them.
struct Ring {
    segments: Vec<Segment>,
    activation_type: ActivationType,
    position: u32,
}

impl Ring {
    fn load(path: &Path, cuts: &[u32], backend: Backend, activation_type: ActivationType) -> Self {
        let manifest = Manifest::build(path).unwrap();
        let file = fs::read(path).unwrap();
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
                let engine = polyphony_kernels::open(backend, None).unwrap();
                Segment::load::<SegmentError>(engine, &manifest, holds, capacity, activation_type, |tensor| {
                    let from = tensor.offset as usize;
                    Ok(file[from..from + tensor.n_bytes as usize].to_vec())
                })
                .unwrap()
            })
            .collect();
        Self { segments, activation_type, position: 0 }
    }

    /// Feeds tokens in chunks of `chunk`; the logits after the last.
    fn feed(&mut self, slot: u32, tokens: &[u32], chunk: usize) -> Vec<f32> {
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

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden")
}

fn golden(name: &str) -> Golden {
    serde_json::from_slice(&fs::read(golden_folder().join(name)).unwrap()).unwrap()
}

fn real_model() -> Option<PathBuf> {
    let cache = std::env::var_os("POLYPHONY_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
            .map(|base| base.join("polyphony"))
    })?;
    let path = cache.join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        println!("skipped: {} is not there; `make setup` fetches it", path.display());
        return None;
    }
    Some(path)
}

fn vulkan_is_here() -> bool {
    let opened = polyphony_kernels::open(VULKAN, None);
    if let Err(error) = &opened {
        println!("skipped: {error}");
    }
    opened.is_ok()
}

/// Feeds each case teacher-forced and compares the logits' differences from the first within `bound`, and the greedy token
/// wherever the margin is above twice the bound (each of two logits may be off by it). The share of steps whose best token is
/// the same.
fn compare(ring: &mut Ring, golden: &Golden, bound: f32, max_steps: usize) -> f32 {
    let mut farthest = 0f32;
    let (mut n_same, mut n_steps) = (0, 0);
    for (c, case) in golden.cases.iter().enumerate() {
        ring.position = 0;
        let mut logits = ring.feed(0, &case.prompt_ids, 16);
        for (s, step) in case.steps.iter().take(max_steps).enumerate() {
            let first = step.top[0];
            for (token, expected) in &step.top[1..] {
                let difference = logits[*token as usize] - logits[first.0 as usize];
                let off = (difference - (expected - first.1)).abs();
                farthest = farthest.max(off);
                assert!(off <= bound, "case {c}, step {s}, token {token}: off by {off}, {bound} allowed");
            }
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
            n_same += usize::from(best == step.token);
            n_steps += 1;
            if step.margin > 2.0 * bound {
                assert_eq!(best, step.token, "case {c}, step {s}");
            }
            logits = ring.feed(0, &[step.token], 16);
        }
    }
    println!("off by at most {farthest}, {bound} allowed; {n_same} of {n_steps} tokens the same");
    n_same as f32 / n_steps as f32
}

const CPU: Backend = Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 };
const CPU_INT8: Backend = Backend::Cpu { threads: 1, arithmetic: Arithmetic::Int8 };
const VULKAN: Backend = Backend::Vulkan { arithmetic: Arithmetic::F32 };
const VULKAN_INT8: Backend = Backend::Vulkan { arithmetic: Arithmetic::Int8 };
/// f32 arithmetic on dequantised weights; the golden files round to 5 decimals (tiny) or 4 (real).
const F32_BOUND: f32 = 1e-3;
/// What the issue allows for f16 on the wire; rounding after every layer of 30 moves logits by up to about 0.05.
const F16_BOUND: f32 = 0.1;

/// One scale for 32 values after every layer: measured over all cases are 1.18 (SmolLM2) and 0.17 (tiny).
const Q8_BOUND: f32 = 1.5;

/// What the golden README expects of 8 bits, with one scale for 16 values; measured over all cases are 0.34 (SmolLM2, 8 steps each) and 0.35 (tiny).
const INT8_BOUND: f32 = 0.5;

const TINY: [&str; 7] = ["llama", "llama_f16", "llama_q8_0", "llama_q4_0", "llama_q4_1", "llama_freqs", "llama_linear"];

/// Other families than Llama.
const FAMILIES: [&str; 4] = ["qwen2", "qwen3", "gpt2", "bloom"];

fn compare_tiny(backend: Backend, names: &[&str], bound: f32) {
    for name in names {
        let golden = golden(&format!("tiny/{name}.json"));
        for cuts in [&[][..], &[1], &[2, 3]] {
            println!("{name}, cut at {cuts:?}");
            let path = golden_folder().join(format!("tiny/{name}.gguf"));
            compare(&mut Ring::load(&path, cuts, backend, ActivationType::F32), &golden, bound, 12);
        }
    }
}

#[test]
fn tiny_llamas_give_their_golden_logits_on_the_cpu() {
    compare_tiny(CPU, &TINY, F32_BOUND);
}

#[test]
fn tiny_models_of_other_families_give_their_golden_logits_on_the_cpu() {
    compare_tiny(CPU, &FAMILIES, F32_BOUND);
}

#[test]
fn tiny_models_of_other_families_give_their_golden_logits_on_vulkan() {
    if vulkan_is_here() {
        compare_tiny(VULKAN, &FAMILIES, F32_BOUND);
    }
}

#[test]
fn tiny_models_are_within_their_bounds_with_less_than_f32_on_the_wire() {
    for name in ["llama", "bloom"] {
        let golden = golden(&format!("tiny/{name}.json"));
        let path = golden_folder().join(format!("tiny/{name}.gguf"));
        for (activation_type, bound) in [(ActivationType::F16, F16_BOUND), (ActivationType::Q8, Q8_BOUND)] {
            println!("{name}, {activation_type:?}");
            compare(&mut Ring::load(&path, &[2], CPU, activation_type), &golden, bound, 12);
        }
    }
}

#[test]
fn tiny_llamas_give_their_golden_logits_on_vulkan() {
    if vulkan_is_here() {
        compare_tiny(VULKAN, &TINY, F32_BOUND);
    }
}

const TINY_OF_FEW_BITS: [&str; 3] = ["llama_q8_0", "llama_q4_0", "llama_q4_1"];

#[test]
fn tiny_llamas_are_within_the_bound_of_8_bits_on_the_cpu() {
    compare_tiny(CPU_INT8, &TINY_OF_FEW_BITS, INT8_BOUND);
}

#[test]
fn tiny_llamas_are_within_the_bound_of_8_bits_on_vulkan() {
    if vulkan_is_here() {
        compare_tiny(VULKAN_INT8, &TINY_OF_FEW_BITS, INT8_BOUND);
    }
}

const SMOLLM2: &str = "smollm2-135m-instruct-q4_1.json";

#[test]
fn smollm2_gives_its_golden_logits_on_the_cpu() {
    let Some(path) = real_model() else { return };
    for cuts in [&[][..], &[11], &[9, 20]] {
        compare(&mut Ring::load(&path, cuts, CPU, ActivationType::F32), &golden(SMOLLM2), F32_BOUND, usize::MAX);
    }
}

#[test]
fn smollm2_is_within_its_bound_with_f16_on_the_wire() {
    let Some(path) = real_model() else { return };
    compare(&mut Ring::load(&path, &[13], CPU, ActivationType::F16), &golden(SMOLLM2), F16_BOUND, usize::MAX);
}

#[test]
fn smollm2_is_within_its_bound_with_q8_on_the_wire() {
    let Some(path) = real_model() else { return };
    let share = compare(&mut Ring::load(&path, &[13], CPU, ActivationType::Q8), &golden(SMOLLM2), Q8_BOUND, usize::MAX);
    // Measured: 94 of 96.
    assert!(share >= 0.9, "{share}");
}

#[test]
fn smollm2_gives_its_golden_logits_on_vulkan() {
    let Some(path) = real_model() else { return };
    if vulkan_is_here() {
        // Software Vulkan is slow: the first steps of each case tell right from wrong.
        compare(&mut Ring::load(&path, &[15], VULKAN, ActivationType::F32), &golden(SMOLLM2), F32_BOUND, 4);
    }
}

#[test]
fn smollm2_is_within_the_bound_of_8_bits_on_the_cpu() {
    let Some(path) = real_model() else { return };
    compare(&mut Ring::load(&path, &[15], CPU_INT8, ActivationType::F32), &golden(SMOLLM2), INT8_BOUND, usize::MAX);
}

#[test]
fn smollm2_is_within_the_bound_of_8_bits_on_vulkan() {
    let Some(path) = real_model() else { return };
    if vulkan_is_here() {
        compare(&mut Ring::load(&path, &[15], VULKAN_INT8, ActivationType::F32), &golden(SMOLLM2), INT8_BOUND, 8);
    }
}

fn greedy(ring: &mut Ring, prompt: &[u32], chunk: usize, n: usize) -> (Vec<u32>, Vec<u32>) {
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

#[test]
fn positions_beyond_those_that_a_model_has_learned_are_refused() {
    let manifest = Manifest::build(&golden_folder().join("tiny/gpt2.gguf")).unwrap();
    let engine = polyphony_kernels::open(CPU, None).unwrap();
    let capacity = Capacity { n_slots: 1, n_positions: 257, max_rows: 1 };
    let load = Segment::load(engine, &manifest, Holds::all(4), capacity, ActivationType::F32, |_| {
        Err::<Vec<u8>, _>(SegmentError::TooManyRows { rows: 0, limit: 0 })
    });
    let error = load.err().unwrap().to_string();
    assert_eq!(error, "the model has learned 256 positions, 257 are wanted; set contextLength to at most 256");
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
}

#[test]
fn every_split_and_chunk_gives_the_same_bits_on_vulkan() {
    if vulkan_is_here() {
        every_split_agrees("llama_q4_1", VULKAN, ActivationType::F16);
        every_split_agrees("llama_q4_1", VULKAN, ActivationType::Q8);
        every_split_agrees("llama_q4_1", VULKAN_INT8, ActivationType::F16);
        every_split_agrees("bloom", VULKAN, ActivationType::F16);
    }
}

#[test]
fn smollm2_says_the_same_64_tokens_however_it_is_cut() {
    let Some(path) = real_model() else { return };
    let prompt = &golden(SMOLLM2).cases[0].prompt_ids;
    let whole = greedy(&mut Ring::load(&path, &[], CPU, ActivationType::F16), prompt, 16, 64);
    for (cuts, chunk) in [(&[7][..], 16), (&[4, 23], 3)] {
        assert_eq!(
            greedy(&mut Ring::load(&path, cuts, CPU, ActivationType::F16), prompt, chunk, 64),
            whole,
            "{cuts:?}"
        );
    }
}
