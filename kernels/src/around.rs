//! Around an engine: one whose runs go through a function, and all else straight on.

use std::ops::Range;

use crate::engine::{Engine, EngineError};
use crate::file_bytes::FileBytes;
use crate::recording::{BufferId, MatrixId, Recording, VectorId};
use crate::weight_type::WeightType;

/// An engine that is run by `run`.
pub struct Around<R> {
    pub engine: Box<dyn Engine>,
    pub run: R,
}

// === impl Around ===

impl<R> Engine for Around<R>
where
    R: FnMut(&mut dyn Engine, &Recording) -> Result<Vec<f32>, EngineError> + Send,
{
    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        (self.run)(self.engine.as_mut(), recording)
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
