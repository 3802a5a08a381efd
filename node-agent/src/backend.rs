//! The backend: measures what this phone has and takes the faster, or what the person chose.

use std::time::{Duration, Instant};

use polyphony_kernels::{Backend, Engine, EngineError, Matmul, Recording, WeightType};
use polyphony_protocol::hub::Speed;

use crate::flags::BackendChoice;

/// The backend that segments run on, and what was measured of all.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub backend: Backend,
    /// `cpu` or `vulkan`.
    pub name: &'static str,
    pub device: String,
    /// The first part of a numerics class, such as `cpu-f32`.
    pub numerics: String,
    pub speeds: Vec<Speed>,
}

/// The measured product: the shape of a feed-forward matrix of a small model.
const ROWS: usize = 1536;
const COLUMNS: usize = 576;
const MEASURE_FOR: Duration = Duration::from_millis(60);

/// Opens and measures the backends that `choice` allows.
///
/// # Errors
/// When the one that was asked for does not open; with `auto` only when not even the processor does.
pub fn choose(choice: BackendChoice, threads: usize) -> Result<Chosen, EngineError> {
    let cpu = Backend::Cpu { threads };
    match choice {
        BackendChoice::Cpu => candidate(cpu, "cpu"),
        BackendChoice::Vulkan => candidate(Backend::Vulkan, "vulkan"),
        BackendChoice::Auto => {
            let cpu = candidate(cpu, "cpu")?;
            let vulkan = match candidate(Backend::Vulkan, "vulkan") {
                Ok(vulkan) => vulkan,
                Err(error) => {
                    tracing::info!(%error, "going on with the CPU backend");
                    return Ok(cpu);
                }
            };
            let speeds: Vec<Speed> = cpu.speeds.iter().chain(&vulkan.speeds).cloned().collect();
            let faster = if vulkan.speeds[0].gflops > cpu.speeds[0].gflops { vulkan } else { cpu };
            Ok(Chosen { speeds, ..faster })
        }
    }
}

fn candidate(backend: Backend, name: &'static str) -> Result<Chosen, EngineError> {
    let mut engine = polyphony_kernels::open(backend)?;
    let (gflops, gigabytes_per_second) = measure(engine.as_mut())?;
    let device = engine.device();
    let speed = Speed { backend: name.to_owned(), device: device.clone(), gflops, gigabytes_per_second };
    Ok(Chosen { backend, name, device, numerics: engine.numerics(), speeds: vec![speed] })
}

/// 10^9 operations and 10^9 weight bytes a second of a Q4_0 matrix-vector product, the fastest of the repetitions.
fn measure(engine: &mut dyn Engine) -> Result<(f64, f64), EngineError> {
    let n_bytes = ROWS * COLUMNS / 32 * 18;
    let weight = engine.load_matrix(WeightType::Q4_0, ROWS, COLUMNS, &vec![0x11; n_bytes])?;
    let x = engine.alloc(COLUMNS)?;
    let out = engine.alloc(ROWS)?;
    let mut recording = Recording::new(Vec::new());
    const REPEATS: usize = 8;
    for _ in 0..REPEATS {
        recording.push(Matmul { weight, x, first_row: 0, n_rows: 1, bias: None, residual: None, out });
    }
    recording.readback(out, 0..1);
    // Compiles the kernels; not counted.
    engine.run(&recording)?;
    let began = Instant::now();
    let mut fastest = Duration::MAX;
    while began.elapsed() < MEASURE_FOR {
        let step = Instant::now();
        engine.run(&recording)?;
        fastest = fastest.min(step.elapsed());
    }
    let seconds = fastest.as_secs_f64() / REPEATS as f64;
    Ok(((2 * ROWS * COLUMNS) as f64 / seconds / 1e9, n_bytes as f64 / seconds / 1e9))
}
