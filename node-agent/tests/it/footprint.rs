//! Footprints: what a segment is said to take is within three parts in a hundred of what it then takes, by a counting allocator and by the
//! engine's own count, in every family, type and arithmetic.

use std::io;
use std::path::{Path, PathBuf};

use polyphony_agent::class;
use polyphony_agent::segment::{AnySegment, Capacity, DecoderRow, Input, Rounding, SegmentError};
use polyphony_kernels::packing::Layout;
use polyphony_kernels::{Backend, FileBytes, KvType, Row, WeightType};
use polyphony_model::{EngineForm, Holds, LayerRange, Manifest, STEP_ROWS, TensorReader, TensorType};
use polyphony_protocol::ActivationType;

use crate::counting::{live, most_of};
use crate::golden::{CPU, CPU_INT8, VULKAN, VULKAN_INT8, tiny_models, vulkan_is_here};
use crate::real_models::MODELS;

/// Little beside the weights and a step, even of a tiny model.
const CAPACITY: Capacity = Capacity { n_slots: 2, n_positions: 48, max_rows: STEP_ROWS as usize };

/// All of a model, and both ends of it.
fn parts(n_layers: u32) -> Vec<Holds> {
    let part = |from, to| Holds { embedding: from == 0, layers: LayerRange { from, to }, head: to == n_layers };
    let cut = n_layers / 2;
    let mut parts = vec![part(0, n_layers)];
    if cut > 0 {
        parts.extend([part(0, cut), part(cut, n_layers)]);
    }
    parts
}

/// A step of as many rows as there may be, and of a prompt as long as it may be.
fn compute(segment: &mut AnySegment) {
    let holds = segment.holds();
    let width = segment.hidden_size();
    let input =
        |n: usize, tokens: bool| if tokens { Input::Tokens(vec![1; n]) } else { Input::Hidden(vec![0.5; n * width]) };
    let n_rows = STEP_ROWS as usize;
    let rows: Vec<Row> = (0..n_rows as u32).map(|row| Row { slot: row % 2, position: row / 2 }).collect();
    if let Ok(it) = segment.with_encoder() {
        let n_positions = CAPACITY.n_positions;
        if it.encodes() {
            it.encode(n_positions, input(n_positions, holds.embedding)).unwrap();
        }
        if !it.decodes() {
            return;
        }
        for slot in 0..2 {
            it.take_encoded(slot, vec![0.5; n_positions * width]).unwrap();
        }
        let begins = it.encodes();
        let rows: Vec<_> = rows.into_iter().map(|row| DecoderRow { row, n_encoded: n_positions as u32 }).collect();
        let tokens = begins || it.takes_tokens();
        it.step(&rows, input(n_rows, tokens), if holds.head { 2 } else { 0 }).unwrap();
        return;
    }
    let n_encoded = vec![0; n_rows];
    let n_logits = if holds.head { 2 } else { 0 };
    segment.step_of(holds, &rows, &n_encoded, input(n_rows, holds.embedding), n_logits).unwrap();
}

/// Bytes said, and bytes taken.
fn said_and_taken(path: &Path, manifest: &Manifest, holds: Holds, backend: Backend, kv_type: KvType) -> (u64, u64) {
    let engine = polyphony_kernels::open(backend, None).unwrap();
    let form = EngineForm::of(&engine.numerics());
    let said = manifest.footprint(&holds, CAPACITY.room(), form, class::counted(kv_type)).computing();
    let before = live();
    let rounding = Rounding { activation_type: ActivationType::F16, kv_type };
    let load = AnySegment::load(engine, manifest, holds, CAPACITY, rounding, |tensor| {
        Ok::<_, SegmentError>(TensorReader::open(path, manifest, tensor).unwrap().read_all().unwrap())
    });
    let mut segment = load.unwrap();
    let ((), most) = most_of(|| compute(&mut segment));
    let taken = match backend {
        Backend::Cpu { .. } => (most - before) as u64,
        Backend::Vulkan { .. } | Backend::Mixed { .. } => segment.bytes_used(),
    };
    (said, taken)
}

/// Whether all that are measured were said to within three parts in a hundred.
fn take_what_they_are_said_to(models: &[PathBuf], backend: Backend, kv_type: KvType) {
    let mut off = Vec::new();
    for path in models {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let manifest = Manifest::build(path).unwrap();
        for holds in parts(manifest.hyperparameters.n_layers) {
            let (said, taken) = said_and_taken(path, &manifest, holds, backend, kv_type);
            let share = said as f64 / taken as f64 - 1.0;
            println!(
                "{name}, {holds}, {backend:?}, {kv_type:?}: {said} bytes said, {taken} taken, {:+.2} %",
                share * 100.0
            );
            if share.abs() > 0.03 {
                off.push(format!("{name}, {holds}, {backend:?}, {kv_type:?}: {said} bytes said, {taken} taken"));
            }
        }
    }
    assert!(off.is_empty(), "{} are off by more than 3 %:\n{}", off.len(), off.join("\n"));
}

#[test]
fn tiny_models_of_every_family_and_type_take_what_they_are_said_to_on_the_cpu() {
    let models = tiny_models();
    assert!(models.len() >= 40, "{} models", models.len());
    take_what_they_are_said_to(&models, CPU, KvType::F32);
    take_what_they_are_said_to(&models, CPU_INT8, KvType::F16);
    take_what_they_are_said_to(&models, CPU_INT8, KvType::Q8);
}

#[test]
fn tiny_models_of_every_family_and_type_take_what_they_are_said_to_on_vulkan() {
    if vulkan_is_here() {
        take_what_they_are_said_to(&tiny_models(), VULKAN, KvType::Q8);
        take_what_they_are_said_to(&tiny_models(), VULKAN_INT8, KvType::F16);
    }
}

#[test]
fn real_models_take_what_they_are_said_to() {
    let models: Vec<PathBuf> = MODELS.iter().filter_map(|model| model.path()).collect();
    take_what_they_are_said_to(&models, CPU, KvType::F32);
    take_what_they_are_said_to(&models, CPU_INT8, KvType::F16);
    if vulkan_is_here() {
        take_what_they_are_said_to(&models, VULKAN, KvType::Q8);
        take_what_they_are_said_to(&models, VULKAN_INT8, KvType::F16);
    }
}

#[test]
fn rows_of_matrices_are_counted_as_engines_lay_them_out() {
    for weight_type in WeightType::ALL {
        let tensor_type: TensorType = weight_type.name().to_uppercase().parse().unwrap();
        for n_cols in [32, 96, 160, 256, 768, 2304] {
            for (form, word) in [(EngineForm::CpuF32, 4), (EngineForm::VulkanF32, 16)] {
                let ours = Layout::new(weight_type.packing(), n_cols, word).row_bytes() as u64;
                assert_eq!(form.matrix_bytes(tensor_type, 3, n_cols as u64), Some(3 * ours), "{tensor_type}, {n_cols}");
            }
        }
    }
}

/// A tensor that stays on the disk.
struct OnDisk(TensorReader);

impl FileBytes for OnDisk {
    fn n_bytes(&self) -> usize {
        self.0.n_bytes() as usize
    }

    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(at as u64, out)
    }
}

#[test]
fn a_load_takes_hardly_more_memory_than_what_it_loads() {
    for (path, backend) in
        MODELS.iter().filter_map(|model| model.path()).flat_map(|path| [(path.clone(), CPU), (path, CPU_INT8)])
    {
        let manifest = Manifest::build(&path).unwrap();
        let holds = Holds { embedding: true, layers: LayerRange { from: 0, to: 1 }, head: false };
        let engine = polyphony_kernels::open(backend, None).unwrap();
        let load = || {
            AnySegment::load(engine, &manifest, holds, CAPACITY, ActivationType::F16, |tensor| {
                Ok::<_, SegmentError>(OnDisk(TensorReader::open(&path, &manifest, tensor).unwrap()))
            })
        };
        let (segment, most) = most_of(load);
        let (_segment, after) = (segment.unwrap(), live());
        // Pieces of 256 KiB on the way. The embedding is most of what is loaded: once more in memory it would be tens of MiB.
        assert!(most - after < 2 << 20, "{}: {} bytes more on the way", path.display(), most - after);
    }
}
