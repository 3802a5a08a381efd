//! The CPU engine: every op as `reference` (scalar, f64 sums, the oracle of all engines) or `fast` (SIMD and threads).

use std::ops::Range;
use std::sync::Arc;

use rayon::ThreadPool;

use crate::engine::{self, Engine, EngineError};
use crate::numerics::Numerics;
use crate::ops::{
    Activate, AddRows, Attention, ConvWrite, EmbedRows, GateUp, KvWrite, LayerNorm, Matmul, PositionBias, RmsNorm,
    Rope, RopeKvWrite, RoundRows, ScaleRows, ShortConv, Turn,
};
use crate::recording::{BufferId, MatrixId, Op, Recording, Row, VectorId};
use crate::shapes::{MatrixShape, Shapes};
use crate::weight_type::WeightType;

pub mod activate;
pub mod add_rows;
pub mod attention;
pub mod conv_write;
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
pub mod pad_rows;
pub mod quantise_rows;
pub mod rms_norm;
pub mod rope;
pub mod rope_kv_write;
pub mod round_rows;
pub mod route;
pub mod scale_rows;
pub mod short_conv;

pub use matrix::Matrix;
use matrix::{Form, Held};

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
    Fast(ThreadPool, Products),
}

/// How quantised matrices are multiplied; all others meet activations of f32.
#[derive(Clone, Copy)]
enum Products {
    F32,
    Int8,
    /// By the oracle of that class.
    Int8Reference,
}

impl CpuEngine {
    /// The fast engine on a pool of its own; 0 threads means as many as the processor has.
    pub fn new(threads: usize) -> Result<Self, EngineError> {
        Self::with_arithmetic(threads, engine::Arithmetic::F32)
    }

    /// As [`CpuEngine::new`], in an arithmetic of choice.
    pub fn with_arithmetic(threads: usize, arithmetic: engine::Arithmetic) -> Result<Self, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("kernels-{index}"))
            .build()?;
        Ok(Self::with(match arithmetic {
            engine::Arithmetic::F32 => Arithmetic::Fast(pool, Products::F32),
            engine::Arithmetic::Int8 => Arithmetic::Fast(pool, Products::Int8),
        }))
    }

    /// The oracle: slow, simple, as exact as f32 storage between ops lets it be.
    pub fn reference() -> Self {
        Self::with(Arithmetic::Reference)
    }

    /// The oracle of activations of 8 bits: as the engine of that arithmetic, but for its products, which are scalar and as plain as their
    /// definition. Gives the same bits.
    pub fn int8_reference() -> Result<Self, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        Ok(Self::with(Arithmetic::Fast(pool, Products::Int8Reference)))
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

    fn matrix(&self, id: MatrixId) -> Result<Matrix<'_>, crate::ShapeError> {
        let (shape, held) = (self.shapes.matrix("matrix", id)?, &self.matrices[id.0 as usize]);
        Ok(held.matrix(shape))
    }

    fn vector(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.0 as usize]
    }

    fn buffer(&self, id: BufferId) -> &[f32] {
        &self.buffers[id.0 as usize]
    }

    /// Calls `kernel` with the engine and one of its buffers to write to, which the engine meanwhile lacks.
    fn update<T>(&mut self, id: BufferId, kernel: impl FnOnce(&Self, &mut [f32]) -> T) -> T {
        let mut out = std::mem::take(&mut self.buffers[id.0 as usize]);
        let result = kernel(self, &mut out);
        self.buffers[id.0 as usize] = out;
        result
    }

    fn run_op(&mut self, op: &Op, rows: &[Row]) -> Result<(), crate::ShapeError> {
        match op {
            Op::EmbedRows(op) => return self.embed_rows(op),
            Op::RmsNorm(op) => self.rms_norm(op),
            Op::LayerNorm(op) => self.layer_norm(op),
            Op::Matmul(op) => return self.matmul(op),
            Op::ExpertMatmul(op) => return self.expert_matmul(op),
            Op::GateUp(op) => return self.gate_up(op),
            Op::Rope(op) => self.rope(op, rows),
            Op::RopeKvWrite(op) => self.rope_kv_write(op, rows),
            Op::KvWrite(op) => self.kv_write(op, rows),
            Op::Attention(op) => self.attention(op, rows),
            Op::Activate(op) => self.activate(op),
            Op::AddRows(op) => self.add_rows(op),
            Op::ScaleRows(op) => self.scale_rows(op),
            Op::ConvWrite(op) => self.conv_write(op, rows),
            Op::ShortConv(op) => self.short_conv(op, rows),
            Op::RoundRows(op) => self.round_rows(op),
            Op::Route(op) => self.route(op),
            Op::MixRows(op) => self.mix_rows(op),
        }
        Ok(())
    }

    fn embed_rows(&mut self, op: &EmbedRows) -> Result<(), crate::ShapeError> {
        self.update(op.out, |engine, out| {
            embed_rows::reference(engine.matrix(op.table)?, &op.tokens, op.scale, op.adds, out);
            Ok(())
        })
    }

    fn rms_norm(&mut self, op: &RmsNorm) {
        self.update(op.out, |engine, out| {
            let first = op.first_row * op.width;
            let x = &engine.buffer(op.x)[first..first + op.n_rows * op.width];
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => rms_norm::reference,
                Arithmetic::Fast(..) => rms_norm::fast,
            };
            kernel(x, engine.vector(op.weight), op.eps, &mut out[..x.len()]);
        });
    }

    fn layer_norm(&mut self, op: &LayerNorm) {
        self.update(op.out, |engine, out| {
            let first = op.first_row * op.width;
            let x = &engine.buffer(op.x)[first..first + op.n_rows * op.width];
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => layer_norm::reference,
                Arithmetic::Fast(..) => layer_norm::fast,
            };
            let bias = op.bias.map(|bias| engine.vector(bias));
            kernel(x, engine.vector(op.weight), bias, op.eps, &mut out[..x.len()]);
        });
    }

    fn matmul(&mut self, op: &Matmul) -> Result<(), crate::ShapeError> {
        self.update(op.out, |engine, out| {
            let weight = engine.matrix(op.weight)?;
            let first = op.first_row * weight.shape.n_cols;
            let x = &engine.buffer(op.x)[first..first + op.n_rows * weight.shape.n_cols];
            let out = &mut out[..op.n_rows * weight.shape.n_rows];
            let add = matmul::Add {
                bias: op.bias.map(|bias| engine.vector(bias)),
                residual: match op.residual {
                    None => matmul::Residual::None,
                    Some(residual) if residual == op.out => matmul::Residual::Out,
                    Some(residual) => matmul::Residual::Rows(engine.buffer(residual)),
                },
            };
            engine.multiply(weight, x, &add, out);
            Ok(())
        })
    }

    fn multiply(&self, weight: Matrix<'_>, x: &[f32], add: &matmul::Add<'_>, out: &mut [f32]) {
        match (&self.arithmetic, weight.shape.weight_type.packing().quantised()) {
            (Arithmetic::Reference, _) => matmul::reference(weight, x, add, out),
            (Arithmetic::Fast(pool, Products::Int8), Some(packing)) => {
                matmul::int8::fast(weight, packing, x, add, out, pool);
            }
            (Arithmetic::Fast(_, Products::Int8Reference), Some(packing)) => {
                matmul::int8::reference(weight, packing, x, add, out);
            }
            (Arithmetic::Fast(pool, _), _) => matmul::fast(weight, x, add, out, pool),
        }
    }

    fn rope(&mut self, op: &Rope, rows: &[Row]) {
        let angles = self.angles(&op.turn, rows);
        self.update(op.x, |engine, x| {
            let width = op.n_heads * op.head_size;
            let heads = rope::Heads::new(op.head_size, &op.turn);
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => rope::reference,
                Arithmetic::Fast(..) => rope::fast,
            };
            for (row, angles) in x.chunks_exact_mut(width).zip(angles.chunks_exact(op.turn.n_rotated())) {
                kernel(row, angles, heads);
            }
        });
    }

    /// The angles of a turn, computed once in a run for all layers alike.
    fn angles(&mut self, turn: &Turn, rows: &[Row]) -> Arc<[f32]> {
        if let Some((_, angles)) = self.angles.iter().find(|(known, _)| known == turn) {
            return angles.clone();
        }
        let angles: Arc<[f32]> = turn.angles(rows).into();
        self.angles.push((turn.clone(), angles.clone()));
        angles
    }

    fn rope_kv_write(&mut self, op: &RopeKvWrite, rows: &[Row]) {
        use rope_kv_write::Part;
        let angles = op.turn.as_ref().map(|turn| self.angles(turn, rows));
        let angles = angles.as_deref().unwrap_or_default();
        for (part, to) in [(Part::Queries, op.q), (Part::Keys, op.k_cache), (Part::Values, op.v_cache)] {
            self.update(to, |engine, to| {
                let kernel = match engine.arithmetic {
                    Arithmetic::Reference => rope_kv_write::reference,
                    Arithmetic::Fast(..) => rope_kv_write::fast,
                };
                kernel(op, rows, engine.buffer(op.qkv), angles, part, to);
            });
        }
    }

    fn gate_up(&mut self, op: &GateUp) -> Result<(), crate::ShapeError> {
        self.update(op.out, |engine, out| {
            let weight = engine.matrix(op.weight)?;
            let x = &engine.buffer(op.x)[..op.n_rows * weight.shape.n_cols];
            let out = &mut out[..op.n_rows * weight.shape.n_rows / 2];
            let mut products = vec![0.0; out.len() * 2];
            engine.multiply(weight, x, &matmul::NOTHING, &mut products);
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => gate_up::reference,
                Arithmetic::Fast(..) => gate_up::fast,
            };
            kernel(op.function, &products, out);
            Ok(())
        })
    }

    fn kv_write(&mut self, op: &KvWrite, rows: &[Row]) {
        for (from, cache) in [(op.k, op.k_cache), (op.v, op.v_cache)] {
            self.update(cache, |engine, cache| {
                let kernel = match engine.arithmetic {
                    Arithmetic::Reference => kv_write::reference,
                    Arithmetic::Fast(..) => kv_write::fast,
                };
                kernel(engine.buffer(from), rows, op.layout, cache);
            });
        }
    }

    fn attention(&mut self, op: &Attention, rows: &[Row]) {
        self.update(op.out, |engine, out| {
            let bias = match op.bias {
                None => &[],
                Some(PositionBias::Slopes(vector) | PositionBias::Distances { table: vector, .. }) => {
                    engine.vector(vector)
                }
            };
            let [k, v] = [op.k_cache, op.v_cache].map(|cache| bytemuck::cast_slice(engine.buffer(cache)));
            let sinks = op.sinks.map_or(&[][..], |sinks| engine.vector(sinks));
            let caches = attention::Caches { k, v, bias, sinks };
            let out = &mut out[..rows.len() * op.n_heads * op.head_size];
            match &engine.arithmetic {
                Arithmetic::Reference => attention::reference(op, rows, engine.buffer(op.q), caches, out),
                Arithmetic::Fast(pool, _) => attention::fast(op, rows, engine.buffer(op.q), caches, out, pool),
            }
        });
    }

    fn activate(&mut self, op: &Activate) {
        self.update(op.out, |engine, out| {
            let len = op.n_rows * op.width;
            let factor = op.factor.map(|factor| &engine.buffer(factor)[..len]);
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => activate::reference,
                Arithmetic::Fast(..) => activate::fast,
            };
            kernel(op.function, &engine.buffer(op.x)[..len], factor, &mut out[..len]);
        });
    }

    fn add_rows(&mut self, op: &AddRows) {
        self.update(op.out, |engine, out| {
            let len = op.n_rows * op.width;
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => add_rows::reference,
                Arithmetic::Fast(..) => add_rows::fast,
            };
            kernel(&engine.buffer(op.x)[..len], op.scale, &mut out[..len]);
        });
    }

    fn scale_rows(&mut self, op: &ScaleRows) {
        self.update(op.x, |engine, x| {
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => scale_rows::reference,
                Arithmetic::Fast(..) => scale_rows::fast,
            };
            kernel(&mut x[..op.n_rows * op.width], op.scale, op.cap);
        });
    }

    fn conv_write(&mut self, op: &ConvWrite, rows: &[Row]) {
        self.update(op.cache, |engine, cache| {
            conv_write::reference(engine.buffer(op.x), rows, op.layout, cache);
        });
    }

    fn short_conv(&mut self, op: &ShortConv, rows: &[Row]) {
        self.update(op.out, |engine, out| {
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => short_conv::reference,
                Arithmetic::Fast(..) => short_conv::fast,
            };
            kernel(op, rows, engine.buffer(op.x), engine.vector(op.taps), engine.buffer(op.cache), out);
        });
    }

    fn round_rows(&mut self, op: &RoundRows) {
        self.update(op.x, |engine, x| {
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => round_rows::reference,
                Arithmetic::Fast(..) => round_rows::fast,
            };
            for row in x.chunks_exact_mut(op.width).take(op.n_rows) {
                kernel(row, op.to);
            }
        });
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
        let simd = lanes::simd_name();
        match &self.arithmetic {
            Arithmetic::Reference => "cpu (reference)".to_string(),
            Arithmetic::Fast(pool, _) => {
                format!("cpu ({} threads, {simd})", pool.current_num_threads())
            }
        }
    }

    fn load_matrix(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &[u8],
    ) -> Result<MatrixId, EngineError> {
        let shape = MatrixShape { weight_type, n_rows, n_cols };
        let id = self.shapes.add_matrix(shape, ggml.len())?;
        let form = match (&self.arithmetic, weight_type.packing().quantised()) {
            (Arithmetic::Reference, _) | (Arithmetic::Fast(_, Products::Int8Reference), Some(_)) => Form::File,
            (Arithmetic::Fast(_, Products::Int8), Some(_)) => Form::Strips,
            (Arithmetic::Fast(..), _) => Form::Rows,
        };
        self.matrices.push(Held::new(form, shape, ggml));
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
        for (index, op) in recording.ops.iter().enumerate() {
            self.run_op(op, &recording.rows).map_err(|source| EngineError::Op { index, op: op.name(), source })?;
        }
        let readbacks = recording.readbacks.iter();
        Ok(readbacks.flat_map(|r| self.buffer(r.buffer)[r.range.clone()].iter().copied()).collect())
    }

    fn bytes_used(&self) -> u64 {
        let matrices: usize = self.matrices.iter().map(|matrix| matrix.bytes.len()).sum();
        let vectors: usize = self.vectors.iter().map(|vector| size_of_val(&vector[..])).sum();
        let buffers: usize = self.buffers.iter().map(|buffer| size_of_val(&buffer[..])).sum();
        (matrices + vectors + buffers) as u64
    }
}
