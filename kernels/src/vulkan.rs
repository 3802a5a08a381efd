//! The Vulkan engine: weights as images or buffers, one submit and one readback a step. Decides no shape: plans do.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use wgpu::BufferUsages;

use crate::canonical;
use crate::engine::{Arithmetic, Engine, EngineError};
use crate::file_bytes::{FileBytes, Rows};
use crate::numerics::Numerics;
use crate::plan::{Facts, Form, Plan, WINDOW_BYTES, WORD};
use crate::recording::{BufferId, MatrixId, Readback, Recording, VectorId};
use crate::shapes::{MatrixShape, Shapes};
use crate::weight_type::WeightType;
pub use crate::wgsl::{Lanes, WeightSource};

mod gpu;
mod kept;
mod pipelines;
pub mod quirks;
mod storage;
pub(crate) mod tuning;

use gpu::Gpu;
use pipelines::Pipelines;
use storage::{Growing, Part};
use tuning::Tuning;

/// How to open a Vulkan device.
#[derive(Clone, Debug)]
pub struct Options {
    pub arithmetic: Arithmetic,
    /// `None`: what suits the device.
    pub source: Option<WeightSource>,
    /// `None`: what was measured, or where there is no folder to keep that in, what suits most devices of the kind.
    pub lanes: Option<Lanes>,
    /// Whether kernels are those for a processor that plays the GPU. `None`: as the device says; what real ones get can so be tried without.
    pub is_software: Option<bool>,
    /// Where compiled pipelines and measurements are kept.
    pub cache: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { arithmetic: Arithmetic::F32, source: None, lanes: None, is_software: None, cache: None }
    }
}

/// Runs recordings on a Vulkan device.
pub struct VulkanEngine {
    facts: Facts,
    shapes: Shapes,
    matrices: Vec<Vec<Part>>,
    /// As loaded; the device's copies are in `vector_buffers`.
    vectors: Vec<Box<[f32]>>,
    vector_buffers: Vec<wgpu::Buffer>,
    buffers: Vec<wgpu::Buffer>,
    /// What is made of buffers' rows; there from when it is first written.
    made: HashMap<(BufferId, Form), wgpu::Buffer>,
    pipelines: Pipelines,
    /// The parameters of a step's dispatches, each at the alignment of uniforms.
    params: Growing,
    /// What a step's kernels read: token rows, tokens, angles.
    data: Growing,
    /// Sums that wait for more columns.
    scratch: Growing,
    readback: Growing,
    /// Bound where a kernel reads nothing.
    unread: wgpu::Buffer,
    bytes_used: u64,
    gpu: Gpu,
}

impl VulkanEngine {
    /// Opens the first device.
    pub fn new(mut options: Options) -> Result<Self, EngineError> {
        let gpu = Gpu::open(options.cache.as_deref())?;
        let software = options.is_software.unwrap_or(gpu.info.device_type == wgpu::DeviceType::Cpu);
        let source = options.source.unwrap_or(if software { WeightSource::Image } else { WeightSource::Storage });
        (options.is_software, options.source) = (Some(software), Some(source));
        let tuning = match (options.lanes, &options.cache) {
            (Some(lanes), _) => Tuning::all(lanes, software),
            (None, Some(folder)) => Tuning::of(&gpu.words(), &options, folder)?,
            (None, None) => Tuning::usual(software),
        };
        let facts = Facts {
            tuning: tuning.compiled_by(&gpu.info.name),
            arithmetic: options.arithmetic,
            source,
            is_software: software,
            workgroup: if software { 32 } else { 64 },
            uniform_alignment: gpu.limits.min_uniform_buffer_offset_alignment,
            max_storage: gpu.limits.max_storage_buffer_binding_size,
            max_texture: gpu.limits.max_texture_dimension_2d,
        };
        Ok(Self {
            facts,
            shapes: Shapes::default(),
            matrices: vec![],
            vectors: vec![],
            vector_buffers: vec![],
            buffers: vec![],
            made: HashMap::new(),
            pipelines: Pipelines::new(facts.workgroup),
            params: Growing::new(&gpu, "params", BufferUsages::UNIFORM | BufferUsages::COPY_DST),
            data: Growing::new(&gpu, "data", BufferUsages::STORAGE | BufferUsages::COPY_DST),
            scratch: Growing::new(&gpu, "scratch", BufferUsages::STORAGE),
            readback: Growing::new(&gpu, "readback", BufferUsages::MAP_READ | BufferUsages::COPY_DST),
            unread: storage::buffer(&gpu, "unread", 256, BufferUsages::STORAGE),
            bytes_used: 0,
            gpu,
        })
    }

    /// Bytes that may be bound at once.
    fn require_size(&self, what: &'static str, bytes: u64) -> Result<(), EngineError> {
        let limit = self.gpu.limits.max_storage_buffer_binding_size.min(self.gpu.limits.max_buffer_size);
        if bytes > limit {
            return Err(EngineError::TooLarge { what, bytes, limit });
        }
        Ok(())
    }

    /// Makes the buffers beside those of rows, or makes them larger.
    fn make_room(&mut self, room: &HashMap<(BufferId, Form), u64>) -> Result<(), EngineError> {
        for (place, n_bytes) in room {
            // A window may start at the last value.
            let n_bytes = n_bytes + u64::from(WINDOW_BYTES);
            let held = self.made.get(place).map_or(0, wgpu::Buffer::size);
            if held >= n_bytes {
                continue;
            }
            self.require_size("the buffer of prepared activations", n_bytes)?;
            let usage = BufferUsages::STORAGE | BufferUsages::UNIFORM;
            self.made.insert(*place, storage::buffer(&self.gpu, "made", n_bytes, usage));
            self.bytes_used += n_bytes - held;
            self.pipelines.forget_bindings();
            self.gpu.check()?;
        }
        Ok(())
    }

    /// Packs a matrix and takes it to the device, part by part.
    fn upload(&mut self, shape: MatrixShape, ggml: &dyn FileBytes) -> Result<Vec<Part>, EngineError> {
        let part_rows = self.facts.part_rows(shape);
        if part_rows == 0 {
            let bytes = shape.layout(WORD).row_bytes() as u64;
            return Err(EngineError::TooLarge { what: "a row of the matrix", bytes, limit: self.facts.max_storage });
        }
        let (mut parts, mut n_bytes) = (Vec::new(), 0);
        for first in (0..shape.n_rows).step_by(part_rows) {
            let rows = Rows { first, n: part_rows.min(shape.n_rows - first), ..canonical::all(shape, ggml) };
            let words = canonical::strips(shape, rows, ggml, WORD, rows.n).map_err(EngineError::Read)?;
            parts.push(Part::upload(&self.gpu, self.facts.source, rows.n, &words));
            n_bytes += words.len() as u64;
            // What it came in is handed back before the next part takes as much.
            drop(words);
            self.gpu.queue.submit([]);
            self.gpu.wait()?;
        }
        self.bytes_used += n_bytes;
        Ok(parts)
    }

    /// Runs the encoder's work, then brings values back.
    fn finish(&mut self, mut encoder: wgpu::CommandEncoder, readbacks: &[Readback]) -> Result<Vec<f32>, EngineError> {
        let n_bytes = readbacks.iter().map(|readback| readback.range.len() as u64 * 4).sum();
        self.readback.require(&self.gpu, n_bytes)?;
        let mut at = 0;
        for Readback { buffer, range } in readbacks.iter().filter(|readback| !readback.range.is_empty()) {
            let n_bytes = range.len() as u64 * 4;
            let buffer = &self.buffers[buffer.0 as usize];
            encoder.copy_buffer_to_buffer(buffer, range.start as u64 * 4, &self.readback.buffer, at, n_bytes);
            at += n_bytes;
        }
        self.gpu.queue.submit([encoder.finish()]);
        if n_bytes == 0 {
            self.gpu.wait()?;
            return Ok(Vec::new());
        }
        let (sender, mapped) = std::sync::mpsc::channel();
        self.readback.buffer.map_async(wgpu::MapMode::Read, ..n_bytes, move |result| {
            // The receiver waits below unless the device was lost, which is an error already.
            let _ = sender.send(result);
        });
        self.gpu.wait()?;
        let device = |error: &dyn std::fmt::Display| EngineError::Device(format!("the result cannot be read: {error}"));
        mapped.try_recv().map_err(|error| device(&error))?.map_err(|error| device(&error))?;
        let values = {
            let view = self.readback.buffer.get_mapped_range(..n_bytes).map_err(|error| device(&error))?;
            bytemuck::pod_collect_to_vec(&view)
        };
        self.readback.buffer.unmap();
        Ok(values)
    }
}

// === impl Engine ===

impl Engine for VulkanEngine {
    fn numerics(&self) -> String {
        let numerics = match self.facts.arithmetic {
            Arithmetic::F32 => Numerics::VulkanF32,
            Arithmetic::Int8 => Numerics::VulkanInt8,
        };
        format!("{numerics}-{}", self.gpu.words())
    }

    fn device(&self) -> String {
        let info = &self.gpu.info;
        format!("vulkan {} ({} {}, weights from {:?})", info.name, info.driver, info.driver_info, self.facts.source)
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
        match self.upload(shape, ggml) {
            Ok(parts) => self.matrices.push(parts),
            Err(error) => {
                self.shapes.remove_last_matrix();
                return Err(error);
            }
        }
        Ok(id)
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError> {
        let n_bytes = size_of_val(values) as u64;
        self.require_size("the vector", n_bytes)?;
        let id = self.shapes.add_vector(values.len())?;
        let buffer = storage::buffer(&self.gpu, "vector", n_bytes, BufferUsages::STORAGE | BufferUsages::COPY_DST);
        self.gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        self.vectors.push(values.into());
        self.vector_buffers.push(buffer);
        self.bytes_used += n_bytes;
        self.gpu.check()?;
        Ok(id)
    }

    fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError> {
        // A window may start at the last value.
        let n_bytes = (len as u64 * 4).next_multiple_of(16) + u64::from(WINDOW_BYTES);
        self.require_size("the buffer", n_bytes)?;
        let id = self.shapes.add_buffer(len)?;
        let usage = BufferUsages::STORAGE | BufferUsages::UNIFORM | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        self.buffers.push(storage::buffer(&self.gpu, "buffer", n_bytes, usage));
        self.bytes_used += n_bytes;
        self.gpu.check()?;
        Ok(id)
    }

    fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError> {
        let range = offset..offset.saturating_add(values.len());
        self.shapes
            .require_range("values", buffer, &range)
            .map_err(|source| EngineError::Call { call: "write", source })?;
        let buffer = &self.buffers[buffer.0 as usize];
        self.gpu.queue.write_buffer(buffer, offset as u64 * 4, bytemuck::cast_slice(values));
        self.gpu.check()
    }

    fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
        self.shapes
            .require_range("range", buffer, &range)
            .map_err(|source| EngineError::Call { call: "read", source })?;
        let encoder = self.gpu.device.create_command_encoder(&Default::default());
        self.finish(encoder, &[Readback { buffer, range }])
    }

    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        self.shapes.check(recording)?;
        let plan = Plan::new(self.facts, &self.shapes, &self.vectors, recording)
            .map_err(|(index, source)| EngineError::Op { index, op: recording.ops[index].name(), source })?;
        let Plan { dispatches, data, scratch_len, room, .. } = plan;
        self.make_room(&room)?;
        let stride = self.facts.uniform_alignment.max(64);
        let mut params = vec![0u32; dispatches.len() * stride as usize / 4];
        for (dispatch, params) in dispatches.iter().zip(params.chunks_exact_mut(stride as usize / 4)) {
            params[..dispatch.params.len()].copy_from_slice(&dispatch.params);
        }
        let grown = [
            self.params.require(&self.gpu, size_of_val(&params[..]) as u64)?,
            self.data.require(&self.gpu, size_of_val(&data[..]) as u64)?,
            self.scratch.require(&self.gpu, scratch_len as u64 * 4)?,
        ];
        if grown.contains(&true) {
            self.pipelines.forget_bindings();
        }
        for upload in &recording.uploads {
            let buffer = &self.buffers[upload.buffer.0 as usize];
            self.gpu.queue.write_buffer(buffer, upload.offset as u64 * 4, bytemuck::cast_slice(&upload.values));
        }
        self.gpu.queue.write_buffer(&self.params.buffer, 0, bytemuck::cast_slice(&params));
        self.gpu.queue.write_buffer(&self.data.buffer, 0, bytemuck::cast_slice(&data));

        let resources = storage::Resources {
            matrices: &self.matrices,
            vectors: &self.vector_buffers,
            buffers: &self.buffers,
            made: &self.made,
            params: &self.params.buffer,
            data: &self.data.buffer,
            scratch: &self.scratch.buffer,
            unread: &self.unread,
        };
        let n_pipelines = self.pipelines.len();
        let prepare = |dispatch| self.pipelines.prepare(&self.gpu, dispatch, &resources);
        let prepared = dispatches.iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (index, (prepared, dispatch)) in prepared.iter().zip(&dispatches).enumerate() {
                prepared.encode(&mut pass, dispatch, index as u32 * stride);
            }
        }
        let values = self.finish(encoder, &recording.readbacks)?;
        if n_pipelines < self.pipelines.len() {
            self.gpu.keep_pipelines();
        }
        Ok(values)
    }

    fn bytes_used(&self) -> u64 {
        let growing = [&self.params, &self.data, &self.scratch, &self.readback];
        self.bytes_used + growing.iter().map(|growing| growing.buffer.size()).sum::<u64>()
    }
}
