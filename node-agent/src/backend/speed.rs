//! Speed: how fast an engine is, in arithmetic and in reading memory, measured once and remembered.

use std::path::Path;
use std::time::{Duration, Instant};

use polyphony_kernels::{Engine, EngineError, Matmul, Recording, WeightType};
use polyphony_model::STEP_ROWS;
use polyphony_protocol::hub::Speed;

use crate::cpu_share::CpuShare;

/// Raised when kernels have become faster, so that what was measured of slower ones is measured anew.
const KERNELS: u32 = 5;
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

/// How an engine is measured.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// All is measured at that share, and nothing remembered.
    pub share: Option<&'a CpuShare>,
    /// No more than half of it is held meanwhile.
    pub memory_bytes: u64,
    /// Where it is remembered.
    pub cache: &'a Path,
    /// 10^9 bytes a second, where that of this device is known already.
    pub memory_speed: Option<f64>,
}

/// What was remembered of an engine, or is measured now. `name` is its backend's.
pub(super) fn of(engine: &mut dyn Engine, name: &str, terms: Terms<'_>) -> Result<Speed, EngineError> {
    let (device, numerics) = (engine.device(), engine.numerics());
    let n_matrices = streamed_matrices(terms.memory_bytes);
    let place = terms.cache.join(remembered_name(&format!("{device} {numerics}"), n_matrices));
    if let Some(speed) = remembered(&place, name, &device).filter(|_| terms.share.is_none()) {
        // A file of before does not say.
        return Ok(Speed { numerics, ..speed });
    }
    let share_now = terms.share.map(CpuShare::now);
    let [gflops, batch_gflops, prefill_gflops] = measure_arithmetic(engine, share_now)?;
    let gigabytes_per_second = match terms.memory_speed {
        Some(known) => known,
        None => measure_memory(engine, share_now, n_matrices)?,
    };
    let backend = name.to_owned();
    let speed = Speed { backend, device, numerics, gflops, batch_gflops, prefill_gflops, gigabytes_per_second };
    if terms.share.is_none() {
        remember(&place, &speed);
    }
    Ok(speed)
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

    use polyphony_kernels::{Arithmetic, Around, Backend, MatrixId, Op};

    use super::*;

    /// The last-level caches of phones of 2024 and 2025 are of 8 to 32 MB, and so is a server's of four or eight cores.
    #[test]
    fn the_bandwidth_is_that_of_weights_which_no_cache_holds() {
        let engine = polyphony_kernels::open(Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 }, None).unwrap();
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
}
