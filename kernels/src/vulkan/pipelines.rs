//! Pipelines and bind groups: made once, kept for all later steps.

use std::collections::HashMap;
use std::num::NonZeroU64;

use wgpu::{BindGroup, BindGroupLayout, BindingResource, BindingType, BufferBindingType, ComputePass, ComputePipeline};

use super::gpu::Gpu;
use super::storage::{Part, Resources};
use crate::engine::EngineError;
use crate::plan::{Binding, Dispatch, WINDOW_BYTES};
use crate::wgsl::{Variant, WeightSource};

/// Every pipeline and bind group so far.
pub(super) struct Pipelines {
    workgroup: u32,
    pipelines: HashMap<Variant, Pipeline>,
    /// By variant and what is bound, windows' starts apart: those are dynamic offsets.
    bind_groups: HashMap<(Variant, Vec<Binding>), BindGroup>,
}

struct Pipeline {
    pipeline: ComputePipeline,
    layout: BindGroupLayout,
}

/// Bytes of the parameters of one dispatch.
const PARAMS_BYTES: u64 = 64;

impl Pipelines {
    pub fn new(workgroup: u32) -> Self {
        Self { workgroup, pipelines: HashMap::new(), bind_groups: HashMap::new() }
    }

    pub fn len(&self) -> usize {
        self.pipelines.len()
    }

    /// Forgets all bind groups: a buffer in them was replaced.
    pub fn forget_bindings(&mut self) {
        self.bind_groups.clear();
    }

    /// The pipeline and the bind group of a dispatch, made unless they are there.
    pub fn prepare(
        &mut self,
        gpu: &Gpu,
        dispatch: &Dispatch,
        resources: &Resources<'_>,
    ) -> Result<Prepared, EngineError> {
        let pipeline = match self.pipelines.entry(dispatch.variant) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let pipeline = Pipeline::new(gpu, dispatch, self.workgroup);
                gpu.check()?;
                entry.insert(pipeline)
            }
        };
        let bind_group = self.bind_groups.entry(key(dispatch));
        let bind_group = bind_group.or_insert_with(|| bind_group_of(gpu, &pipeline.layout, dispatch, resources));
        // Both are handles.
        Ok(Prepared { pipeline: pipeline.pipeline.clone(), bind_group: bind_group.clone() })
    }
}

/// What a dispatch is encoded with.
pub(super) struct Prepared {
    pipeline: ComputePipeline,
    bind_group: BindGroup,
}

impl Prepared {
    /// Appends the dispatch to a pass; its parameters lie at byte `params_at`.
    pub fn encode(&self, pass: &mut ComputePass<'_>, dispatch: &Dispatch, params_at: u32) {
        let windows = dispatch.bindings.iter().filter_map(|(_, binding)| match binding {
            Binding::Window(_, start) | Binding::MadeWindow(_, _, start) => Some(*start),
            _ => None,
        });
        let offsets: Vec<u32> = std::iter::once(params_at).chain(windows).collect();
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &offsets);
        pass.dispatch_workgroups(dispatch.workgroups[0], dispatch.workgroups[1], 1);
    }
}

fn key(dispatch: &Dispatch) -> (Variant, Vec<Binding>) {
    let bindings = dispatch.bindings.iter().map(|(_, binding)| match binding {
        Binding::Window(buffer, _) => Binding::Window(*buffer, 0),
        Binding::MadeWindow(buffer, form, _) => Binding::MadeWindow(*buffer, *form, 0),
        other => *other,
    });
    (dispatch.variant, bindings.collect())
}

impl Pipeline {
    fn new(gpu: &Gpu, dispatch: &Dispatch, workgroup: u32) -> Self {
        let label = format!("{:?}", dispatch.variant);
        let device = &gpu.device;
        let params = (0, uniform(PARAMS_BYTES));
        let types =
            dispatch.bindings.iter().map(|(number, binding)| (*number, binding_type(dispatch.variant, *binding)));
        let entries: Vec<_> = std::iter::once(params)
            .chain(types)
            .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty,
                count: None,
            })
            .collect();
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let source = wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(dispatch.variant.source(workgroup).into()),
        };
        // SAFETY: no kernel reads or writes beyond what is bound: `Shapes::check` holds every op to the sizes of what it names, and what is only
        // known by its value (tokens, experts, slots, positions) is checked there or held to its bounds in the kernel. Loops end: they count.
        // No divisor is 0.
        let module = unsafe { device.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // No kernel reads shared memory that it has not written.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: gpu.pipeline_cache.as_ref().map(|kept| &kept.cache),
        });
        Self { pipeline, layout }
    }
}

fn uniform(bytes: u64) -> BindingType {
    BindingType::Buffer {
        ty: BufferBindingType::Uniform,
        has_dynamic_offset: true,
        min_binding_size: NonZeroU64::new(bytes),
    }
}

fn storage(read_only: bool) -> BindingType {
    BindingType::Buffer {
        ty: BufferBindingType::Storage { read_only },
        has_dynamic_offset: false,
        min_binding_size: None,
    }
}

fn binding_type(variant: Variant, binding: Binding) -> BindingType {
    let source = match variant {
        Variant::EmbedRows { weights } => weights.source,
        Variant::ExpertMatmul(product) | Variant::GateUp(product) | Variant::Matmul(product) => product.weights.source,
        _ => WeightSource::Storage,
    };
    match (binding, source) {
        (Binding::Weights(..), WeightSource::Image) => BindingType::StorageTexture {
            access: wgpu::StorageTextureAccess::ReadOnly,
            format: wgpu::TextureFormat::Rgba32Uint,
            view_dimension: wgpu::TextureViewDimension::D2,
        },
        (Binding::Window(..) | Binding::MadeWindow(..), _) => uniform(u64::from(WINDOW_BYTES)),
        (Binding::Write(_) | Binding::Made(..) | Binding::Scratch, _) => storage(false),
        _ => storage(true),
    }
}

fn bind_group_of(gpu: &Gpu, layout: &BindGroupLayout, dispatch: &Dispatch, resources: &Resources<'_>) -> BindGroup {
    let window = |buffer, bytes| {
        BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size: NonZeroU64::new(bytes) })
    };
    let resource = |binding: Binding| match binding {
        Binding::Data => resources.data.as_entire_binding(),
        Binding::Read(id) | Binding::Write(id) => resources.buffers[id.0 as usize].as_entire_binding(),
        Binding::Vector(id) => resources.vectors[id.0 as usize].as_entire_binding(),
        Binding::Weights(id, part) => match &resources.matrices[id.0 as usize][part as usize] {
            Part::Image(view) => BindingResource::TextureView(view),
            Part::Storage(buffer) => buffer.as_entire_binding(),
        },
        Binding::Window(id, _) => window(&resources.buffers[id.0 as usize], u64::from(WINDOW_BYTES)),
        Binding::Made(id, form) => resources.made[&(id, form)].as_entire_binding(),
        Binding::MadeWindow(id, form, _) => window(&resources.made[&(id, form)], u64::from(WINDOW_BYTES)),
        Binding::Scratch => resources.scratch.as_entire_binding(),
        Binding::Unread => resources.unread.as_entire_binding(),
    };
    let bindings = dispatch.bindings.iter().map(|(number, binding)| (*number, resource(*binding)));
    let entries: Vec<_> = std::iter::once((0, window(resources.params, PARAMS_BYTES)))
        .chain(bindings)
        .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
        .collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}
