//! The CPU engine: every op as `reference` (scalar, f64 sums, the oracle of all engines) or `fast` (SIMD and threads).

use std::ops::Range;
use std::sync::Arc;

use crate::engine::{self, Engine, EngineError};
use crate::file_bytes::FileBytes;
use crate::numerics::Numerics;
use crate::ops::{self, Turn};
use crate::recording::{BufferId, MatrixId, Op, Recording, Row, VectorId};
use crate::shapes::{MatrixShape, ShapeError, Shapes};
use crate::weight_type::WeightType;

pub mod activate;
pub mod add_rows;
pub mod attention;
pub mod conv_write;
mod cores;
mod crew;
pub mod embed_rows;
pub mod expert_matmul;
pub mod exponential;
pub mod gate_up;
pub mod kv_row;
pub mod kv_write;
mod lanes;
pub mod layer_norm;
pub mod matmul;
mod matrix;
pub mod mix_rows;
pub mod order;
pub mod pad_rows;
pub mod quantise_rows;
pub mod rms_norm;
pub mod rope;
pub mod rope_kv_write;
pub mod round_rows;
pub mod route;
pub mod scale_rows;
pub mod short_conv;

use crew::Crew;
pub use matrix::Matrix;
use matrix::{Form, Held};
use order::Order;

/// Runs recordings on the processor.
pub struct CpuEngine {
    arithmetic: Arithmetic,
    shapes: Shapes,
    matrices: Vec<Held>,
    vectors: Vec<Box<[f32]>>,
    buffers: Vec<Vec<f32>>,
    /// Of the turns of the run that is on.
    angles: Vec<(Turn, Arc<[f32]>)>,
}

enum Arithmetic {
    Reference,
    Fast(Arc<Crew>, Products),
}

/// How quantised matrices are multiplied; all others meet activations of f32.
#[derive(Clone, Copy)]
enum Products {
    F32,
    Int8,
    /// By the oracle of that class, with all sums in this order.
    Defined(Order),
}

/// An operation as the processor does it.
trait Run {
    /// Reads and writes the engine's buffers; the check of the operation has passed.
    fn run(&self, engine: &mut CpuEngine, rows: &[Row]) -> Result<(), ShapeError>;
}

macro_rules! kernel {
    ($($module:ident: $op:ident,)+) => {
        fn kernel(op: &Op) -> &dyn Run {
            match op {
                $(Op::$op(op) => op,)+
            }
        }
    };
}
ops::ops!(kernel);

impl CpuEngine {
    /// The fast engine on a crew of its own; 0 threads means as many as the processor has big cores, to which they are kept then, and whoever runs it.
    pub fn new(threads: usize) -> Result<Self, EngineError> {
        Self::with_arithmetic(threads, engine::Arithmetic::F32)
    }

    /// As [`CpuEngine::new`], in an arithmetic of choice.
    pub fn with_arithmetic(threads: usize, arithmetic: engine::Arithmetic) -> Result<Self, EngineError> {
        let crew = Arc::new(Crew::new(threads).map_err(EngineError::Threads)?);
        Ok(Self::with(match arithmetic {
            engine::Arithmetic::F32 => Arithmetic::Fast(crew, Products::F32),
            engine::Arithmetic::Int8 => Arithmetic::Fast(crew, Products::Int8),
        }))
    }

    /// The oracle: slow, simple, as exact as f32 storage between ops lets it be.
    pub fn reference() -> Self {
        Self::with(Arithmetic::Reference)
    }

    /// The oracle of activations of 8 bits and of each type of KV caches: scalar and as plain as the definitions are its products, its norms and
    /// attention in the order of one backend, and what it keeps of keys and values; what goes value by value (activations, turns, sums of two) is
    /// as everywhere. Gives the bits of that backend's engine: on the processor
    /// always, on Vulkan where the driver computes as written.
    pub fn int8_reference(order: Order) -> Result<Self, EngineError> {
        let crew = Crew::new(1).map_err(EngineError::Threads)?;
        Ok(Self::with(Arithmetic::Fast(Arc::new(crew), Products::Defined(order))))
    }

    fn with(arithmetic: Arithmetic) -> Self {
        Self {
            arithmetic,
            shapes: Shapes::default(),
            matrices: vec![],
            vectors: vec![],
            buffers: vec![],
            angles: vec![],
        }
    }

    fn is_reference(&self) -> bool {
        matches!(self.arithmetic, Arithmetic::Reference)
    }

    fn matrix(&self, id: MatrixId) -> Result<Matrix<'_>, ShapeError> {
        let (shape, held) = (self.shapes.matrix("matrix", id)?, &self.matrices[id.0 as usize]);
        Ok(held.matrix(shape))
    }

    fn vector(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.0 as usize]
    }

    fn buffer(&self, id: BufferId) -> &[f32] {
        &self.buffers[id.0 as usize]
    }

    fn run_ops(&mut self, recording: &Recording) -> Result<(), EngineError> {
        for (index, op) in recording.ops.iter().enumerate() {
            let done = kernel(op).run(self, &recording.rows);
            done.map_err(|source| EngineError::Op { index, op: op.name(), source })?;
        }
        Ok(())
    }

    /// Calls `kernel` with the engine and one of its buffers to write to, which the engine meanwhile lacks.
    fn update<T>(&mut self, id: BufferId, kernel: impl FnOnce(&Self, &mut [f32]) -> T) -> T {
        let mut out = std::mem::take(&mut self.buffers[id.0 as usize]);
        let result = kernel(self, &mut out);
        self.buffers[id.0 as usize] = out;
        result
    }
}

// === impl Engine ===

impl Engine for CpuEngine {
    fn numerics(&self) -> String {
        match self.arithmetic {
            Arithmetic::Reference => "reference-f64".to_string(),
            Arithmetic::Fast(_, Products::F32) => Numerics::CpuF32.to_string(),
            Arithmetic::Fast(..) => Numerics::CpuInt8.to_string(),
        }
    }

    fn device(&self) -> String {
        match &self.arithmetic {
            Arithmetic::Reference => "cpu (reference)".to_string(),
            Arithmetic::Fast(crew, products) => {
                let way = if let Products::Int8 = products { matmul::int8::way() } else { lanes::simd_name() };
                format!("cpu ({}, {way})", crew.name())
            }
        }
    }

    fn load_rows(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &dyn FileBytes,
    ) -> Result<MatrixId, EngineError> {
        let shape = MatrixShape { weight_type, n_rows, n_cols };
        let id = self.shapes.add_matrix(shape, ggml.n_bytes())?;
        let form = match (&self.arithmetic, weight_type.packing().quantised()) {
            (Arithmetic::Reference, _) | (Arithmetic::Fast(_, Products::Defined(_)), Some(_)) => Form::File,
            (Arithmetic::Fast(_, Products::Int8), Some(_)) => Form::Strips,
            (Arithmetic::Fast(..), _) => Form::Rows,
        };
        match Held::new(form, shape, ggml) {
            Ok(held) => self.matrices.push(held),
            Err(error) => {
                self.shapes.remove_last_matrix();
                return Err(EngineError::Read(error));
            }
        }
        Ok(id)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError> {
        let id = self.shapes.add_vector(values.len())?;
        self.vectors.push(values.into());
        Ok(id)
    }

    fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError> {
        let id = self.shapes.add_buffer(len)?;
        self.buffers.push(vec![0.0; len]);
        Ok(id)
    }

    fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError> {
        let range = offset..offset.saturating_add(values.len());
        self.shapes
            .require_range("values", buffer, &range)
            .map_err(|source| EngineError::Call { call: "write", source })?;
        self.buffers[buffer.0 as usize][range].copy_from_slice(values);
        Ok(())
    }

    fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
        self.shapes
            .require_range("range", buffer, &range)
            .map_err(|source| EngineError::Call { call: "read", source })?;
        Ok(self.buffer(buffer)[range].to_vec())
    }

    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        self.shapes.check(recording)?;
        for upload in &recording.uploads {
            self.write(upload.buffer, upload.offset, &upload.values)?;
        }
        self.angles.clear();
        match &self.arithmetic {
            Arithmetic::Fast(crew, _) => crew.clone().step(|| self.run_ops(recording))?,
            Arithmetic::Reference => self.run_ops(recording)?,
        }
        // Logits are large: no room is taken that they do not need.
        let mut values = Vec::with_capacity(recording.readbacks.iter().map(|readback| readback.range.len()).sum());
        for readback in &recording.readbacks {
            values.extend_from_slice(&self.buffer(readback.buffer)[readback.range.clone()]);
        }
        Ok(values)
    }

    fn bytes_used(&self) -> u64 {
        let matrices: usize = self.matrices.iter().map(|matrix| matrix.bytes.len()).sum();
        let vectors: usize = self.vectors.iter().map(|vector| size_of_val(&vector[..])).sum();
        let buffers: usize = self.buffers.iter().map(|buffer| size_of_val(&buffer[..])).sum();
        (matrices + vectors + buffers) as u64
    }
}
