//! A session's KV cache, taken out of one segment and put into another: what follows is the same to the bit.

use std::path::Path;

use polyphony_agent::segment::{Capacity, Input, Output, Rounding, Segment, SegmentError};
use polyphony_kernels::{Backend, KvType, Row};
use polyphony_model::{Holds, LayerRange, Manifest, TensorReader};
use polyphony_protocol::ActivationType;

use crate::engines::open;
use crate::golden::{CPU, VULKAN, vulkan_is_here};

fn load(backend: Backend, layers: LayerRange) -> Segment {
    load_of("llama_q8_0", backend, layers, KvType::F16)
}

fn load_of(model: &str, backend: Backend, layers: LayerRange, kv_type: KvType) -> Segment {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../e2e/golden/tiny/{model}.gguf"));
    let manifest = Manifest::build(&path).unwrap();
    let holds = Holds { layers, ..Holds::all(manifest.hyperparameters.n_layers) };
    let capacity = Capacity { n_slots: 3, n_positions: 32, max_rows: 8 };
    let engine = open(backend).unwrap();
    let rounding = Rounding { activation_type: ActivationType::F16, kv_type };
    Segment::load::<SegmentError, _>(engine, &manifest, holds, capacity, rounding, |tensor| {
        Ok(TensorReader::open(&path, &manifest, tensor).unwrap().read_all().unwrap())
    })
    .unwrap()
}

fn step(segment: &mut Segment, slot: u32, position: u32, tokens: &[u32]) -> Vec<f32> {
    let rows: Vec<Row> = (0..tokens.len() as u32).map(|row| Row { slot, position: position + row }).collect();
    match segment.step(&rows, Input::Tokens(tokens.to_vec()), 1).unwrap() {
        Output::Logits(logits) => logits,
        other => panic!("{other:?}"),
    }
}

fn move_a_session(model: &str, backend: Backend) {
    KvType::ALL.iter().for_each(|kv_type| move_a_session_of(model, backend, *kv_type));
}

fn move_a_session_of(model: &str, backend: Backend, kv_type: KvType) {
    let whole = LayerRange { from: 0, to: 4 };
    let [mut old, mut new] = [(); 2].map(|()| load_of(model, backend, whole, kv_type));
    step(&mut old, 1, 0, &[7, 100, 42, 9, 200]);
    // Another session's rows lie beside.
    step(&mut new, 1, 0, &[1, 2, 3]);
    for layer in 0..4 {
        for (from, to) in [(0, 2), (2, 5)] {
            let values = old.read_kv(layer, 1, from..to).unwrap();
            assert_eq!(values.len(), (to - from) as usize * old.kv_words_per_position(layer).unwrap());
            new.write_kv(layer, 2, from..to, &values).unwrap();
            // Words of two values or four may be no numbers, which equal nothing.
            let bits = |words: Vec<f32>| words.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
            assert_eq!(bits(new.read_kv(layer, 2, from..to).unwrap()), bits(values));
        }
    }
    let expected = step(&mut old, 1, 5, &[11]);
    assert_eq!(step(&mut new, 2, 5, &[11]), expected);
    assert_ne!(step(&mut new, 0, 5, &[11]), expected, "without the cache it says something else");
}

#[test]
fn a_kv_cache_moves_to_the_bit_on_the_cpu() {
    move_a_session("llama_q8_0", CPU);
}

#[test]
fn what_convolutions_keep_moves_to_the_bit() {
    move_a_session("lfm2", CPU);
}

#[test]
fn a_kv_cache_moves_to_the_bit_on_vulkan() {
    if vulkan_is_here() {
        move_a_session("llama_q8_0", VULKAN);
    }
}

#[test]
fn a_part_of_what_is_loaded_runs_as_if_it_were_alone() {
    let (mut all, mut first) = (load(CPU, LayerRange { from: 0, to: 4 }), load(CPU, LayerRange { from: 0, to: 2 }));
    let rows = [Row { slot: 0, position: 0 }];
    let part = Holds { embedding: true, layers: LayerRange { from: 0, to: 2 }, head: false };
    let Ok(Output::Hidden(hidden)) = all.step_of(part, &rows, Input::Tokens(vec![7]), 0) else {
        panic!("no head runs")
    };
    let alone = first.step_of(part, &rows, Input::Tokens(vec![7]), 0).unwrap();
    assert_eq!(alone, Output::Hidden(hidden.clone()));
    let rest = Holds { embedding: false, layers: LayerRange { from: 2, to: 4 }, head: true };
    let halves = all.step_of(rest, &rows, Input::Hidden(hidden), 1).unwrap();
    assert_eq!(halves, all.step(&rows, Input::Tokens(vec![7]), 1).unwrap());
    let missing = first.step_of(rest, &rows, Input::Hidden(vec![0.0; 64]), 1);
    assert!(matches!(missing, Err(SegmentError::NotLoaded { from: 2, to: 4 })));
}

#[test]
fn rows_that_are_not_in_the_cache_are_refused() {
    let mut segment = load(CPU, LayerRange { from: 1, to: 3 });
    let width = segment.kv_words_per_position(1).unwrap();
    for (layer, slot, from, to) in [(0, 0, 0, 1), (3, 0, 0, 1), (u32::MAX, 0, 0, 1)] {
        assert!(matches!(segment.read_kv(layer, slot, from..to), Err(SegmentError::NotLoaded { .. })));
    }
    for (slot, from, to) in [(3, 0, 1), (0, 31, 33), (0, 1, 1), (0, u32::MAX - 1, u32::MAX)] {
        assert!(matches!(segment.read_kv(1, slot, from..to), Err(SegmentError::NotCached { .. })));
    }
    assert!(matches!(segment.write_kv(1, 0, u32::MAX - 1..u32::MAX, &[]), Err(SegmentError::NotCached { .. })));
    assert!(matches!(segment.write_kv(1, 0, 0..2, &vec![0.0; width]), Err(SegmentError::KvSize { .. })));
}
