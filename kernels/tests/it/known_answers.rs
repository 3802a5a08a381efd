//! Known answers: every engine has them, and one that is off by a bit that matters does not.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::{
    Arithmetic, Around, Backend, Engine, EngineError, KnownAnswers, KvType, Recording, WeightType,
};

use super::engines::vulkan_with;

const ARITHMETICS: [Arithmetic; 2] = [Arithmetic::F32, Arithmetic::Int8];

/// Every engine that there is here, with what it is.
fn engines() -> Vec<(Backend, Box<dyn Engine>)> {
    let mut engines: Vec<(Backend, Box<dyn Engine>)> = Vec::new();
    for arithmetic in ARITHMETICS {
        for threads in [1, 3] {
            let engine = CpuEngine::with_arithmetic(threads, arithmetic).unwrap();
            engines.push((Backend::Cpu { threads, arithmetic }, Box::new(engine)));
        }
        engines.extend(vulkan_with(arithmetic).into_iter().map(|engine| (Backend::Vulkan { arithmetic }, engine)));
    }
    engines
}

#[test]
fn every_engine_answers_as_the_oracle_does_whatever_it_holds_beside() {
    for (backend, mut engine) in engines() {
        // What is asked is not the first thing in it, and not the last.
        engine.alloc(7).unwrap();
        let known: Vec<KnownAnswers> = KvType::ALL
            .map(|kv_type| KnownAnswers::load(engine.as_mut(), backend, &WeightType::ALL, kv_type).unwrap())
            .into();
        for _ in 0..2 {
            for known in &known {
                known.ask(engine.as_mut()).unwrap_or_else(|error| panic!("{}: {error}", engine.device()));
            }
        }
    }
}

/// Places in an answer that are tried.
const PARTS: usize = 8;

fn place(values: &[f32], part: usize) -> usize {
    (values.len() - 1) * part / (PARTS - 1)
}

/// The value with the bit flipped that changes it the least of those that change it by so much, if there is one.
fn flipped(value: f32, enough: f32) -> Option<f32> {
    let change = |other: &f32| (other - value).abs();
    let others = (0..32).map(|bit| f32::from_bits(value.to_bits() ^ 1 << bit));
    others.filter(|other| change(other) >= enough).min_by(|a, b| change(a).total_cmp(&change(b)))
}

/// How an answer goes wrong.
#[derive(Clone, Copy)]
enum Wrong {
    /// The bit is flipped that changes a value the least of those that change it by ten times the tolerance.
    Bit,
    NoNumber,
    TooFew,
}

fn spoil(values: &mut Vec<f32>, wrong: Wrong, part: usize) {
    let at = place(values, part);
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    match wrong {
        Wrong::Bit => {
            let enough = 10.0 * KnownAnswers::TOLERANCE * largest;
            // Here, or where such a bit is.
            let mut places = (at..values.len()).chain(0..at);
            let (at, value) = places.find_map(|at| Some((at, flipped(values[at], enough)?))).unwrap();
            values[at] = value;
        }
        Wrong::NoNumber => values[at] = f32::NAN,
        Wrong::TooFew => values.truncate(at),
    }
}

#[test]
fn a_bit_worth_ten_times_the_tolerance_is_noticed_wherever_it_is() {
    for arithmetic in ARITHMETICS {
        for wrong in [Wrong::Bit, Wrong::NoNumber, Wrong::TooFew] {
            let mut engine: Box<dyn Engine> = Box::new(CpuEngine::with_arithmetic(1, arithmetic).unwrap());
            let backend = Backend::Cpu { threads: 1, arithmetic };
            let types = [WeightType::Q4K, WeightType::F32];
            let known = KnownAnswers::load(engine.as_mut(), backend, &types, KvType::F16).unwrap();
            let mut n_noticed = 0;
            for (wrong_run, part) in (0..).flat_map(|run| (0..PARTS).map(move |part| (run, part))) {
                let mut n_runs = 0;
                let run = |engine: &mut dyn Engine, recording: &Recording| {
                    let mut values = engine.run(recording)?;
                    if n_runs == wrong_run {
                        spoil(&mut values, wrong, part);
                    }
                    n_runs += 1;
                    Ok(values)
                };
                let mut odd = Around { engine, run };
                let asked = known.ask(&mut odd);
                engine = odd.engine;
                match asked {
                    Err(EngineError::Wrong { .. }) => n_noticed += 1,
                    Err(error) => panic!("{error}"),
                    // There are no more runs.
                    Ok(()) => break,
                }
            }
            // A prompt of four, a token, and a product of twelve rows of each type; and each row of them alone, those of a product in one run.
            assert_eq!(n_noticed, (5 + 2 + 2 * types.len()) * PARTS);
        }
    }
}

/// A session's rows come together in a prompt and one by one after it: that is not to show.
#[test]
fn a_row_that_is_computed_otherwise_alone_than_beside_others_is_noticed_by_its_last_bit() {
    let arithmetic = Arithmetic::Int8;
    // The prompt of a layer, and its second row alone.
    for wrong_run in [0, 2] {
        let mut engine: Box<dyn Engine> = Box::new(CpuEngine::with_arithmetic(1, arithmetic).unwrap());
        let known = KnownAnswers::load(engine.as_mut(), Backend::Cpu { threads: 1, arithmetic }, &[], KvType::F16);
        let mut n_runs = 0;
        let run = |engine: &mut dyn Engine, recording: &Recording| {
            let mut values = engine.run(recording)?;
            if n_runs == wrong_run {
                values[0] = f32::from_bits(values[0].to_bits() ^ 1);
            }
            n_runs += 1;
            Ok(values)
        };
        let asked = known.unwrap().ask(&mut Around { engine, run });
        let Err(EngineError::Wrong { what, .. }) = asked else { panic!("{asked:?}") };
        assert_eq!(what, "a layer and its head, of several rows, a row at a time,");
    }
}
