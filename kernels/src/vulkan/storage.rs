//! What lies on the device: buffers, growing buffers, parts of matrices.

use std::collections::HashMap;

use wgpu::{Buffer, BufferUsages, TextureUsages};

use super::gpu::Gpu;
use crate::engine::EngineError;
use crate::plan::Form;
use crate::recording::BufferId;
use crate::wgsl::WeightSource;

/// All that a dispatch may bind; ids are places in these lists.
pub(super) struct Resources<'a> {
    pub matrices: &'a [Vec<Part>],
    pub vectors: &'a [Buffer],
    pub buffers: &'a [Buffer],
    pub made: &'a HashMap<(BufferId, Form), Buffer>,
    pub params: &'a Buffer,
    pub data: &'a Buffer,
    pub scratch: &'a Buffer,
    pub unread: &'a Buffer,
}

/// Rows of a matrix, `[word][row]` of 16 bytes.
pub(super) enum Part {
    Image(wgpu::TextureView),
    Storage(Buffer),
}

impl Part {
    /// Takes packed words to the device.
    pub fn upload(gpu: &Gpu, source: WeightSource, n_rows: usize, words: &[u8]) -> Part {
        match source {
            WeightSource::Image => {
                let size = wgpu::Extent3d {
                    width: n_rows as u32,
                    height: (words.len() / 16 / n_rows) as u32,
                    depth_or_array_layers: 1,
                };
                let texture = gpu.device.create_texture(&wgpu::TextureDescriptor {
                    label: Some("weights"),
                    size,
                    mip_level_count: 1,
                    sample_count: 1,
                    dimension: wgpu::TextureDimension::D2,
                    format: wgpu::TextureFormat::Rgba32Uint,
                    usage: TextureUsages::STORAGE_BINDING | TextureUsages::COPY_DST,
                    view_formats: &[],
                });
                let layout = wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(size.width * 16),
                    rows_per_image: Some(size.height),
                };
                gpu.queue.write_texture(texture.as_image_copy(), words, layout, size);
                Part::Image(texture.create_view(&Default::default()))
            }
            WeightSource::Storage => {
                let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
                let buffer = buffer(gpu, "weights", words.len() as u64, usage);
                gpu.queue.write_buffer(&buffer, 0, words);
                Part::Storage(buffer)
            }
        }
    }
}

/// A buffer of zeros.
pub(super) fn buffer(gpu: &Gpu, label: &str, size: u64, usage: BufferUsages) -> Buffer {
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    gpu.device.create_buffer(&descriptor)
}

/// A buffer that is replaced by a larger one when a step needs it.
pub(super) struct Growing {
    pub buffer: Buffer,
    label: &'static str,
    usage: BufferUsages,
}

impl Growing {
    pub fn new(gpu: &Gpu, label: &'static str, usage: BufferUsages) -> Self {
        Self { buffer: buffer(gpu, label, 1 << 16, usage), label, usage }
    }

    /// Makes room for `bytes`; says whether the buffer is a new one, with nothing in it.
    pub fn require(&mut self, gpu: &Gpu, bytes: u64) -> Result<bool, EngineError> {
        if bytes <= self.buffer.size() {
            return Ok(false);
        }
        let limit = gpu.limits.max_buffer_size;
        if bytes > limit {
            return Err(EngineError::TooLarge { what: self.label, bytes, limit });
        }
        self.buffer = buffer(gpu, self.label, bytes.next_power_of_two().min(limit), self.usage);
        gpu.check()?;
        Ok(true)
    }
}
