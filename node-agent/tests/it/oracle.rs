//! The oracle of activations of 8 bits: it gives the logits of every model of the golden folder to the bit, whatever caches keep, in the order
//! of sums of each backend.

use std::path::Path;

use polyphony_agent::segment::{DecoderRow, Rounding};
use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::cpu::order::Order;
use polyphony_kernels::{Backend, Engine, KvType, Row};
use polyphony_model::Manifest;
use polyphony_protocol::ActivationType;

use crate::encoder_decoder::Graph;
use crate::engines::open;
use crate::golden::{CPU_INT8, CPU_INT8_THREE, Ring, VULKAN_INT8, tiny_models, vulkan_is_here};

/// More than a block of positions of attention on Vulkan, and than any window.
const N_PROMPT: u32 = 70;
/// Tokens that come one by one after it.
const N_STEPS: u32 = 6;
const CHUNK: usize = 16;

fn tokens(n: u32) -> impl Iterator<Item = u32> {
    (0..n).map(|i| 5 + 3 * i % 200)
}

/// The bits of the logits after a prompt, and after each of the next tokens.
fn of_a_decoder(mut ring: Ring) -> Vec<u32> {
    let prompt: Vec<u32> = tokens(N_PROMPT).collect();
    let mut logits = ring.feed(0, &prompt, CHUNK);
    for token in tokens(N_STEPS) {
        logits.extend(ring.feed(0, &[token], CHUNK));
    }
    logits.into_iter().map(f32::to_bits).collect()
}

/// The same of a model with an encoder, of a shorter prompt.
fn of_an_encoder_and_decoder(mut graph: Graph) -> Vec<u32> {
    let prompt: Vec<u32> = tokens(20).collect();
    graph.encode(0, &prompt);
    let n_encoded = prompt.len() as u32;
    let step = |(position, token)| graph.step(&[DecoderRow { row: Row { slot: 0, position }, n_encoded }], vec![token]);
    let logits: Vec<f32> = (0..).zip(tokens(N_STEPS)).flat_map(step).collect();
    logits.into_iter().map(f32::to_bits).collect()
}

/// The bits of a model's logits, cut before these layers.
pub fn bits(path: &Path, cuts: &[u32], open: &dyn Fn() -> Box<dyn Engine>, rounding: Rounding) -> Vec<u32> {
    match Manifest::build(path).unwrap().hyperparameters.encoder {
        Some(_) => of_an_encoder_and_decoder(Graph::load_on(path, cuts, open, rounding)),
        None => of_a_decoder(Ring::load_on(path, cuts, open, rounding)),
    }
}

/// What differs from the oracle of this order.
fn others(order: Order, backends: &[Backend]) -> Vec<String> {
    let models = tiny_models();
    assert!(models.len() >= 40, "{} models", models.len());
    let mut others = Vec::new();
    for path in models {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for kv_type in KvType::ALL {
            let rounding = Rounding { activation_type: ActivationType::F32, kv_type };
            let expected = bits(&path, &[], &|| Box::new(CpuEngine::int8_reference(order).unwrap()), rounding);
            for backend in backends {
                let found = bits(&path, &[], &|| open(*backend).unwrap(), rounding);
                assert_eq!(found.len(), expected.len());
                let n_others = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
                if n_others > 0 {
                    others.push(format!("{name}, {backend:?}, {kv_type:?}: {n_others} of {}", expected.len()));
                }
            }
        }
    }
    others
}

#[test]
fn logits_of_8_bits_are_the_oracles_to_the_bit_on_the_cpu() {
    assert_eq!(others(Order::Processor, &[CPU_INT8, CPU_INT8_THREE]), Vec::<String>::new());
}

/// Of any other driver than Mesa's of software nobody has shown that it computes as written.
#[test]
fn logits_of_8_bits_are_the_oracles_to_the_bit_on_vulkan() {
    if !vulkan_is_here() {
        return;
    }
    let others = others(Order::Vulkan, &[VULKAN_INT8]);
    if open(VULKAN_INT8).unwrap().numerics().contains("llvmpipe") {
        assert_eq!(others, Vec::<String>::new());
    } else {
        eprintln!("note: this driver has bits of its own: {others:#?}");
    }
}
