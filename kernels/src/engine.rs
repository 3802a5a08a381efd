//! The engine: who holds weights and buffers and runs recordings. Knows no model, no file and no tensor's name.

use std::ops::Range;
use std::path::Path;

use crate::cpu::CpuEngine;
use crate::file_bytes::FileBytes;
use crate::mixed::MixedEngine;
use crate::recording::{BufferId, MatrixId, Recording, VectorId};
use crate::shapes::ShapeError;
use crate::vulkan::{Options, VulkanEngine};
use crate::weight_type::WeightType;

/// Holds matrices, vectors and buffers and runs recordings on them. Dropping it frees everything.
pub trait Engine: Send {
    /// The arithmetic with its revision ([`Numerics`](crate::Numerics)), a part of the numerics class: engines that say the same give
    /// the same bits. One for every processor (`cpu-f32-r1`, `cpu-int8-r2`); one for each GPU and driver (`vulkan-f32-r3-…`,
    /// `vulkan-int8-r4-…`), since divisions and fused operations differ between them.
    fn numerics(&self) -> String;

    /// The device in words, for people.
    fn device(&self) -> String;

    /// Takes a matrix of `n_rows` (outputs) × `n_cols` (inputs), row-major, in GGML's file bytes: `n_cols` is
    /// whole blocks of the type. The bytes are read in pieces, once and in order.
    fn load_rows(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &dyn FileBytes,
    ) -> Result<MatrixId, EngineError>;

    /// As [`Engine::load_rows`], of bytes in memory.
    fn load_matrix(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &[u8],
    ) -> Result<MatrixId, EngineError> {
        self.load_rows(weight_type, n_rows, n_cols, &ggml)
    }

    /// Takes a vector of f32.
    fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError>;

    /// Makes a buffer of `len` f32, zeroed.
    fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError>;

    /// Writes values into a buffer from value `offset` on.
    fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError>;

    /// Reads the values `range` of a buffer.
    fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError>;

    /// Checks the whole recording, then runs it: one submit, one readback. Returns the readbacks one after the other.
    ///
    /// A recording that fails its check has changed nothing.
    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError>;

    /// Bytes that matrices, vectors and buffers take on the device.
    fn bytes_used(&self) -> u64;
}

/// Which engine to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The processor; 0 threads means one for each of its big cores.
    Cpu { threads: usize, arithmetic: Arithmetic },
    /// The first Vulkan device, real ones before those made of software.
    Vulkan { arithmetic: Arithmetic },
    /// Prompts on that device, all else on the processor; see [`MixedEngine`].
    Mixed { threads: usize, arithmetic: Arithmetic },
}

/// How matrices are multiplied; a numerics class of its own each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Activations of f32.
    F32,
    /// Activations of 8 bits with one scale for 32 values, where the weights are quantised; f32 with other weights and in all other
    /// ops. An activation is off by at most 1/248 of the largest of its 32. `cpu/matmul/int8.rs` has the definition.
    Int8,
}

/// Opens an engine. `cache` is a folder for compiled pipelines and measurements, which only save time; without one nothing is measured.
pub fn open(backend: Backend, cache: Option<&Path>) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match backend {
        Backend::Cpu { threads, arithmetic } => Box::new(CpuEngine::with_arithmetic(threads, arithmetic)?),
        Backend::Vulkan { arithmetic } => {
            let cache = cache.map(Path::to_path_buf);
            Box::new(VulkanEngine::new(Options { arithmetic, cache, ..Options::default() })?)
        }
        Backend::Mixed { threads, arithmetic } => {
            let decode = open(Backend::Cpu { threads, arithmetic }, cache)?;
            Box::new(MixedEngine::new(decode, open(Backend::Vulkan { arithmetic }, cache)?))
        }
    })
}

/// Why an engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("op {index} ({op}): {source}")]
    Op {
        /// Place in the recording, from 0.
        index: usize,
        op: &'static str,
        #[source]
        source: ShapeError,
    },
    #[error("recording: {0}")]
    Recording(#[source] ShapeError),
    #[error("{call}: {source}")]
    Call {
        /// The engine's function that was called wrongly.
        call: &'static str,
        #[source]
        source: ShapeError,
    },
    #[error(
        "no vulkan adapter ({reason}): install a driver (debian: mesa-vulkan-drivers and libvulkan1) or use the cpu backend"
    )]
    NoAdapter { reason: String },
    #[error("{what} needs {bytes} bytes, the device allows {limit}: split it or use the cpu backend")]
    TooLarge { what: &'static str, bytes: u64, limit: u64 },
    #[error("the weights cannot be read: {0}: look after the disk that they are on")]
    Read(#[source] std::io::Error),
    #[error("vulkan device: {0}: use the cpu backend if it stays")]
    Device(String),
    #[error("the device has no memory left: {0}: give segments less of it, or use the cpu backend")]
    OutOfMemory(String),
    #[error("the device is lost, or hangs: {0}: use another backend, or start anew")]
    Lost(String),
    #[error("nothing is computed on this device any more: {reason}")]
    SetAside { reason: String },
    #[error(
        "nothing that is left to this phone computes rightly: {0}; update its drivers, or leave it another --backend"
    )]
    NoneRight(String),
    #[error(
        "{what} gives {found} where {right} is right: the device computes wrongly; update its driver, or use another backend"
    )]
    Wrong {
        /// What was computed.
        what: String,
        found: f32,
        right: f32,
    },
    #[error("cpu threads cannot start: {0}: ask for fewer")]
    Threads(#[source] std::io::Error),
}
