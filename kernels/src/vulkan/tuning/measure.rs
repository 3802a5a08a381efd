//! Which kernels a device is quickest with, of those that give the same bits.
//!
//! A driver may compile the same sums to other instructions in another kernel: a multiplication and an addition to one that rounds once, say. So a
//! kernel is used only where each of its rows has the bits that the row has alone. Where none for several rows has, a row alone goes through one for
//! several, too.

use std::time::{Duration, Instant};

use super::{MANY_ROWS, TOKENS, Tuning};
use crate::chance::Chance;
use crate::cpu::CpuEngine;
use crate::cpu::order::Order;
use crate::engine::{Arithmetic, Engine, EngineError};
use crate::kv_type::KvType;
use crate::ops::{Attention, Matmul};
use crate::recording::{KvLayout, MatrixId, Recording, Row};
use crate::vulkan::{Options, VulkanEngine};
use crate::weight_type::WeightType;
use crate::wgsl::{Lanes, PART};

/// Outputs of the measured matrices, few and many.
const OUTPUTS: [usize; 2] = [1152, 2 * MANY_ROWS];
/// Their inputs; on real GPUs more, so that there is what to split.
const SOFTWARE_INPUTS: usize = 576;
const INPUTS: usize = 1024;
/// Rows of activations: as many as the largest kernel takes.
const N_ROWS: usize = TOKENS[TOKENS.len() - 1];
/// How long one candidate is measured at least.
const MEASURE_FOR: Duration = Duration::from_millis(8);
/// After this no further candidate for so many rows is tried: software drivers compile one for up to a second. Decoding comes first.
const SOFTWARE_DEADLINE: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(1);

/// How products may be dealt out.
pub(super) fn candidates(is_software: bool) -> Vec<Lanes> {
    // Those that won most often come first.
    let whole = [32, 64].into_iter().flat_map(|workgroup| [4, 2, 1].map(|n_rows| (n_rows, workgroup, 1)));
    let split = [4, 8, 2].into_iter().flat_map(|n_splits| [1, 2, 4].map(|n_rows| (n_rows, 64, n_splits)));
    let all: Vec<_> = if is_software { whole.collect() } else { split.chain(whole).collect() };
    all.into_iter().map(|(n_rows, workgroup, n_splits)| Lanes { n_rows, workgroup, n_splits }).collect()
}

/// Measures on the device that the options are of.
pub(super) fn best(options: Options) -> Result<Tuning, EngineError> {
    let mut search = Search::new(VulkanEngine::new(options)?)?;
    let usual = search.engine.facts.tuning;
    let lanes = used(|class, is_first| match usual.lanes[class] {
        Some(_) => search.class(class, is_first),
        None => Ok(None),
    })?;
    // A device that computes nothing as it should has no others: known answers tell of it.
    let lanes = if lanes == [None; 3] { usual.lanes } else { lanes };
    search.engine.facts.tuning = Tuning { lanes, ..usual };
    search.attention()
}

/// The lanes of each class of [`TOKENS`] that is used. `find` says the quickest of a class, and none where no kernel of it has the bits of the first class that was
/// asked for.
fn used(
    mut find: impl FnMut(usize, bool) -> Result<Option<[Lanes; 2]>, EngineError>,
) -> Result<[Option<[Lanes; 2]>; 3], EngineError> {
    let of_one = find(0, true)?;
    if let Some(of_four) = find(1, of_one.is_none())? {
        return Ok([of_one, Some(of_four), find(2, false)?]);
    }
    // Prompts are read by several rows, and a row alone may come with some that are not there.
    match find(1, true)? {
        Some(of_four) => Ok([None, Some(of_four), find(2, false)?]),
        None => Ok([of_one, None, None]),
    }
}

struct Search {
    engine: VulkanEngine,
    matrices: Vec<Matrix>,
}

/// A matrix of 4 bits whose products are measured.
struct Matrix {
    n_out: usize,
    n_in: usize,
    weight: MatrixId,
    /// What the product with the first row of activations is about.
    right: Vec<f32>,
    /// What the product with each row of activations is to be to the bit: what the first kernel gives of each alone.
    known: Vec<f32>,
}

// === impl Search ===

impl Search {
    fn new(mut engine: VulkanEngine) -> Result<Self, EngineError> {
        let mut oracle = match engine.facts.arithmetic {
            Arithmetic::F32 => CpuEngine::reference(),
            Arithmetic::Int8 => CpuEngine::int8_reference(Order::Vulkan)?,
        };
        let n_in = if engine.facts.is_software { SOFTWARE_INPUTS } else { INPUTS };
        let mut matrices = Vec::new();
        for n_out in OUTPUTS {
            let ggml = blocks(n_out * n_in);
            let weight = engine.load_matrix(WeightType::Q4_1, n_out, n_in, &ggml)?;
            let of_oracle = oracle.load_matrix(WeightType::Q4_1, n_out, n_in, &ggml)?;
            let mut matrix = Matrix { n_out, n_in, weight: of_oracle, right: vec![], known: vec![] };
            let first = matrix.product(&mut oracle, 1, 1)?;
            matrix.right = oracle.run(&first)?;
            matrices.push(Matrix { weight, ..matrix });
        }
        Ok(Self { engine, matrices })
    }

    /// The quickest lanes for so many rows of activations, as [`TOKENS`], or none where no kernel has the bits that are known. Where the class is the
    /// first, its own are.
    fn class(&mut self, class: usize, is_first: bool) -> Result<Option<[Lanes; 2]>, EngineError> {
        let usual = self.engine.facts.tuning;
        let began = Instant::now();
        let mut found = vec![];
        for matrix in 0..OUTPUTS.len() {
            let lanes = self.lanes(class, matrix, is_first, began);
            self.engine.facts.tuning = usual;
            let Some(lanes) = lanes? else { return Ok(None) };
            found.push(lanes);
        }
        Ok(found.try_into().ok())
    }

    fn lanes(
        &mut self,
        class: usize,
        matrix: usize,
        is_first: bool,
        began: Instant,
    ) -> Result<Option<Lanes>, EngineError> {
        let Self { engine, matrices } = self;
        let (n_rows, matrix) = (TOKENS[class], &mut matrices[matrix]);
        let is_software = engine.facts.is_software;
        let usual = Tuning::usual(is_software).lanes(n_rows as u32, matrix.n_out);
        let deadline = if is_software { SOFTWARE_DEADLINE } else { DEADLINE };
        if is_software && began.elapsed() > deadline {
            // It takes more time than it saves.
            return Ok(Some(usual));
        }
        if is_first {
            matrix.known.clear();
        }
        let alone = matrix.product(engine, N_ROWS, 1)?;
        let step = matrix.product(engine, 1, n_rows)?;
        let several = matrix.product(engine, 8, n_rows)?;
        let mut fastest = None;
        let others = candidates(is_software).into_iter().filter(|lanes| *lanes != usual);
        for lanes in std::iter::once(usual).chain(others) {
            // Where none is like the others that is told in time, too.
            let within = if fastest.is_some() { deadline } else { 4 * deadline };
            if began.elapsed() > within {
                break;
            }
            engine.facts.tuning.lanes = [None; 3];
            engine.facts.tuning.lanes[class] = Some([lanes; 2]);
            let (alone, found) = match (engine.run(&alone), engine.run(&step)) {
                (Ok(alone), Ok(found)) => (alone, found),
                // It does not take this kernel, and perhaps another.
                (Err(EngineError::Device(_)), _) | (_, Err(EngineError::Device(_))) => continue,
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            let known = if matrix.known.is_empty() { &alone } else { &matrix.known };
            if !matrix.is_right(&found) || !same_bits(&alone, known) || !same_bits(&found, known) {
                continue;
            }
            matrix.known = alone;
            let (start, mut n_runs) = (Instant::now(), 0);
            while start.elapsed() < MEASURE_FOR {
                engine.run(&several)?;
                n_runs += 1;
            }
            let time = start.elapsed() / n_runs;
            if fastest.is_none_or(|(_, least)| time < least) {
                fastest = Some((lanes, time));
            }
        }
        Ok(fastest.map(|(lanes, _)| lanes))
    }

    /// What attention may do: all that gives the bits of a row whose workgroups are its own and take all of its positions.
    fn attention(&mut self) -> Result<Tuning, EngineError> {
        let usual = self.engine.facts.tuning;
        if self.engine.facts.is_software {
            return Ok(usual);
        }
        let queries = Queries::new(&mut self.engine)?;
        let mut bits = |together: bool, queries_together: bool, positions_split: bool| {
            self.engine.facts.tuning = Tuning { queries_together, positions_split, ..usual };
            queries.attend(&mut self.engine, together)
        };
        let plain = bits(false, false, false)?;
        let positions_split = usual.positions_split && same_bits(&bits(false, false, true)?, &plain);
        let mut queries_together = usual.queries_together && same_bits(&bits(true, true, false)?, &plain);
        if queries_together && positions_split {
            queries_together = same_bits(&bits(true, true, true)?, &plain);
        }
        Ok(Tuning { queries_together, positions_split, ..usual })
    }
}

// === impl Matrix ===

impl Matrix {
    /// Products of so many rows with the matrix, and as many times: each time of the next rows, or of the first again where there are no more.
    fn product(&self, engine: &mut dyn Engine, times: usize, n_rows: usize) -> Result<Recording, EngineError> {
        let x = engine.alloc(N_ROWS * self.n_in)?;
        let mut recording = Recording::default();
        recording.upload(x, 0, values(N_ROWS * self.n_in));
        for at in 0..times {
            let first_row = if (at + 1) * n_rows <= N_ROWS { at * n_rows } else { 0 };
            let out = engine.alloc(n_rows * self.n_out)?;
            recording.push(Matmul { weight: self.weight, x, first_row, n_rows, bias: None, residual: None, out });
            recording.readback(out, 0..n_rows * self.n_out);
        }
        Ok(recording)
    }

    /// Whether the first row's product is near to the oracle's.
    fn is_right(&self, found: &[f32]) -> bool {
        let largest = self.right.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        found.iter().zip(&self.right).all(|(found, right)| (found - right).abs() <= 1e-3 * largest)
    }
}

/// Some rows that see more than two parts of the positions.
struct Queries {
    step: Attention,
    values: Vec<f32>,
}

// === impl Queries ===

impl Queries {
    const HEAD_SIZE: usize = 64;
    const N_HEADS: usize = 4;
    const N_ROWS: usize = 4;
    const N_POSITIONS: usize = 2 * PART + 3;

    fn new(engine: &mut VulkanEngine) -> Result<Self, EngineError> {
        let kv_width = Self::HEAD_SIZE;
        let layout = KvLayout { n_slots: 1, n_positions: Self::N_POSITIONS, kv_width, kv_type: KvType::F32 };
        let n_values = Self::N_ROWS * Self::N_HEADS * Self::HEAD_SIZE;
        let [q, out] = [engine.alloc(n_values)?, engine.alloc(n_values)?];
        let [k_cache, v_cache] = [engine.alloc(layout.len())?, engine.alloc(layout.len())?];
        for cache in [k_cache, v_cache] {
            engine.write(cache, 0, &values(layout.len()))?;
        }
        let step = Attention {
            q,
            k_cache,
            v_cache,
            layout,
            n_heads: Self::N_HEADS,
            n_kv_heads: 1,
            head_size: Self::HEAD_SIZE,
            scale: 0.125,
            cap: None,
            window: None,
            lengths: None,
            bias: None,
            sinks: None,
            out,
        };
        Ok(Self { step, values: values(n_values) })
    }

    /// The last rows of the slot, at once or one by one. The first of them are in another part than the last.
    fn attend(&self, engine: &mut VulkanEngine, together: bool) -> Result<Vec<f32>, EngineError> {
        let width = Self::N_HEADS * Self::HEAD_SIZE;
        let n_at_once = if together { Self::N_ROWS } else { 1 };
        let mut found = vec![];
        for (step, values) in self.values.chunks_exact(n_at_once * width).enumerate() {
            let first = Self::N_POSITIONS - Self::N_ROWS + step * n_at_once;
            let rows = (first..first + n_at_once).map(|position| Row { slot: 0, position: position as u32 });
            let mut recording = Recording::new(rows.collect());
            recording.upload(self.step.q, 0, values.to_vec());
            recording.push(self.step.clone());
            recording.readback(self.step.out, 0..values.len());
            found.extend(engine.run(&recording)?);
        }
        Ok(found)
    }
}

/// Of as many values as both have.
fn same_bits(one: &[f32], other: &[f32]) -> bool {
    one.iter().zip(other).all(|(one, other)| one.to_bits() == other.to_bits())
}

/// From −1 to 1, the same each time.
fn values(n: usize) -> Vec<f32> {
    Chance::new(0).values(n)
}

/// A matrix of so many values: any codes, with scales and minimums from 2⁻⁷ to 2⁻⁶.
fn blocks(n_values: usize) -> Vec<u8> {
    let half = |bits: u64| half::f16::from_bits(0x2000 | (bits & 0x3ff) as u16).to_le_bytes();
    let (block_values, block_bytes) = WeightType::Q4_1.block();
    let mut chance = Chance::new(0);
    let mut next = || chance.bits() >> 40;
    (0..n_values / block_values)
        .flat_map(|_| {
            let scales = [half(next()), half(next())].concat();
            let codes: Vec<u8> = (scales.len()..block_bytes).map(|_| next() as u8).collect();
            [scales, codes].concat()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Lanes by which classes are told.
    const OF: [[Lanes; 2]; 3] = [[lanes(1); 2], [lanes(2); 2], [lanes(4); 2]];

    const fn lanes(n_rows: u32) -> Lanes {
        Lanes { n_rows, workgroup: 64, n_splits: 1 }
    }

    /// The classes that are used on a device whose classes of one group give the same bits, and whose others are wrong.
    fn used_of(groups: [Option<u32>; 3]) -> [bool; 3] {
        let mut known = None;
        let found = used(|class, is_first| {
            if is_first {
                known = groups[class];
            }
            Ok((groups[class].is_some() && groups[class] == known).then_some(OF[class]))
        });
        let found = found.unwrap();
        for (class, lanes) in found.iter().enumerate() {
            assert!(lanes.is_none_or(|lanes| lanes == OF[class]));
        }
        found.map(|lanes| lanes.is_some())
    }

    #[test]
    fn only_kernels_that_are_alike_are_used_and_those_for_several_rows_come_first() {
        assert_eq!(used_of([Some(0), Some(0), Some(0)]), [true, true, true]);
        assert_eq!(used_of([Some(0), Some(0), Some(1)]), [true, true, false]);
        assert_eq!(used_of([Some(0), Some(1), Some(1)]), [false, true, true]);
        assert_eq!(used_of([Some(0), Some(1), Some(0)]), [false, true, false]);
        assert_eq!(used_of([Some(0), None, Some(0)]), [true, false, false]);
        assert_eq!(used_of([None, Some(1), Some(1)]), [false, true, true]);
        assert_eq!(used_of([None, None, Some(1)]), [false, false, false]);
    }

    /// As on a real GPU; none, said aloud, where there is no adapter.
    fn search() -> Option<Search> {
        let options = Options { is_software: Some(false), ..Options::default() };
        match VulkanEngine::new(options) {
            Ok(engine) => Some(Search::new(engine).unwrap()),
            Err(error @ EngineError::NoAdapter { .. }) => {
                polyphony_skip::skipped(error);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Where tuning finds that some kernels are not alike here, plans go without them, and a row has the bits that it had.
    #[test]
    fn plans_go_without_what_tuning_rules_out() {
        let Some(mut search) = search() else { return };
        let usual = search.engine.facts.tuning;
        let queries = Queries::new(&mut search.engine).unwrap();
        let plain = Tuning { queries_together: false, positions_split: false, ..usual };
        search.engine.facts.tuning = plain;
        let known = queries.attend(&mut search.engine, false).unwrap();
        for (queries_together, positions_split) in [(false, false), (false, true), (true, false), (true, true)] {
            search.engine.facts.tuning = Tuning { queries_together, positions_split, ..usual };
            for together in [false, true] {
                let found = queries.attend(&mut search.engine, together).unwrap();
                assert!(same_bits(&found, &known), "{queries_together} {positions_split} {together}");
            }
        }
        let Search { mut engine, matrices } = search;
        let mut product = |tuning: Tuning, times: usize, n_rows: usize| {
            engine.facts.tuning = tuning;
            let recording = matrices[0].product(&mut engine, times, n_rows).unwrap();
            engine.run(&recording).unwrap()
        };
        let known = product(usual, N_ROWS, 1);
        for used in [[true, false, false], [false, true, false], [false, true, true], [true, false, true]] {
            let lanes = std::array::from_fn(|class| usual.lanes[class].filter(|_| used[class]));
            for (times, n_rows) in [(N_ROWS, 1), (1, N_ROWS), (2, 3)] {
                let found = product(Tuning { lanes, ..usual }, times, n_rows);
                assert!(same_bits(&found, &known), "{used:?}, {n_rows} rows");
            }
        }
    }

    /// A workgroup that is over the device's limits stands for a kernel that its driver does not take.
    #[test]
    fn a_kernel_that_the_device_refuses_is_an_error_of_the_device_and_leaves_it_as_it_was() {
        let Some(Search { mut engine, matrices }) = search() else { return };
        let usual = engine.facts.tuning;
        let product = matrices[0].product(&mut engine, 1, 1).unwrap();
        let refused = Lanes { n_rows: 1, workgroup: 1 << 20, n_splits: 1 };
        engine.facts.tuning.lanes = [Some([refused; 2]); 3];
        let error = engine.run(&product).unwrap_err();
        assert!(matches!(error, EngineError::Device(_)), "{error:?}");
        engine.facts.tuning = usual;
        assert!(matrices[0].is_right(&engine.run(&product).unwrap()));
    }
}
