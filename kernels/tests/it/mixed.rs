//! The mixed engine: prompts on one engine, tokens on another, and the same caches under both.

use polyphony_kernels::mixed::PROMPT_ROWS;
use polyphony_kernels::{Arithmetic, Around, Engine, EngineError, KvType, MixedEngine, Recording, Row};
use proptest::prelude::*;

use super::engines::{cpu, new_vulkan};
use super::same_bits::{LAYOUT, Layer};

/// From a position on so many rows of a slot.
fn rows(slot: u32, first: u32, n: usize) -> Vec<Row> {
    (first..first + n as u32).map(|position| Row { slot, position }).collect()
}

/// What a session does: goes on by so many rows, or goes back to a position first.
fn steps(moves: &[(u32, usize, Option<u32>)]) -> Vec<Vec<Row>> {
    let mut next = [0; 2];
    let mut steps = Vec::new();
    for &(slot, n_rows, back_to) in moves {
        let next = &mut next[slot as usize];
        *next = back_to.map_or(*next, |position| position.min(*next));
        let n_rows = n_rows.min(LAYOUT.n_positions - *next as usize);
        if n_rows > 0 {
            steps.push(rows(slot, *next, n_rows));
            *next += n_rows as u32;
        }
    }
    steps
}

/// Of every step in turn, the bits.
fn in_turn(engine: &mut dyn Engine, layer: &Layer, steps: &[Vec<Row>]) -> Vec<Vec<(u32, u32, Vec<u32>)>> {
    steps.iter().map(|step| layer.bits(engine, std::slice::from_ref(step))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Two of a class: whoever computes a step sees what the other has kept, so there is no telling them from one.
    #[test]
    fn of_two_alike_it_gives_the_bits_of_one(
        moves in prop::collection::vec((0..2u32, prop_oneof![1..3usize, 1..24usize], prop::option::weighted(0.2, 0..60u32)), 1..14),
        kept in 0..KvType::ALL.len(),
    ) {
        let kv_type = KvType::ALL[kept];
        let steps = steps(&moves);
        let mut plain = cpu(1);
        let layer = Layer::new(plain.as_mut(), kv_type);
        let expected = in_turn(plain.as_mut(), &layer, &steps);
        let mut mixed = MixedEngine::new(cpu(1), cpu(1));
        let layer = Layer::new(&mut mixed, kv_type);
        prop_assert_eq!(in_turn(&mut mixed, &layer, &steps), expected);
    }
}

#[test]
fn a_prompt_has_the_bits_of_the_gpu_and_what_it_keeps_is_decoded_on() {
    for gpu in new_vulkan(Arithmetic::F32) {
        let mut alone = gpu;
        let layer = Layer::new(alone.as_mut(), KvType::F16);
        let prompt = rows(1, 0, PROMPT_ROWS + 3);
        let expected = layer.bits(alone.as_mut(), std::slice::from_ref(&prompt));
        let kept = alone.read(layer.k_cache, 0..LAYOUT.len() / 2).unwrap();

        // The one that it was alone has the same names for the same, and nothing of the prompt is lost in it.
        let mut mixed = MixedEngine::new(cpu(1), new_vulkan(Arithmetic::F32).remove(0));
        let layer = Layer::new(&mut mixed, KvType::F16);
        assert_eq!(layer.bits(&mut mixed, &[prompt]), expected, "{}", mixed.device());
        assert_eq!(mixed.read(layer.k_cache, 0..LAYOUT.len() / 2).unwrap(), kept);
        // What a token gives depends on it, and a prompt after that on the token.
        let next = PROMPT_ROWS as u32 + 3;
        let token = layer.bits(&mut mixed, &[rows(1, next, 1)]);
        let more = layer.bits(&mut mixed, &[rows(1, next + 1, PROMPT_ROWS)]);
        let mut plain = cpu(1);
        let layer = Layer::new(plain.as_mut(), KvType::F16);
        layer.bits(plain.as_mut(), &[rows(1, 0, PROMPT_ROWS + 3)]);
        let near = |of_mixed: &[(u32, u32, Vec<u32>)], of_cpu: &[(u32, u32, Vec<u32>)]| {
            let values = |bits: &[(u32, u32, Vec<u32>)]| -> Vec<f32> {
                bits.iter().flat_map(|(_, _, bits)| bits.iter().copied().map(f32::from_bits)).collect()
            };
            let (of_mixed, of_cpu) = (values(of_mixed), values(of_cpu));
            let largest = of_cpu.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            // The keys' roundings to f16 that go the other way, and the residual's after the layer.
            of_mixed.iter().zip(&of_cpu).all(|(a, b)| (a - b).abs() <= 0.01 * largest)
        };
        assert!(near(&token, &layer.bits(plain.as_mut(), &[rows(1, next, 1)])));
        assert!(near(&more, &layer.bits(plain.as_mut(), &[rows(1, next + 1, PROMPT_ROWS)])));
    }
}

/// A step that fails may be tried again, and then nothing is missing.
#[test]
fn a_prompt_that_did_not_come_to_the_gpu_loses_nothing_of_what_was_decoded() {
    let steps: Vec<_> = (0..20).map(|position| rows(0, position, 1)).collect();
    let prompt = rows(0, 20, PROMPT_ROWS);
    let mut plain = cpu(1);
    let layer = Layer::new(plain.as_mut(), KvType::F16);
    in_turn(plain.as_mut(), &layer, &steps);
    let expected = layer.bits(plain.as_mut(), std::slice::from_ref(&prompt));
    let mut n_runs = 0;
    let run = move |engine: &mut dyn Engine, recording: &Recording| {
        n_runs += 1;
        if n_runs == 1 { Err(EngineError::OutOfMemory("for a moment".into())) } else { engine.run(recording) }
    };
    let mut mixed = MixedEngine::new(cpu(1), Box::new(Around { engine: cpu(1), run }));
    let layer = Layer::new(&mut mixed, KvType::F16);
    in_turn(&mut mixed, &layer, &steps);
    assert!(mixed.run(&layer.step(&prompt)).is_err());
    assert_eq!(layer.bits(&mut mixed, &[prompt]), expected);
}

/// A session whose cache comes from another phone goes on with a prompt.
#[test]
fn what_is_written_from_outside_is_seen_by_prompts_too() {
    let (first, second) = (rows(0, 0, 20), rows(0, 20, PROMPT_ROWS));
    let mut plain = cpu(1);
    let layer = Layer::new(plain.as_mut(), KvType::Q8);
    layer.bits(plain.as_mut(), std::slice::from_ref(&first));
    let caches = [layer.k_cache, layer.v_cache];
    let kept = caches.map(|cache| plain.read(cache, 0..plain_words()).unwrap());
    let expected = layer.bits(plain.as_mut(), std::slice::from_ref(&second));
    let mut mixed = MixedEngine::new(cpu(1), cpu(1));
    let layer = Layer::new(&mut mixed, KvType::Q8);
    for (cache, kept) in [layer.k_cache, layer.v_cache].into_iter().zip(kept) {
        mixed.write(cache, 0, &kept).unwrap();
    }
    assert_eq!(layer.bits(&mut mixed, &[second]), expected);
}

/// Words of 20 positions in 8 bits.
fn plain_words() -> usize {
    20 * KvType::Q8.row_words(LAYOUT.kv_width)
}
