//! The mixed engine: reads prompts on a GPU and decodes on the processor. Computes nothing itself.
//!
//! Both hold all weights and all caches. The processor's caches are always whole: what a prompt writes on the GPU comes back with its results.
//! The GPU's lack what the processor has written since, which goes there before the next prompt.

use std::collections::HashMap;
use std::ops::Range;

use crate::engine::{Engine, EngineError};
use crate::file_bytes::FileBytes;
use crate::ops::{ConvWrite, KvWrite, RopeKvWrite};
use crate::recording::{BufferId, KvLayout, MatrixId, Op, Recording, Row, VectorId};
use crate::weight_type::WeightType;

/// From so many rows of one slot on a step is of a prompt, whoever else has a row in it: fewer take less time where they are than what they
/// need takes to get elsewhere.
pub const PROMPT_ROWS: usize = 8;

/// Words that go to the GPU at a time: what is on its way is held by its driver until it has been taken.
const PIECE_WORDS: usize = 1 << 18;

/// An engine of two. Only caches outlast a step, and what is written from outside: of other buffers nobody may ask what a step has left in them.
pub struct MixedEngine {
    decode: Box<dyn Engine>,
    prefill: Box<dyn Engine>,
    /// Words that the processor has and the GPU has not, in order.
    ahead: HashMap<BufferId, Vec<Range<usize>>>,
}

// === impl MixedEngine ===

impl MixedEngine {
    /// Of two engines that hold the same, or nothing yet.
    pub fn new(decode: Box<dyn Engine>, prefill: Box<dyn Engine>) -> Self {
        Self { decode, prefill, ahead: HashMap::new() }
    }

    /// The numerics of one that decodes in these: a name of its own, of whatever GPU reads the prompts.
    pub fn name(decode: &str) -> String {
        format!("mixed-{}", decode.split_once('-').map_or("", |(_, arithmetic)| arithmetic))
    }

    fn run_prompt(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        self.bring()?;
        let kept = written(recording);
        let mut whole = recording.clone();
        for (buffer, range) in &kept {
            whole.readback(*buffer, range.clone());
        }
        let mut results = self.prefill.run(&whole)?;
        // Not before: of what did not come there nothing may be forgotten.
        self.ahead.clear();
        let mut at: usize = recording.readbacks.iter().map(|readback| readback.range.len()).sum();
        let caches = results.split_off(at);
        at = 0;
        for (buffer, range) in kept {
            self.decode.write(buffer, range.start, &caches[at..at + range.len()])?;
            at += range.len();
        }
        Ok(results)
    }

    /// Brings to the GPU what it lacks, in pieces that it has taken before the next.
    fn bring(&mut self) -> Result<(), EngineError> {
        let mut n_words = 0;
        for (buffer, ranges) in &self.ahead {
            for range in ranges {
                for first in range.clone().step_by(PIECE_WORDS) {
                    let values = self.decode.read(*buffer, first..range.end.min(first + PIECE_WORDS))?;
                    self.prefill.write(*buffer, first, &values)?;
                    n_words += values.len();
                    if n_words >= PIECE_WORDS {
                        self.prefill.run(&Recording::default())?;
                        n_words = 0;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes note of what the GPU lacks.
    fn is_ahead(&mut self, buffer: BufferId, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let ranges = self.ahead.entry(buffer).or_default();
        match ranges.iter_mut().find(|known| known.start <= range.start && range.start <= known.end) {
            Some(known) => known.end = known.end.max(range.end),
            None => ranges.push(range),
        }
    }
}

/// Whether a step is of a prompt.
fn is_prompt(rows: &[Row]) -> bool {
    // A step whose rows were put into another order is the same.
    let n_rows = |slot: u32| rows.iter().filter(|row| row.slot == slot).count();
    rows.iter().any(|row| n_rows(row.slot) >= PROMPT_ROWS)
}

/// What a recording writes into caches: words of buffers, whose ranges do not meet.
fn written(recording: &Recording) -> Vec<(BufferId, Range<usize>)> {
    let mut written: Vec<(BufferId, Range<usize>)> = Vec::new();
    let mut rows_of = |cache: BufferId, layout: KvLayout| {
        if written.iter().any(|(known, _)| *known == cache) {
            // An encoder's layers share one, which holds what the last of them keeps.
            return;
        }
        let first = written.len();
        for row in &recording.rows {
            let range = layout.range(row.slot, row.position..row.position + 1);
            match written[first..].last_mut() {
                Some((_, last)) if last.end == range.start => last.end = range.end,
                _ => written.push((cache, range)),
            }
        }
    };
    for op in &recording.ops {
        match op {
            Op::KvWrite(KvWrite { k_cache, v_cache, layout, .. })
            | Op::RopeKvWrite(RopeKvWrite { k_cache, v_cache, layout, .. }) => {
                rows_of(*k_cache, *layout);
                rows_of(*v_cache, *layout);
            }
            Op::ConvWrite(ConvWrite { cache, layout, .. }) => rows_of(*cache, *layout),
            _ => {}
        }
    }
    written
}

/// Both call the same thing by the same name, as long as both were asked for the same.
fn same<T: PartialEq>(decode: T, prefill: T) -> Result<T, EngineError> {
    if decode == prefill {
        return Ok(decode);
    }
    Err(EngineError::Device("the two engines of a mixed one were not given the same".to_owned()))
}

// === impl Engine ===

impl Engine for MixedEngine {
    fn numerics(&self) -> String {
        Self::name(&self.decode.numerics())
    }

    fn device(&self) -> String {
        format!("{}; prompts: {}", self.decode.device(), self.prefill.device())
    }

    fn load_rows(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &dyn FileBytes,
    ) -> Result<MatrixId, EngineError> {
        let decode = self.decode.load_rows(weight_type, n_rows, n_cols, ggml)?;
        same(decode, self.prefill.load_rows(weight_type, n_rows, n_cols, ggml)?)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError> {
        let decode = self.decode.load_vector(values)?;
        same(decode, self.prefill.load_vector(values)?)
    }

    fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError> {
        let decode = self.decode.alloc(len)?;
        same(decode, self.prefill.alloc(len)?)
    }

    fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError> {
        self.decode.write(buffer, offset, values)?;
        self.is_ahead(buffer, offset..offset + values.len());
        Ok(())
    }

    fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
        self.decode.read(buffer, range)
    }

    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        if is_prompt(&recording.rows) {
            return self.run_prompt(recording);
        }
        let results = self.decode.run(recording)?;
        for (buffer, range) in written(recording) {
            self.is_ahead(buffer, range);
        }
        Ok(results)
    }

    fn bytes_used(&self) -> u64 {
        self.decode.bytes_used() + self.prefill.bytes_used()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cpu::CpuEngine;
    use crate::kv_type::KvType;

    const LAYOUT: KvLayout = KvLayout { n_slots: 3, n_positions: 10, kv_width: 4, kv_type: KvType::F32 };

    fn rows(slot: u32, positions: Range<u32>) -> impl Iterator<Item = Row> {
        positions.map(move |position| Row { slot, position })
    }

    #[test]
    fn some_rows_of_one_slot_are_a_prompt_and_many_sessions_are_not() {
        let n = PROMPT_ROWS as u32;
        assert!(is_prompt(&rows(0, 0..n).collect::<Vec<_>>()));
        assert!(is_prompt(&rows(1, 4..5).chain(rows(0, 3..3 + n)).collect::<Vec<_>>()));
        assert!(is_prompt(&rows(0, 0..n - 1).chain(rows(2, 7..8)).chain(rows(0, n - 1..n)).collect::<Vec<_>>()));
        assert!(!is_prompt(&rows(0, 0..n - 1).collect::<Vec<_>>()));
        assert!(!is_prompt(&(0..2 * n).map(|slot| Row { slot, position: 7 }).collect::<Vec<_>>()));
        assert!(!is_prompt(&[]));
    }

    #[test]
    fn what_is_written_is_told_once_in_pieces_as_long_as_rows_follow_each_other() {
        let mut engine = CpuEngine::new(1).unwrap();
        let [k, v, k_cache, v_cache] = [(); 4].map(|()| engine.alloc(LAYOUT.len()).unwrap());
        let mut recording = Recording::new(rows(1, 2..5).chain(rows(0, 9..10)).chain(rows(1, 0..1)).collect());
        for _ in 0..2 {
            recording.push(KvWrite { k, v, k_cache, v_cache, layout: LAYOUT });
        }
        // The last row of a slot and the first of the next lie side by side.
        let ranges = [48..60, 36..44];
        let expected: Vec<_> =
            [k_cache, v_cache].into_iter().flat_map(|cache| ranges.clone().map(|one| (cache, one))).collect();
        assert_eq!(written(&recording), expected);
    }

    #[test]
    fn engines_that_were_not_given_the_same_are_no_mixed_one() {
        let mut decode = CpuEngine::new(1).unwrap();
        decode.alloc(1).unwrap();
        let mut mixed = MixedEngine::new(Box::new(decode), Box::new(CpuEngine::new(1).unwrap()));
        assert!(mixed.alloc(1).is_err());
    }
}
