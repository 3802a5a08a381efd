//! Engines under test: those of GPUs are handed on, since each compiles for seconds what another has compiled.

use polyphony_kernels::{Backend, Engine, EngineError};

use crate::lending::{Lender, MOST_RESIDENT_BYTES};

/// An engine that is this test's own as long as it has it.
pub fn open(backend: Backend) -> Result<Box<dyn Engine>, EngineError> {
    static LENDER: Lender<Backend> = Lender::new(MOST_RESIDENT_BYTES);
    let new = || polyphony_kernels::open(backend, None);
    match backend {
        Backend::Cpu { .. } => new(),
        Backend::Vulkan { .. } | Backend::Mixed { .. } => LENDER.lend(backend, new),
    }
}
