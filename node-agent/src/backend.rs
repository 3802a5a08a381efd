//! The backend: checks and measures every class that this phone can compute in, or those that the person left it. Plans choose among them.

pub mod apart;
mod aside;
mod checked;
mod running;
mod sabotage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_kernels::vulkan::quirks;
use polyphony_kernels::{
    Arithmetic, Backend, Engine, EngineError, KnownAnswers, KvType, Matmul, Recording, WeightType,
};
use polyphony_model::STEP_ROWS;
use polyphony_protocol::hub::{BackendFault, Speed};

use crate::class::Class;
use crate::cpu_share::CpuShare;
use crate::flags::BackendChoice;

use apart::Measured;
use checked::{Checked, Terms};

pub use aside::Aside;
pub use sabotage::Sabotage;

/// What segments can run on, and what was measured of each.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// At least one. The first is all that a controller of protocol 2.0 knows of: f32 on the faster device, unless a person left out f32.
    candidates: Vec<Candidate>,
    /// What was found to compute wrongly, or not at all, at the start or since.
    aside: Aside,
    /// Where engines keep what only saves time: compiled pipelines, measurements.
    cache: PathBuf,
    /// A lab's phone keeps to one.
    share: Option<CpuShare>,
    /// A test's phone has one.
    sabotage: Option<Sabotage>,
}

/// A backend in one arithmetic.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub backend: Backend,
    /// `cpu` or `vulkan`.
    pub name: &'static str,
    pub device: String,
    /// The first part of a numerics class, such as `cpu-f32-r1`.
    pub numerics: String,
    pub speed: Speed,
}

/// Each device in both.
const ARITHMETICS: [Arithmetic; 2] = [Arithmetic::F32, Arithmetic::Int8];

/// What a device is asked about at the start: what it is measured by. A segment asks about its own types.
const ASKED: [WeightType; 2] = [WeightType::Q4_0, WeightType::F32];

/// Raised when kernels have become faster, so that what was measured of slower ones is measured anew.
const KERNELS: u32 = 3;
/// The products whose arithmetic is measured, outputs and inputs: query, key and value, gate and up, and down of a small model. Their
/// 1.8 MB of weights lie in any cache.
const SHAPES: [(usize, usize); 3] = [(960, 576), (3072, 576), (576, 1536)];
const MEASURE_FOR: Duration = Duration::from_millis(120);
/// Rows of activations of the measured steps: of one session, of some, and of a chunk of a prompt.
const BATCH_ROWS: usize = 4;
const ROWS: [usize; 3] = [1, BATCH_ROWS, STEP_ROWS as usize];
/// The smallest share of a core that a phone of a lab has.
const LEAST_SHARE: f64 = 0.1;
/// Bytes of 32 weights of Q4_0.
const GROUP_BYTES: usize = 18;
/// The matrices by which memory is measured, of f32: what has the least arithmetic a byte waits for memory alone. 64 MiB are twice the
/// last-level cache of the largest phones and of most desktops, so that little of them is still there when their turn comes again.
const STREAMED_MATRICES: usize = 8;
const STREAMED_SHAPE: (usize, usize) = (2048, 1024);
const STREAMED_BYTES: usize = STREAMED_SHAPE.0 * STREAMED_SHAPE.1 * size_of::<f32>();
/// Times that all of them are read. A phone that is a tenth of a core, at 1 GB/s, takes 3 s for it.
const STREAMS: usize = 4;

// === impl Chosen ===

impl Chosen {
    /// What a controller is told of that takes one class for all that a phone has.
    pub fn first(&self) -> &Candidate {
        &self.candidates[0]
    }

    /// What was measured, of every class one.
    pub fn speeds(&self) -> Vec<Speed> {
        self.candidates.iter().map(|candidate| candidate.speed.clone()).collect()
    }

    /// The class's engine, if this phone has it.
    pub fn of(&self, class: &Class<'_>) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.numerics == class.numerics)
    }

    /// The names of all, for people.
    pub fn names(&self) -> String {
        self.candidates.iter().map(|candidate| candidate.numerics.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// What is not used any more.
    pub fn aside(&self) -> &Aside {
        &self.aside
    }

    /// Nothing is computed any more on the device behind a class, in whatever arithmetic.
    pub fn set_aside(&self, numerics: &str, why: &str) {
        let Some(found) = self.candidates.iter().find(|one| one.numerics == numerics) else { return };
        for one in self.candidates.iter().filter(|one| one.name == found.name) {
            self.aside.set(fault(one.name, &one.device, &one.numerics, &why));
        }
    }

    /// A new engine of this kind for matrices of these types and caches of that one. It is asked for known answers now, and now and then; on a
    /// GPU whatever takes longer than `longest_run` hangs.
    ///
    /// # Errors
    /// When the device does not open any more, or [`EngineError::Wrong`].
    pub fn open(
        &self,
        backend: Backend,
        weight_types: &[WeightType],
        kv_type: KvType,
        longest_run: Duration,
    ) -> Result<Box<dyn Engine>, EngineError> {
        let engine = open(backend, &self.cache, self.share.as_ref(), self.sabotage.as_ref())?;
        let is_suspect = self.sabotage.is_some() || quirks::of(&engine.device()).next().is_some();
        let (chosen, numerics) = (self.clone(), engine.numerics());
        let terms = Terms {
            aside: self.aside.clone(),
            is_suspect,
            longest_run: matches!(backend, Backend::Vulkan { .. }).then_some(longest_run),
            set_aside: Arc::new(move |why| chosen.set_aside(&numerics, why)),
        };
        Ok(Box::new(Checked::keep(engine, terms, backend, (weight_types, kv_type), Instant::now)?))
    }
}

fn open(
    backend: Backend,
    cache: &Path,
    share: Option<&CpuShare>,
    sabotage: Option<&Sabotage>,
) -> Result<Box<dyn Engine>, EngineError> {
    let mut engine = polyphony_kernels::open(backend, Some(cache))?;
    if let Some(sabotage) = sabotage {
        engine = sabotage.of(name(backend), engine);
    }
    Ok(match share {
        Some(share) => share.clone().keep(engine),
        None => engine,
    })
}

/// As people and protocols call it.
fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::Cpu { .. } => "cpu",
        Backend::Vulkan { .. } => "vulkan",
    }
}

/// How backends are measured.
#[derive(Clone, Debug)]
pub struct Measuring {
    /// Of the CPU backend.
    pub threads: usize,
    /// All is measured at that share, and nothing remembered.
    pub share: Option<CpuShare>,
    /// What was measured before is remembered here, and not measured again.
    pub data_dir: PathBuf,
    /// No more is held for it, which is what the phone gives.
    pub memory_bytes: u64,
    /// This program, where it can measure GPUs in a process of its own.
    pub program: Option<PathBuf>,
    pub sabotage: Option<Sabotage>,
}

/// Opens, checks and measures the classes that `choice` allows.
///
/// # Errors
/// When one that was asked for does not open, or none of it computes rightly; with `auto` only when not even the processor does.
pub fn choose(choice: BackendChoice, how: &Measuring) -> Result<Chosen, EngineError> {
    let (found, mut faults) = match choice {
        BackendChoice::Cpu => (how.cpu(&ARITHMETICS)?, Vec::new()),
        BackendChoice::CpuInt8 => (how.cpu(&[Arithmetic::Int8])?, Vec::new()),
        BackendChoice::Vulkan => (how.gpu(&ARITHMETICS)?, Vec::new()),
        BackendChoice::VulkanInt8 => (how.gpu(&[Arithmetic::Int8])?, Vec::new()),
        BackendChoice::Auto => {
            let cpu = how.cpu(&ARITHMETICS)?;
            match how.gpu(&ARITHMETICS) {
                Ok(gpu) => {
                    let gflops = |found: &[Found]| found[0].measured.verdict.as_ref().map_or(0.0, |speed| speed.gflops);
                    (if gflops(&gpu) > gflops(&cpu) { [gpu, cpu].concat() } else { [cpu, gpu].concat() }, Vec::new())
                }
                Err(error @ EngineError::NoAdapter { .. }) => {
                    tracing::info!(%error, "going on with the CPU backend");
                    (cpu, Vec::new())
                }
                // What it is nobody knows: it has not come so far.
                Err(error @ EngineError::Lost(_)) => (cpu, vec![fault("vulkan", "", "", &error)]),
                Err(error) => {
                    tracing::warn!(%error, "the GPU cannot be used: going on with the CPU backend");
                    (cpu, Vec::new())
                }
            }
        }
    };
    // Whoever is wrong in one arithmetic is believed in none.
    let wrong: Vec<(&str, String)> = found
        .iter()
        .filter_map(|found| Some((name(found.backend), found.measured.verdict.as_ref().err()?.clone())))
        .collect();
    let mut candidates = Vec::new();
    for Found { backend, measured: Measured { device, numerics, verdict } } in found {
        let name = name(backend);
        match (verdict, wrong.iter().find(|(of, _)| *of == name)) {
            (Ok(speed), None) => candidates.push(Candidate { backend, name, device, numerics, speed }),
            (Err(why), _) => faults.push(fault(name, &device, &numerics, &why)),
            (Ok(_), Some((_, why))) => faults.push(fault(name, &device, &numerics, why)),
        }
    }
    if candidates.is_empty() {
        let whys: Vec<String> =
            faults.into_iter().map(|fault| format!("{}: {}", fault.numerics, fault.reason)).collect();
        return Err(EngineError::NoneRight(whys.join("; ")));
    }
    let aside = Aside::default();
    faults.into_iter().for_each(|fault| aside.set(fault));
    Ok(Chosen { candidates, aside, cache: how.cache(), share: how.share.clone(), sabotage: how.sabotage.clone() })
}

fn fault(backend: &str, device: &str, numerics: &str, why: &dyn std::fmt::Display) -> BackendFault {
    let [backend, device, numerics] = [backend, device, numerics].map(str::to_owned);
    BackendFault { backend, device, numerics, reason: why.to_string() }
}

/// What was found of a backend in one arithmetic.
#[derive(Clone, Debug)]
struct Found {
    backend: Backend,
    measured: Measured,
}

/// Checks and measures the GPU in this process, in each arithmetic.
fn measure_gpu(data_dir: &Path, memory_bytes: u64, sabotage: Option<Sabotage>) -> Result<Vec<Measured>, EngineError> {
    let data_dir = data_dir.to_owned();
    let how = Measuring { threads: 1, share: None, data_dir, memory_bytes, program: None, sabotage };
    how.all_measured(&ARITHMETICS, |arithmetic| Backend::Vulkan { arithmetic })
}

// === impl Measuring ===

impl Measuring {
    fn cpu(&self, arithmetics: &[Arithmetic]) -> Result<Vec<Found>, EngineError> {
        let backend = |arithmetic| Backend::Cpu { threads: self.threads, arithmetic };
        Ok(found(arithmetics, backend, self.all_measured(arithmetics, backend)?))
    }

    /// Of the GPU this process is to keep nothing before it computes on it.
    fn gpu(&self, arithmetics: &[Arithmetic]) -> Result<Vec<Found>, EngineError> {
        let backend = |arithmetic| Backend::Vulkan { arithmetic };
        let measured = match (&self.program, &self.share) {
            (Some(program), None) if arithmetics == ARITHMETICS => apart::measure(program, self)?,
            _ => self.all_measured(arithmetics, backend)?,
        };
        Ok(found(arithmetics, backend, measured))
    }

    /// A device in each arithmetic. Its memory is as fast in one as in the other, and measured once. One that fails after another is left out.
    fn all_measured(
        &self,
        arithmetics: &[Arithmetic],
        backend: impl Fn(Arithmetic) -> Backend,
    ) -> Result<Vec<Measured>, EngineError> {
        let mut all: Vec<Measured> = Vec::new();
        for &arithmetic in arithmetics {
            let speeds = || all.iter().filter_map(|measured| measured.verdict.as_ref().ok());
            let memory_speed = speeds().map(|speed| speed.gigabytes_per_second).next();
            match self.measured(backend(arithmetic), memory_speed) {
                Ok(measured) => all.push(measured),
                Err(error) if all.is_empty() => return Err(error),
                Err(error) => {
                    let name = name(backend(arithmetic));
                    tracing::warn!(%error, "{name} cannot be used for {arithmetic:?}: going on without");
                    break;
                }
            }
        }
        Ok(all)
    }

    fn measured(&self, backend: Backend, memory_speed: Option<f64>) -> Result<Measured, EngineError> {
        let mut engine = open(backend, &self.cache(), self.share.as_ref(), self.sabotage.as_ref())?;
        let (device, numerics) = (engine.device(), engine.numerics());
        let known = KnownAnswers::load(engine.as_mut(), backend, &ASKED, KvType::F16)?;
        let verdict = match known.ask(engine.as_mut()) {
            Ok(()) => Ok(self.speed(engine.as_mut(), name(backend), memory_speed)?),
            Err(error @ EngineError::Wrong { .. }) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        Ok(Measured { device, numerics, verdict })
    }

    /// What was remembered, or is measured now.
    fn speed(&self, engine: &mut dyn Engine, name: &str, memory_speed: Option<f64>) -> Result<Speed, EngineError> {
        let share = self.share.as_ref();
        let (device, numerics) = (engine.device(), engine.numerics());
        let n_matrices = streamed_matrices(self.memory_bytes);
        let place = self.cache().join(remembered_name(&format!("{device} {numerics}"), n_matrices));
        if let Some(speed) = remembered(&place, name, &device).filter(|_| share.is_none()) {
            // A file of before does not say.
            return Ok(Speed { numerics, ..speed });
        }
        let share_now = share.map(CpuShare::now);
        let [gflops, batch_gflops, prefill_gflops] = measure_arithmetic(engine, share_now)?;
        let gigabytes_per_second = match memory_speed {
            Some(known) => known,
            None => measure_memory(engine, share_now, n_matrices)?,
        };
        let backend = name.to_owned();
        let speed = Speed { backend, device, numerics, gflops, batch_gflops, prefill_gflops, gigabytes_per_second };
        if share.is_none() {
            remember(&place, &speed);
        }
        Ok(speed)
    }

    fn cache(&self) -> PathBuf {
        self.data_dir.join("kernels")
    }
}

fn found(arithmetics: &[Arithmetic], backend: impl Fn(Arithmetic) -> Backend, measured: Vec<Measured>) -> Vec<Found> {
    let found = |(&arithmetic, measured): (&Arithmetic, Measured)| Found { backend: backend(arithmetic), measured };
    arithmetics.iter().zip(measured).map(found).collect()
}

/// A file for each device, driver and arithmetic, and for what is measured: of another thing there would be other figures.
fn remembered_name(device: &str, n_matrices: usize) -> String {
    let words: Vec<&str> = device.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let shapes = SHAPES.map(|(rows, columns)| format!("{rows}x{columns}")).join("-");
    format!("speed-{KERNELS}-{}-{shapes}-{}.json", words.join("-").to_lowercase(), n_matrices * STREAMED_BYTES)
}

fn remembered(place: &Path, name: &str, device: &str) -> Option<Speed> {
    let speed: Speed = serde_json::from_slice(&std::fs::read(place).ok()?).ok()?;
    let is_speed = |figure: f64| figure.is_finite() && figure > 0.0;
    let sound =
        [speed.gflops, speed.batch_gflops, speed.prefill_gflops, speed.gigabytes_per_second].into_iter().all(is_speed);
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

/// Matrices to measure memory by: all, or as many as take half of what a phone gives.
fn streamed_matrices(memory_bytes: u64) -> usize {
    let fit = memory_bytes / 2 / STREAMED_BYTES as u64;
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, STREAMED_MATRICES)
}

/// 10^9 operations a second of Q4_0 matrix-vector products, and the same with each number of rows at once: the fastest of some repetitions, in
/// turn, since agents of one machine that start at once disturb each other.
///
/// With a share there are rests between, as the turns of others are in a ring, so that every phone of a lab, and a whole core too,
/// computes in the rhythm of the least: equally cold, equally often, and seldom at the same moment as another.
fn measure_arithmetic(engine: &mut dyn Engine, share: Option<f64>) -> Result<[f64; ROWS.len()], EngineError> {
    const REPEATS: usize = 4;
    let mut recordings = ROWS.map(|_| Recording::new(Vec::new()));
    let mut n_weights = 0;
    for (rows, columns) in SHAPES {
        let ggml = vec![0x11; rows * columns / 32 * GROUP_BYTES];
        let weight = engine.load_matrix(WeightType::Q4_0, rows, columns, &ggml)?;
        let most = ROWS[ROWS.len() - 1];
        let (x, out) = (engine.alloc(most * columns)?, engine.alloc(most * rows)?);
        for (recording, n_rows) in recordings.iter_mut().zip(ROWS) {
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
    let mut fastest = [Duration::MAX; ROWS.len()];
    while began.elapsed() < window {
        for (recording, fastest) in recordings.iter().zip(&mut fastest) {
            *fastest = timed(engine, recording, share)?.min(*fastest);
        }
    }
    let gflops = |at: usize| (2 * ROWS[at] * n_weights) as f64 / fastest[at].as_secs_f64() / 1e9;
    Ok(std::array::from_fn(gflops))
}

/// 10^9 bytes of weights a second that a matrix-vector product reads from memory, where they do not fit into a cache: the fastest of a
/// few times through all of them. The engine holds them until it is dropped.
fn measure_memory(engine: &mut dyn Engine, share: Option<f64>, n_matrices: usize) -> Result<f64, EngineError> {
    let (rows, columns) = STREAMED_SHAPE;
    let (x, out) = (engine.alloc(columns)?, engine.alloc(rows)?);
    let mut recording = Recording::new(Vec::new());
    let zeros = vec![0; STREAMED_BYTES];
    for _ in 0..n_matrices {
        let weight = engine.load_matrix(WeightType::F32, rows, columns, &zeros)?;
        let product = Matmul { weight, x, first_row: 0, n_rows: 1, bias: None, residual: None, out };
        recording.push(product.clone());
        // Compiles the kernel, and ends what carries weights to a device, which would else be held once more for all of them. Not counted.
        let mut once = Recording::new(Vec::new());
        once.push(product);
        once.readback(out, 0..1);
        engine.run(&once)?;
    }
    drop(zeros);
    recording.readback(out, 0..1);
    let mut fastest = Duration::MAX;
    for _ in 0..STREAMS {
        fastest = timed(engine, &recording, share)?.min(fastest);
    }
    Ok((n_matrices * STREAMED_BYTES) as f64 / fastest.as_secs_f64() / 1e9)
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
    use std::collections::HashSet;

    use polyphony_kernels::{MatrixId, Op};

    use super::*;
    use crate::around::Around;

    /// The last-level caches of phones of 2024 and 2025 are of 8 to 32 MB, and so is a server's of four or eight cores.
    #[test]
    fn the_bandwidth_is_that_of_weights_which_no_cache_holds() {
        let engine = open(Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 }, Path::new(""), None, None).unwrap();
        let mut n_read = Vec::new();
        let mut reader = Around {
            engine,
            run: |_: &mut dyn Engine, recording: &Recording| {
                let weight = |op: &Op| if let Op::Matmul(product) = op { Some(product.weight) } else { None };
                n_read.push(recording.ops.iter().filter_map(weight).collect::<HashSet<MatrixId>>().len());
                Ok(Vec::new())
            },
        };
        assert!(measure_memory(&mut reader, None, STREAMED_MATRICES).unwrap() > 0.0);
        assert!(reader.bytes_used() >= (STREAMED_MATRICES * STREAMED_BYTES) as u64);
        drop(reader);
        assert_eq!(n_read, [[1; STREAMED_MATRICES].as_slice(), [STREAMED_MATRICES; STREAMS].as_slice()].concat());
        const {
            assert!(
                STREAMED_MATRICES * STREAMED_BYTES >= 2 * (32 << 20),
                "twice the largest cache, so that little is left of the last time"
            )
        };
    }

    #[test]
    fn memory_is_measured_within_what_the_phone_gives() {
        for (mebibytes, expected) in [(0, 1), (16, 1), (64, 4), (112, 7), (128, 8), (4096, 8)] {
            assert_eq!(streamed_matrices(mebibytes << 20), expected, "{mebibytes} MiB");
        }
    }

    #[test]
    fn a_speed_is_measured_once_and_again_when_its_file_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let choose = |threads| {
            let (data_dir, memory_bytes) = (folder.path().to_owned(), u64::MAX);
            let how = Measuring { threads, share: None, data_dir, memory_bytes, program: None, sabotage: None };
            choose(BackendChoice::Cpu, &how).unwrap()
        };
        let chosen = choose(1);
        let speeds = chosen.speeds();
        assert_eq!(
            speeds.iter().map(|speed| speed.numerics.clone()).collect::<Vec<_>>(),
            ["cpu-f32-r1", "cpu-int8-r2"]
        );
        assert!(speeds.iter().all(|speed| speed.gflops > 0.0));
        assert_eq!(speeds[0].gigabytes_per_second.to_bits(), speeds[1].gigabytes_per_second.to_bits());
        let files = || {
            let mut files: Vec<PathBuf> =
                std::fs::read_dir(folder.path().join("kernels")).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            files
        };
        let file = files().into_iter().find(|file| file.to_string_lossy().contains("cpu-f32")).unwrap();
        // Figures that JSON gives back to the last bit.
        let known = Speed { gflops: 1e6, batch_gflops: 2e6, gigabytes_per_second: 1.5, ..speeds[0].clone() };
        std::fs::write(&file, serde_json::to_vec(&known).unwrap()).unwrap();
        let other: Speed = serde_json::from_slice(&serde_json::to_vec(&speeds[1]).unwrap()).unwrap();
        assert_eq!(choose(1).speeds(), [known, other]);
        std::fs::write(&file, b"{").unwrap();
        assert!(choose(1).speeds()[0].gflops < 1e6);
        // Another number of threads is another device.
        choose(2);
        assert_eq!(files().len(), 4);
    }

    #[test]
    fn a_class_opens_the_engine_of_its_arithmetic_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().to_owned();
        let how = Measuring { threads: 1, share: None, data_dir, memory_bytes: 1, program: None, sabotage: None };
        let both = choose(BackendChoice::Cpu, &how).unwrap();
        for class in ["cpu-f32-r1/f16/kv-f16", "cpu-int8-r2/f32/kv-f32"] {
            let class = Class::parse(class).unwrap();
            let candidate = both.of(&class).unwrap();
            assert_eq!(
                both.open(candidate.backend, &[], class.kv_type, Duration::from_secs(60)).unwrap().numerics(),
                class.numerics
            );
        }
        assert!(both.of(&Class::parse("cpu-f32-r9/f16/kv-f16").unwrap()).is_none());
        let one = choose(BackendChoice::CpuInt8, &how).unwrap();
        assert_eq!(one.names(), "cpu-int8-r2");
    }
}
