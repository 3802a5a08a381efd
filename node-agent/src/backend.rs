//! The backend: checks and measures every class that this phone can compute in, or those that the person left it. Plans choose among them.

pub mod apart;
mod aside;
mod checked;
mod running;
mod sabotage;
mod speed;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_kernels::vulkan::quirks;
use polyphony_kernels::{Arithmetic, Backend, Engine, EngineError, KnownAnswers, KvType, MixedEngine, WeightType};
use polyphony_protocol::hub::{BackendFault, Speed};

use crate::class::Class;
use crate::cpu_share::CpuShare;
use crate::duty::Duty;
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
    /// In which part of its time the phone computes.
    duty: Duty,
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
    /// `cpu`, `vulkan` or `mixed`.
    pub name: &'static str,
    pub device: String,
    /// The first part of a numerics class, such as `cpu-f32-r1`.
    pub numerics: String,
    pub speed: Speed,
}

/// A processor and a GPU together, as people and protocols call it.
pub const MIXED: &str = "mixed";

/// Each device in both.
const ARITHMETICS: [Arithmetic; 2] = [Arithmetic::F32, Arithmetic::Int8];

/// What a device is asked about at the start: what it is measured by. A segment asks about its own types.
const ASKED: [WeightType; 2] = [WeightType::Q4_0, WeightType::F32];

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

    /// In which part of its time the phone computes; whoever governs that sets it.
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Nothing is computed any more on the device behind a class, in whatever arithmetic, nor with it and another.
    pub fn set_aside(&self, numerics: &str, why: &str) {
        let Some(found) = self.candidates.iter().find(|one| one.numerics == numerics) else { return };
        for one in self.candidates.iter().filter(|one| one.name == found.name || one.name == MIXED) {
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
        if let Backend::Mixed { threads, arithmetic } = backend {
            // Each of the two is asked for its own answers, and set aside under its own name.
            let open = |backend| self.open(backend, weight_types, kv_type, longest_run);
            let decode = open(Backend::Cpu { threads, arithmetic })?;
            return Ok(Box::new(MixedEngine::new(decode, open(Backend::Vulkan { arithmetic })?)));
        }
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
        Backend::Mixed { .. } => MIXED,
    }
}

/// A processor that decodes and a GPU that reads prompts: of each arithmetic that both compute in.
fn mixed(candidates: &[Candidate]) -> Vec<Candidate> {
    let of = |wanted: Backend| candidates.iter().find(|one| one.backend == wanted);
    let both = |decode: &Candidate| {
        let Backend::Cpu { threads, arithmetic } = decode.backend else { return None };
        let prefill = of(Backend::Vulkan { arithmetic })?;
        let numerics = MixedEngine::name(&decode.numerics);
        let device = format!("{}; prompts: {}", decode.device, prefill.device);
        let speed = Speed {
            backend: MIXED.to_owned(),
            device: device.clone(),
            numerics: numerics.clone(),
            prefill_gflops: prefill.speed.prefill_gflops,
            ..decode.speed.clone()
        };
        Some(Candidate { backend: Backend::Mixed { threads, arithmetic }, name: MIXED, device, numerics, speed })
    };
    candidates.iter().filter_map(both).collect()
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
    candidates.extend(mixed(&candidates));
    let aside = Aside::default();
    faults.into_iter().for_each(|fault| aside.set(fault));
    let (duty, share, sabotage) = (Duty::default(), how.share.clone(), how.sabotage.clone());
    Ok(Chosen { candidates, aside, duty, cache: how.cache(), share, sabotage })
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
            Ok(()) => {
                let (share, cache) = (self.share.as_ref(), &self.cache());
                let terms = speed::Terms { share, memory_bytes: self.memory_bytes, cache, memory_speed };
                Ok(speed::of(engine.as_mut(), name(backend), terms)?)
            }
            Err(error @ EngineError::Wrong { .. }) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        Ok(Measured { device, numerics, verdict })
    }

    fn cache(&self) -> PathBuf {
        self.data_dir.join("kernels")
    }
}

fn found(arithmetics: &[Arithmetic], backend: impl Fn(Arithmetic) -> Backend, measured: Vec<Measured>) -> Vec<Found> {
    let found = |(&arithmetic, measured): (&Arithmetic, Measured)| Found { backend: backend(arithmetic), measured };
    arithmetics.iter().zip(measured).map(found).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        let (gflops, batch_gflops, prefill_gflops, gigabytes_per_second) = (1e6, 2e6, 3e6, 1.5);
        let known = Speed { gflops, batch_gflops, prefill_gflops, gigabytes_per_second, ..speeds[0].clone() };
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

    /// On a phone with both, one of either kind for each arithmetic, and it is set aside with either.
    #[test]
    fn a_processor_and_a_gpu_are_a_mixed_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().to_owned();
        let how = Measuring { threads: 1, share: None, data_dir, memory_bytes: 1, program: None, sabotage: None };
        let chosen = choose(BackendChoice::Auto, &how).unwrap();
        let named = |name| chosen.candidates.iter().filter(|one| one.name == name).collect::<Vec<_>>();
        let (cpu, gpu, both) = (named("cpu"), named("vulkan"), named(MIXED));
        if gpu.is_empty() {
            return polyphony_skip::skipped("no Vulkan device is here");
        }
        let classes: Vec<&str> = both.iter().map(|one| one.numerics.as_str()).collect();
        assert_eq!(classes, ["mixed-f32-r1", "mixed-int8-r2"]);
        for (both, (cpu, gpu)) in both.iter().zip(cpu.iter().zip(&gpu)) {
            assert_eq!(both.speed.gflops.to_bits(), cpu.speed.gflops.to_bits());
            assert_eq!(both.speed.prefill_gflops.to_bits(), gpu.speed.prefill_gflops.to_bits());
            let engine = chosen.open(both.backend, &[], KvType::F16, Duration::from_secs(60)).unwrap();
            assert_eq!(engine.numerics(), both.numerics);
        }
        chosen.set_aside(&gpu[1].numerics, "it is wrong");
        assert!(both.iter().chain(&gpu).all(|one| chosen.aside().reason(&one.numerics).is_some()));
        assert!(cpu.iter().all(|one| chosen.aside().reason(&one.numerics).is_none()));
        let refused = chosen.open(both[1].backend, &[], KvType::F16, Duration::from_secs(60)).err().unwrap();
        assert!(matches!(refused, EngineError::SetAside { .. }), "{refused}");
    }
}
