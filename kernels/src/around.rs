//! Around an engine: one whose runs go through a function, and all else straight on.

use std::ops::Range;

use crate::engine::{Engine, EngineError};
use crate::file_bytes::FileBytes;
use crate::recording::{BufferId, MatrixId, Recording, VectorId};
use crate::weight_type::WeightType;

/// An engine that is run by `run`; `engine` is what holds it.
pub struct Around<E, R> {
    pub engine: E,
    pub run: R,
}

// === impl Around ===

impl<E, R> Engine for Around<E, R>
where
    E: AsRef<dyn Engine> + AsMut<dyn Engine> + Send,
    R: FnMut(&mut dyn Engine, &Recording) -> Result<Vec<f32>, EngineError> + Send,
{
    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        (self.run)(self.engine.as_mut(), recording)
    }

    fn numerics(&self) -> String {
        self.engine.as_ref().numerics()
    }

    fn device(&self) -> String {
        self.engine.as_ref().device()
    }

    fn load_rows(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &dyn FileBytes,
    ) -> Result<MatrixId, EngineError> {
        self.engine.as_mut().load_rows(weight_type, n_rows, n_cols, ggml)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError> {
        self.engine.as_mut().load_vector(values)
    }

    fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError> {
        self.engine.as_mut().alloc(len)
    }

    fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError> {
        self.engine.as_mut().write(buffer, offset, values)
    }

    fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
        self.engine.as_mut().read(buffer, range)
    }

    fn bytes_used(&self) -> u64 {
        self.engine.as_ref().bytes_used()
    }
}
