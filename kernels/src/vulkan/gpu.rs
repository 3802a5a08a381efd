//! The device: finding an adapter, asking it for no more than a phone has, and hearing of its errors.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wgpu::{AdapterInfo, Device, DeviceType, Features, Limits, Queue};

use super::kept;

use crate::engine::EngineError;
use crate::plan::WINDOW_BYTES;

/// An open Vulkan device.
pub(super) struct Gpu {
    pub device: Device,
    pub queue: Queue,
    pub info: AdapterInfo,
    pub limits: Limits,
    /// Compiled pipelines on disk, where the device can and the caller has a folder for them.
    pub pipeline_cache: Option<KeptPipelines>,
    /// What the device complained of since `check` was last called.
    error: Arc<Mutex<Option<EngineError>>>,
}

/// Compiled pipelines and where they are kept.
pub(super) struct KeptPipelines {
    pub cache: wgpu::PipelineCache,
    place: PathBuf,
}

/// How long one submit may take before the device counts as hung.
const DEADLINE: Duration = Duration::from_secs(300);

impl Gpu {
    /// Opens the first Vulkan adapter; real devices come before software.
    pub fn open(cache: Option<&Path>) -> Result<Self, EngineError> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN;
        let instance = wgpu::Instance::new(descriptor);
        let mut adapters = ready(instance.enumerate_adapters(wgpu::Backends::VULKAN))?;
        adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
            DeviceType::DiscreteGpu => 0,
            DeviceType::IntegratedGpu => 1,
            DeviceType::VirtualGpu => 2,
            DeviceType::Other => 3,
            DeviceType::Cpu => 4,
        });
        let adapter = adapters
            .into_iter()
            .next()
            .ok_or_else(|| EngineError::NoAdapter { reason: "no driver reports a device".to_string() })?;
        let limits = modest(&adapter.limits());
        let info = adapter.get_info();
        let keeps = cache.filter(|_| adapter.features().contains(Features::PIPELINE_CACHE));
        let (device, queue) = ready(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("kernels"),
            required_limits: limits.clone(),
            required_features: if keeps.is_some() { Features::PIPELINE_CACHE } else { Features::empty() },
            ..Default::default()
        }))?
        .map_err(|error| EngineError::Device(format!("{} does not open: {error}", info.name)))?;

        let error = Arc::new(Mutex::new(None));
        let heard: Arc<Mutex<Option<EngineError>>> = Arc::clone(&error);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(complaint(&error));
        }));
        let heard = Arc::clone(&error);
        device.set_device_lost_callback(move |reason, words| {
            // It says more than what is complained of because of it.
            *heard.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(EngineError::Lost(format!("{reason:?}: {words}")));
        });
        let pipeline_cache =
            keeps.map(|folder| kept_pipelines(&device, folder.join(kept::file_name("pipelines", &words(&info)))));
        Ok(Self { device, queue, info, limits, pipeline_cache, error })
    }

    /// Device and driver in lower-case words with hyphens between.
    pub fn words(&self) -> String {
        words(&self.info)
    }

    /// Writes the compiled pipelines to disk.
    pub fn keep_pipelines(&self) {
        if let Some(kept) = &self.pipeline_cache
            && let Some(data) = kept.cache.get_data()
        {
            kept::write(&kept.place, &data);
        }
    }

    /// The first error since the last call.
    pub fn check(&self) -> Result<(), EngineError> {
        match self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits until all that was submitted is done.
    pub fn wait(&self) -> Result<(), EngineError> {
        let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(DEADLINE) };
        let waited = self.device.poll(wait);
        // What it was lost by is better known there.
        self.check()?;
        waited.map(drop).map_err(|error| EngineError::Lost(error.to_string()))
    }
}

/// A device without memory is no faulty one.
fn complaint(error: &wgpu::Error) -> EngineError {
    match error {
        wgpu::Error::OutOfMemory { .. } => EngineError::OutOfMemory(error.to_string()),
        _ => EngineError::Device(error.to_string()),
    }
}

fn words(info: &AdapterInfo) -> String {
    let device = format!("{} {}", info.name, info.driver_info);
    let words: Vec<&str> = device.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join("-").to_lowercase()
}

/// The pipelines of an earlier run, or none yet.
fn kept_pipelines(device: &Device, place: PathBuf) -> KeptPipelines {
    let data = kept::read(&place);
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("kernels"), data: data.as_deref(), fallback: true };
    // SAFETY: the data came from `PipelineCache::get_data` on a device of this name and driver, which the file's name says, and is
    // whole, which its checksum says; wgpu's own header and the driver's are checked once more.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    KeptPipelines { cache, place }
}

/// What the kernels use, and no more: phones have less than desktops, and what passes here passes there.
fn modest(adapter: &Limits) -> Limits {
    Limits {
        max_compute_invocations_per_workgroup: 256,
        max_compute_workgroup_size_x: 256,
        max_compute_workgroup_size_y: 1,
        max_compute_workgroup_size_z: 1,
        max_compute_workgroup_storage_size: 16 << 10,
        max_storage_buffers_per_shader_stage: 5,
        max_uniform_buffer_binding_size: u64::from(WINDOW_BYTES),
        max_texture_dimension_2d: adapter.max_texture_dimension_2d.min(8192),
        max_storage_buffer_binding_size: adapter.max_storage_buffer_binding_size,
        max_buffer_size: adapter.max_buffer_size,
        min_uniform_buffer_offset_alignment: adapter.min_uniform_buffer_offset_alignment.max(16),
        ..Limits::downlevel_defaults()
    }
}

/// The result of a future that wgpu completes at once on native devices.
fn ready<T>(future: impl Future<Output = T>) -> Result<T, EngineError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Ok(result),
        Poll::Pending => Err(EngineError::Device("a request that wgpu answers at once was left open".to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_device_without_memory_is_told_from_one_that_complains_and_from_one_that_is_lost() {
        let memory = complaint(&wgpu::Error::OutOfMemory { source: "there is none".into() });
        assert!(matches!(memory, EngineError::OutOfMemory(_)), "{memory}");
        let description = "a binding is missing".to_string();
        let call = complaint(&wgpu::Error::Validation { source: description.clone().into(), description });
        assert!(matches!(call, EngineError::Device(_)), "{call}");
        let gpu = match Gpu::open(None) {
            Ok(gpu) => gpu,
            Err(error) => return polyphony_skip::skipped(error),
        };
        gpu.device.destroy();
        let lost = gpu.wait().and_then(|()| gpu.check()).unwrap_err();
        assert!(matches!(lost, EngineError::Lost(_)), "{lost}");
    }
}
