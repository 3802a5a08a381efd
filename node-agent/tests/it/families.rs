//! Families: a tiny model of each gives its golden logits, and the same bits however it is cut.

use polyphony_agent::segment::{Capacity, Segment, SegmentError};
use polyphony_kernels::Backend;
use polyphony_model::{Gguf, Holds, Hyperparameters, Manifest, Role, TensorReader};
use polyphony_protocol::ActivationType;

use crate::golden::{CPU, Off, Ring, VULKAN, compare, golden, golden_folder, off, vulkan_is_here};

/// Families whose layers differ from a Llama's in more than their sizes, their biases or the norms of their heads.
pub const FAMILIES: [&str; 19] = [
    "gemma2",
    "gemma3",
    "gemma3_scaled",
    "phi3",
    "phi3_long",
    "phi3_short",
    "olmo2",
    "olmo3",
    "cohere2",
    "falcon",
    "granite",
    "lfm2",
    "llama_yarn",
    "gptoss",
    "mixtral",
    "olmoe",
    "qwen3moe",
    "smollm3",
    "starcoder2",
];

/// f32 arithmetic; the golden files round to 5 decimals.
const ALLOWED: Off = off(2e-4, 4e-5);

/// One segment, two and three where there are as many layers, each with prompts in chunks of another size.
fn cuts(n_layers: u32) -> [(Vec<u32>, usize); 3] {
    let last = if n_layers > 2 { vec![n_layers / 2, n_layers - 1] } else { vec![1] };
    [(vec![], 16), (vec![1], 5), (last, 3)]
}

fn gives_its_logits_however_cut(name: &str, backend: Backend) {
    let path = golden_folder().join(format!("tiny/{name}.gguf"));
    let golden = golden(&format!("tiny/{name}.json"));
    let n_layers = Hyperparameters::from_gguf(&Gguf::open(&path).unwrap()).unwrap().n_layers;
    let mut whole = Vec::new();
    for (cuts, chunk) in cuts(n_layers) {
        println!("{name}, cut at {cuts:?}, chunks of {chunk}");
        let mut ring = Ring::load(&path, &cuts, backend, ActivationType::F32);
        ring.chunk = chunk;
        let compared = compare(&mut ring, &golden, ALLOWED, 12);
        assert_eq!(compared.same, 1.0, "{name}: a token is another");
        if whole.is_empty() {
            whole = compared.bits;
        } else {
            assert!(compared.bits == whole, "{name}: other bits when cut at {cuts:?}, in chunks of {chunk}");
        }
    }
}

#[test]
fn every_family_gives_its_golden_logits_on_the_cpu_however_it_is_cut() {
    FAMILIES.iter().for_each(|name| gives_its_logits_however_cut(name, CPU));
}

#[test]
fn every_family_gives_its_golden_logits_on_vulkan_however_it_is_cut() {
    if vulkan_is_here() {
        FAMILIES.iter().for_each(|name| gives_its_logits_however_cut(name, VULKAN));
    }
}

#[test]
fn a_factor_that_no_frequency_can_be_divided_by_is_refused_by_its_name() {
    let path = golden_folder().join("tiny/phi3_long.gguf");
    let manifest = Manifest::build(&path).unwrap();
    // Of the set for short contexts nothing is read here.
    for (spoilt, is_read) in [(Role::RopeFactorsLong, true), (Role::RopeFactorsShort, false)] {
        let engine = polyphony_kernels::open(CPU, None).unwrap();
        let capacity = Capacity { n_slots: 1, n_positions: 33, max_rows: 1 };
        let load = Segment::load(engine, &manifest, Holds::all(3), capacity, ActivationType::F32, |tensor| {
            let bytes = TensorReader::open(&path, &manifest, tensor).unwrap().read_all().unwrap();
            Ok::<_, SegmentError>(if tensor.role == spoilt { vec![0; bytes.len()] } else { bytes })
        });
        match load {
            Err(SegmentError::Factor { role, found }) => assert!(is_read && role == spoilt && found == 0.0),
            other => assert!(!is_read && other.is_ok(), "{spoilt:?}: {:?}", other.err()),
        }
    }
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
