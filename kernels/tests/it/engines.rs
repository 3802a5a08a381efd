//! The engines under test.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::vulkan::{Options, VulkanEngine, WeightSource};
use polyphony_kernels::{Arithmetic, Engine, EngineError};

/// Every engine that this machine can open: the processor with one and with three threads, Vulkan with every source of weights.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![cpu(1), cpu(3)];
    engines.extend(vulkan());
    engines
}

pub fn cpu(threads: usize) -> Box<dyn Engine> {
    Box::new(CpuEngine::new(threads).unwrap())
}

/// The processor with activations of 8 bits.
pub fn cpu_int8(threads: usize) -> Box<dyn Engine> {
    Box::new(CpuEngine::with_arithmetic(threads, Arithmetic::Int8).unwrap())
}

/// Vulkan with every source of weights, the last as on a real GPU, or nothing where there is no adapter.
pub fn vulkan() -> Vec<Box<dyn Engine>> {
    vulkan_with(Arithmetic::F32)
}

/// As [`vulkan`] with an arithmetic of choice.
pub fn vulkan_with(arithmetic: Arithmetic) -> Vec<Box<dyn Engine>> {
    let kinds = [(WeightSource::Image, None), (WeightSource::Storage, Some(false))];
    let engine = |(source, is_software)| {
        let options = Options { source: Some(source), arithmetic, is_software, ..Options::default() };
        Some(Box::new(vulkan_as(options)?) as _)
    };
    kinds.into_iter().map_while(engine).collect()
}

/// A Vulkan engine; none, said aloud, where there is no adapter. An adapter that does not open is a failure.
pub fn vulkan_as(options: Options) -> Option<VulkanEngine> {
    match VulkanEngine::new(options) {
        Ok(engine) => Some(engine),
        Err(error @ EngineError::NoAdapter { .. }) => {
            polyphony_skip::skipped(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}
