//! The engines under test.

use std::sync::Mutex;

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::vulkan::{Options, VulkanEngine, WeightSource};
use polyphony_kernels::{Arithmetic, Around, Engine, EngineError, Recording};

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
    let engine = |(source, is_software)| {
        let kind = (arithmetic, source, is_software);
        let idle = {
            let mut idle = IDLE.lock().unwrap();
            let at = idle.iter().position(|(of, _)| *of == kind);
            at.map(|at| idle.swap_remove(at).1)
        };
        let options = Options { source: Some(source), arithmetic, is_software, ..Options::default() };
        let engine = idle.or_else(|| vulkan_as(options))?;
        let run = |engine: &mut dyn Engine, recording: &Recording| engine.run(recording);
        Some(Box::new(Around { engine: Lent { kind, engine: Some(engine) }, run }) as _)
    };
    KINDS.into_iter().map_while(engine).collect()
}

type Kind = (Arithmetic, WeightSource, Option<bool>);

/// Engines that one test has done with: they have the pipelines that another would wait for, and whatever the first has left in them.
static IDLE: Mutex<Vec<(Kind, VulkanEngine)>> = Mutex::new(Vec::new());
/// Bytes from which on an engine is not kept.
const MOST_BYTES: u64 = 256 << 20;

struct Lent {
    kind: Kind,
    engine: Option<VulkanEngine>,
}

impl AsRef<dyn Engine> for Lent {
    fn as_ref(&self) -> &(dyn Engine + 'static) {
        self.engine.as_ref().unwrap()
    }
}

impl AsMut<dyn Engine> for Lent {
    fn as_mut(&mut self) -> &mut (dyn Engine + 'static) {
        self.engine.as_mut().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let engine = self.engine.take().unwrap();
        if !std::thread::panicking() && engine.bytes_used() < MOST_BYTES {
            IDLE.lock().unwrap().push((self.kind, engine));
        }
    }
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
