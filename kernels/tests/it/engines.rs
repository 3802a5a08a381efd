//! The engines under test.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::vulkan::{Options, VulkanEngine, WeightSource};
use polyphony_kernels::{Arithmetic, Engine, EngineError};

use super::lending::{Lender, MOST_RESIDENT_BYTES};

/// Every engine that this machine can open: the processor with one and with three threads, Vulkan with every source of weights.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![cpu(1), cpu(3)];
    engines.extend(vulkan());
    engines
}

/// The same with nothing in them.
pub fn new_engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![cpu(1), cpu(3)];
    engines.extend(new_vulkan(Arithmetic::F32));
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

/// Weights' sources and kinds of devices.
const KINDS: [(WeightSource, Option<bool>); 2] = [(WeightSource::Image, None), (WeightSource::Storage, Some(false))];

/// As [`vulkan_with`], with nothing in them.
pub fn new_vulkan(arithmetic: Arithmetic) -> Vec<Box<dyn Engine>> {
    let engine = |(source, is_software)| {
        let options = Options { source: Some(source), arithmetic, is_software, ..Options::default() };
        Some(Box::new(vulkan_as(options)?) as _)
    };
    KINDS.into_iter().map_while(engine).collect()
}

/// As [`vulkan`] with an arithmetic of choice.
pub fn vulkan_with(arithmetic: Arithmetic) -> Vec<Box<dyn Engine>> {
    static LENDER: Lender<(Arithmetic, WeightSource, Option<bool>)> = Lender::new(MOST_RESIDENT_BYTES);
    let engine = |(source, is_software)| {
        let options = Options { source: Some(source), arithmetic, is_software, ..Options::default() };
        here(LENDER.lend((arithmetic, source, is_software), || Ok(Box::new(VulkanEngine::new(options)?))))
    };
    KINDS.into_iter().map_while(engine).collect()
}

/// A Vulkan engine of one's own.
pub fn vulkan_as(options: Options) -> Option<VulkanEngine> {
    here(VulkanEngine::new(options))
}

/// What was opened; none, said aloud, where there is no adapter. An adapter that does not open is a failure.
fn here<E>(opened: Result<E, EngineError>) -> Option<E> {
    match opened {
        Ok(engine) => Some(engine),
        Err(error @ EngineError::NoAdapter { .. }) => {
            polyphony_skip::skipped(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}
