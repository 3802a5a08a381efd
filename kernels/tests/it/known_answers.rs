//! Known answers: every engine has them, and one that is off by a bit that matters does not.

use std::ops::Range;

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::{
    Arithmetic, Backend, BufferId, Engine, EngineError, FileBytes, KnownAnswers, KvType, MatrixId, Recording, VectorId,
    WeightType,
};

use super::engines::vulkan_with;

const ARITHMETICS: [Arithmetic; 2] = [Arithmetic::F32, Arithmetic::Int8];

/// An engine of which one run goes wrong.
struct Odd {
    engine: Box<dyn Engine>,
    n_runs: usize,
    wrong_run: usize,
    wrong: Wrong,
    part: usize,
}

impl Engine for Odd {
    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        let mut values = self.engine.run(recording)?;
        if self.n_runs == self.wrong_run {
            spoil(&mut values, self.wrong, self.part);
        }
        self.n_runs += 1;
        Ok(values)
    }

    fn numerics(&self) -> String {
        self.engine.numerics()
    }

    fn device(&self) -> String {
        self.engine.device()
    }

    fn load_rows(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &dyn FileBytes,
    ) -> Result<MatrixId, EngineError> {
        self.engine.load_rows(weight_type, n_rows, n_cols, ggml)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError> {
        self.engine.load_vector(values)
    }

    fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError> {
        self.engine.alloc(len)
    }

    fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError> {
        self.engine.write(buffer, offset, values)
    }

    fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
        self.engine.read(buffer, range)
    }

    fn bytes_used(&self) -> u64 {
        self.engine.bytes_used()
    }
}

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
    let value = &mut values[at];
    match wrong {
        Wrong::Bit => {
            let change = |other: &f32| (other - *value).abs();
            let others = (0..32).map(|bit| f32::from_bits(value.to_bits() ^ 1 << bit));
            let enough = others.filter(|other| change(other) >= 10.0 * KnownAnswers::TOLERANCE * largest);
            *value = enough.min_by(|a, b| change(a).total_cmp(&change(b))).unwrap();
        }
        Wrong::NoNumber => *value = f32::NAN,
        Wrong::TooFew => values.truncate(at),
    }
}

#[test]
fn a_bit_worth_ten_times_the_tolerance_is_noticed_wherever_it_is() {
    for arithmetic in ARITHMETICS {
        for wrong in [Wrong::Bit, Wrong::NoNumber, Wrong::TooFew] {
            let engine = Box::new(CpuEngine::with_arithmetic(1, arithmetic).unwrap());
            let mut odd = Odd { engine, n_runs: 0, wrong_run: 0, wrong, part: 0 };
            let backend = Backend::Cpu { threads: 1, arithmetic };
            let types = [WeightType::Q4K, WeightType::F32];
            let known = KnownAnswers::load(&mut odd, backend, &types, KvType::F16).unwrap();
            let mut n_noticed = 0;
            for (wrong_run, part) in (0..).flat_map(|run| (0..PARTS).map(move |part| (run, part))) {
                odd = Odd { n_runs: 0, wrong_run, part, ..odd };
                match known.ask(&mut odd) {
                    Err(EngineError::Wrong { .. }) => n_noticed += 1,
                    Err(error) => panic!("{error}"),
                    // There are no more runs.
                    Ok(()) => break,
                }
            }
            // A prompt, a token, and two products of each type.
            assert_eq!(n_noticed, (2 + 2 * types.len()) * PARTS);
        }
    }
}
