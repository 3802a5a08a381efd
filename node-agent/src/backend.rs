//! The backend: measures what this phone has and takes the faster, or what the person chose.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use polyphony_kernels::{Arithmetic, Backend, Engine, EngineError, Matmul, Recording, WeightType};
use polyphony_protocol::hub::Speed;

use crate::cpu_share::CpuShare;
use crate::flags::BackendChoice;

/// The backend that segments run on, and what was measured of all.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub backend: Backend,
    /// `cpu` or `vulkan`.
    pub name: &'static str,
    pub device: String,
    /// The first part of a numerics class, such as `cpu-f32-r1`.
    pub numerics: String,
    pub speeds: Vec<Speed>,
    /// Where engines keep what only saves time: compiled pipelines, measurements.
    cache: PathBuf,
    /// A lab's phone keeps to one.
    share: Option<CpuShare>,
}

const VULKAN: Backend = Backend::Vulkan { arithmetic: Arithmetic::F32 };
const VULKAN_INT8: Backend = Backend::Vulkan { arithmetic: Arithmetic::Int8 };

/// The products whose arithmetic is measured, outputs and inputs: query, key and value, gate and up, and down of a small model. Their
/// 1.8 MB of weights lie in any cache.
const SHAPES: [(usize, usize); 3] = [(960, 576), (3072, 576), (576, 1536)];
const MEASURE_FOR: Duration = Duration::from_millis(120);
/// Rows of activations of the second of the measured steps.
const BATCH_ROWS: usize = 4;
/// The smallest share of a core that a phone of a lab has.
const LEAST_SHARE: f64 = 0.1;
/// Bytes of 32 weights of Q4_0.
const GROUP_BYTES: usize = 18;
/// The matrices by which memory is measured, of f32: what has the least arithmetic a byte waits for memory alone. 64 MiB are twice the
/// last-level cache of the largest phones and of most desktops, so that little of them is still there when their turn comes again.
const STREAMED_MATRICES: usize = 8;
const STREAMED_SHAPE: (usize, usize) = (2048, 1024);
const STREAMED_BYTES: usize = STREAMED_MATRICES * STREAMED_SHAPE.0 * STREAMED_SHAPE.1 * size_of::<f32>();
/// Times that all of them are read. A phone that is a tenth of a core, at 1 GB/s, takes 3 s for it.
const STREAMS: usize = 4;

// === impl Chosen ===

impl Chosen {
    /// A new engine of the chosen kind.
    ///
    /// # Errors
    /// When the device does not open any more.
    pub fn open(&self) -> Result<Box<dyn Engine>, EngineError> {
        open(self.backend, &self.cache, self.share.as_ref())
    }
}

fn open(backend: Backend, cache: &Path, share: Option<&CpuShare>) -> Result<Box<dyn Engine>, EngineError> {
    let engine = polyphony_kernels::open(backend, Some(cache))?;
    Ok(match share {
        Some(share) => share.clone().keep(engine),
        None => engine,
    })
}

/// Opens and measures the backends that `choice` allows; what was measured before, as `data_dir` remembers, is not measured again.
///
/// With a `share` all is measured at that share, and nothing remembered.
///
/// # Errors
/// When the one that was asked for does not open; with `auto` only when not even the processor does.
pub fn choose(
    choice: BackendChoice,
    threads: usize,
    share: Option<&CpuShare>,
    data_dir: &Path,
) -> Result<Chosen, EngineError> {
    let cache = data_dir.join("kernels");
    let cpu = Backend::Cpu { threads, arithmetic: Arithmetic::F32 };
    match choice {
        BackendChoice::Cpu => candidate(cpu, "cpu", &cache, share),
        BackendChoice::CpuInt8 => {
            candidate(Backend::Cpu { threads, arithmetic: Arithmetic::Int8 }, "cpu", &cache, share)
        }
        BackendChoice::Vulkan => candidate(VULKAN, "vulkan", &cache, share),
        BackendChoice::VulkanInt8 => candidate(VULKAN_INT8, "vulkan", &cache, share),
        BackendChoice::Auto => {
            let cpu = candidate(cpu, "cpu", &cache, share)?;
            let vulkan = match candidate(VULKAN, "vulkan", &cache, share) {
                Ok(vulkan) => vulkan,
                Err(error @ EngineError::NoAdapter { .. }) => {
                    tracing::info!(%error, "going on with the CPU backend");
                    return Ok(cpu);
                }
                Err(error) => {
                    tracing::warn!(%error, "the GPU cannot be used: going on with the CPU backend");
                    return Ok(cpu);
                }
            };
            let speeds: Vec<Speed> = cpu.speeds.iter().chain(&vulkan.speeds).cloned().collect();
            let faster = if vulkan.speeds[0].gflops > cpu.speeds[0].gflops { vulkan } else { cpu };
            Ok(Chosen { speeds, ..faster })
        }
    }
}

fn candidate(
    backend: Backend,
    name: &'static str,
    cache: &Path,
    share: Option<&CpuShare>,
) -> Result<Chosen, EngineError> {
    let mut engine = open(backend, cache, share)?;
    let (device, numerics) = (engine.device(), engine.numerics());
    let place = cache.join(remembered_name(&format!("{device} {numerics}")));
    let speed = match remembered(&place, name, &device).filter(|_| share.is_none()) {
        Some(speed) => speed,
        None => {
            let share_now = share.map(CpuShare::now);
            let [gflops, batch_gflops] = measure_arithmetic(engine.as_mut(), share_now)?;
            let gigabytes_per_second = measure_memory(engine.as_mut(), share_now)?;
            let device = device.clone();
            let speed = Speed { backend: name.to_owned(), device, gflops, batch_gflops, gigabytes_per_second };
            if share.is_none() {
                remember(&place, &speed);
            }
            speed
        }
    };
    Ok(Chosen { backend, name, device, numerics, speeds: vec![speed], cache: cache.to_owned(), share: share.cloned() })
}

/// A file for each device, driver and arithmetic, and for what is measured: of another thing there would be other figures.
fn remembered_name(device: &str) -> String {
    let words: Vec<&str> = device.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let shapes = SHAPES.map(|(rows, columns)| format!("{rows}x{columns}")).join("-");
    format!("speed-{}-{shapes}-{STREAMED_BYTES}.json", words.join("-").to_lowercase())
}

fn remembered(place: &Path, name: &str, device: &str) -> Option<Speed> {
    let speed: Speed = serde_json::from_slice(&std::fs::read(place).ok()?).ok()?;
    let is_speed = |figure: f64| figure.is_finite() && figure > 0.0;
    let sound = [speed.gflops, speed.batch_gflops, speed.gigabytes_per_second].into_iter().all(is_speed);
    (sound && speed.backend == name && speed.device == device).then_some(speed)
}

/// What cannot be written is measured again at the next start.
fn remember(place: &Path, speed: &Speed) {
    let written = serde_json::to_vec(speed).map_err(std::io::Error::other).and_then(|bytes| {
        std::fs::create_dir_all(place.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(place, bytes)
    });
    if let Err(error) = written {
        tracing::warn!(path = %place.display(), %error, "the measured speed is not kept: make the folder writable");
    }
}

/// 10^9 operations a second of Q4_0 matrix-vector products, and the same with four rows at once: the fastest of some repetitions, in
/// turn, since agents of one machine that start at once disturb each other.
///
/// With a share there are rests between, as the turns of others are in a ring, so that every phone of a lab, and a whole core too,
/// computes in the rhythm of the least: equally cold, equally often, and seldom at the same moment as another.
fn measure_arithmetic(engine: &mut dyn Engine, share: Option<f64>) -> Result<[f64; 2], EngineError> {
    const REPEATS: usize = 4;
    let mut recordings = [Recording::new(Vec::new()), Recording::new(Vec::new())];
    let mut n_weights = 0;
    for (rows, columns) in SHAPES {
        let ggml = vec![0x11; rows * columns / 32 * GROUP_BYTES];
        let weight = engine.load_matrix(WeightType::Q4_0, rows, columns, &ggml)?;
        let (x, out) = (engine.alloc(BATCH_ROWS * columns)?, engine.alloc(BATCH_ROWS * rows)?);
        for (recording, n_rows) in recordings.iter_mut().zip([1, BATCH_ROWS]) {
            for _ in 0..REPEATS {
                recording.push(Matmul { weight, x, first_row: 0, n_rows, bias: None, residual: None, out });
            }
            recording.readback(out, 0..1);
        }
        n_weights += rows * columns * REPEATS;
    }
    // Compiles the kernels; not counted.
    for recording in &recordings {
        engine.run(recording)?;
    }
    let window = share.map_or(MEASURE_FOR, |_| MEASURE_FOR.div_f64(LEAST_SHARE));
    let began = Instant::now();
    let mut fastest = [Duration::MAX; 2];
    while began.elapsed() < window {
        for (recording, fastest) in recordings.iter().zip(&mut fastest) {
            *fastest = timed(engine, recording, share)?.min(*fastest);
        }
    }
    let [one, four] = fastest.map(|fastest| fastest.as_secs_f64());
    let gflops = |n_rows: usize, seconds: f64| (2 * n_rows * n_weights) as f64 / seconds / 1e9;
    Ok([gflops(1, one), gflops(BATCH_ROWS, four)])
}

/// 10^9 bytes of weights a second that a matrix-vector product reads from memory, where they do not fit into a cache: the fastest of a
/// few times through all of them. The engine holds them until it is dropped.
fn measure_memory(engine: &mut dyn Engine, share: Option<f64>) -> Result<f64, EngineError> {
    let (rows, columns) = STREAMED_SHAPE;
    let (x, out) = (engine.alloc(columns)?, engine.alloc(rows)?);
    let mut recording = Recording::new(Vec::new());
    let zeros = vec![0; STREAMED_BYTES / STREAMED_MATRICES];
    for _ in 0..STREAMED_MATRICES {
        let weight = engine.load_matrix(WeightType::F32, rows, columns, &zeros)?;
        recording.push(Matmul { weight, x, first_row: 0, n_rows: 1, bias: None, residual: None, out });
    }
    drop(zeros);
    recording.readback(out, 0..1);
    // Compiles the kernel; not counted.
    engine.run(&recording)?;
    let mut fastest = Duration::MAX;
    for _ in 0..STREAMS {
        fastest = timed(engine, &recording, share)?.min(fastest);
    }
    Ok(STREAMED_BYTES as f64 / fastest.as_secs_f64() / 1e9)
}

/// Runs a step, and rests after it as long as the turn of the least share takes longer.
fn timed(engine: &mut dyn Engine, recording: &Recording, share: Option<f64>) -> Result<Duration, EngineError> {
    let began = Instant::now();
    engine.run(recording)?;
    let took = began.elapsed();
    if let Some(share) = share {
        std::thread::sleep(took.mul_f64((share / LEAST_SHARE - 1.0).max(0.0)));
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{HashMap, HashSet};
    use std::ops::Range;

    use polyphony_kernels::{BufferId, FileBytes, MatrixId, Op, VectorId};

    use super::*;

    /// Runs nothing; notes how many bytes of weights each step would read, each matrix once.
    struct Reader {
        engine: Box<dyn Engine>,
        matrices: HashMap<MatrixId, usize>,
        bytes_read: Vec<usize>,
    }

    impl Engine for Reader {
        fn numerics(&self) -> String {
            self.engine.numerics()
        }

        fn device(&self) -> String {
            self.engine.device()
        }

        fn load_rows(
            &mut self,
            weight_type: WeightType,
            n_rows: usize,
            n_cols: usize,
            ggml: &dyn FileBytes,
        ) -> Result<MatrixId, EngineError> {
            let id = self.engine.load_rows(weight_type, n_rows, n_cols, ggml)?;
            self.matrices.insert(id, ggml.n_bytes());
            Ok(id)
        }

        fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError> {
            self.engine.load_vector(values)
        }

        fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError> {
            self.engine.alloc(len)
        }

        fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError> {
            self.engine.write(buffer, offset, values)
        }

        fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
            self.engine.read(buffer, range)
        }

        fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
            let weight = |op: &Op| if let Op::Matmul(product) = op { Some(product.weight) } else { None };
            let read: HashSet<MatrixId> = recording.ops.iter().filter_map(weight).collect();
            self.bytes_read.push(read.iter().map(|id| self.matrices[id]).sum());
            Ok(Vec::new())
        }

        fn bytes_used(&self) -> u64 {
            self.engine.bytes_used()
        }
    }

    /// The last-level caches of phones of 2024 and 2025 are of 8 to 32 MB, and so is a server's of four or eight cores.
    #[test]
    fn the_bandwidth_is_that_of_weights_which_no_cache_holds() {
        let engine = open(Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 }, Path::new(""), None).unwrap();
        let mut reader = Reader { engine, matrices: HashMap::new(), bytes_read: Vec::new() };
        assert!(measure_memory(&mut reader, None).unwrap() > 0.0);
        assert_eq!(reader.bytes_read, [STREAMED_BYTES; STREAMS + 1]);
        const {
            assert!(
                STREAMED_BYTES >= 2 * (32 << 20),
                "twice the largest cache, so that little is left of the last time"
            )
        };
    }

    #[test]
    fn a_speed_is_measured_once_and_again_when_its_file_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let chosen = choose(BackendChoice::Cpu, 1, None, folder.path()).unwrap();
        assert!(chosen.speeds[0].gflops > 0.0);
        let file = std::fs::read_dir(folder.path().join("kernels")).unwrap().next().unwrap().unwrap().path();
        // Figures that JSON gives back to the last bit.
        let known = Speed { gflops: 1e6, batch_gflops: 2e6, gigabytes_per_second: 1.5, ..chosen.speeds[0].clone() };
        std::fs::write(&file, serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(choose(BackendChoice::Cpu, 1, None, folder.path()).unwrap().speeds, [known]);
        std::fs::write(&file, b"{").unwrap();
        assert!(choose(BackendChoice::Cpu, 1, None, folder.path()).unwrap().speeds[0].gflops < 1e6);
        // Another number of threads is another device.
        choose(BackendChoice::Cpu, 2, None, folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("kernels")).unwrap().count(), 2);
    }
}
