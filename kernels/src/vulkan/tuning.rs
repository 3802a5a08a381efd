//! Tuning: how the rows of matrices are dealt out to lanes on this device. All candidates give the same bits, so tuning is no numerics class.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Options, VulkanEngine, kept};
use crate::cpu::CpuEngine;
use crate::engine::{Arithmetic, Engine, EngineError};
use crate::ops::Matmul;
use crate::recording::Recording;
use crate::weight_type::WeightType;
use crate::wgsl::{Lanes, WeightSource};

/// Choices by rows of activations (1, 4) and by rows of the matrix (few, many).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuning([[Lanes; 2]; 2]);

/// What is kept, with a number that is raised when kernels have changed so that what was measured says nothing of them.
const KEPT: &str = "tuning-2";
/// From so many rows on a matrix has many.
const MANY_ROWS: usize = 4096;
/// Outputs of the measured matrices, few and many, and their inputs.
const OUTPUTS: [usize; 2] = [1152, 8192];
const INPUTS: usize = 576;
/// How long one candidate is measured at least.
const MEASURE_FOR: Duration = Duration::from_millis(8);
/// After this no further candidate is tried: software drivers compile one for up to a second. Decoding comes first.
const DEADLINE: Duration = Duration::from_millis(500);

impl Tuning {
    /// The same for all.
    pub fn all(lanes: Lanes) -> Self {
        Self([[lanes; 2]; 2])
    }

    pub fn lanes(&self, n_tokens: u32, n_rows: usize) -> Lanes {
        self.0[usize::from(n_tokens > 1)][usize::from(n_rows >= MANY_ROWS)]
    }

    /// Reads what an earlier run measured on this device, or measures now and keeps it.
    pub fn of(device: &str, arithmetic: Arithmetic, source: WeightSource, folder: &Path) -> Result<Self, EngineError> {
        let place = folder.join(kept::file_name(KEPT, &format!("{device}-{arithmetic:?}-{source:?}")));
        if let Some(tuning) = kept::read(&place).and_then(|bytes| Self::from_bytes(&bytes)) {
            return Ok(tuning);
        }
        let tuning = measure(arithmetic, source)?;
        kept::write(&place, &tuning.to_bytes());
        Ok(tuning)
    }

    fn to_bytes(self) -> Vec<u8> {
        self.0.as_flattened().iter().flat_map(|lanes| [lanes.n_rows as u8, lanes.workgroup as u8]).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 8] = bytes.try_into().ok()?;
        let lanes = |at: usize| Lanes { n_rows: bytes[at].into(), workgroup: bytes[at + 1].into() };
        let all = [lanes(0), lanes(2), lanes(4), lanes(6)];
        let known = all.iter().all(|lanes| candidates().contains(lanes));
        known.then(|| Self([[all[0], all[1]], [all[2], all[3]]]))
    }
}

fn candidates() -> Vec<Lanes> {
    // Those that won most often come first.
    [32, 64].into_iter().flat_map(|workgroup| [4, 2, 1].map(|n_rows| Lanes { n_rows, workgroup })).collect()
}

/// Times every candidate that gives the oracle's values and the bits of the first one.
fn measure(arithmetic: Arithmetic, source: WeightSource) -> Result<Tuning, EngineError> {
    let options = Options { arithmetic, source: Some(source), ..Options::default() };
    let mut engine = VulkanEngine::new(options)?;
    let mut tuning = engine.facts.tuning;
    let began = Instant::now();
    for (index, n_rows) in [1, 4].into_iter().enumerate() {
        for (bucket, n_out) in OUTPUTS.into_iter().enumerate() {
            if began.elapsed() > DEADLINE {
                return Ok(tuning);
            }
            let mut reference = CpuEngine::reference();
            let oracle = product(&mut reference, n_out, n_rows, 1)?;
            let expected = reference.run(&oracle)?;
            let step = product(&mut engine, n_out, n_rows, 1)?;
            let several = product(&mut engine, n_out, n_rows, 8)?;
            let mut first: Option<Vec<f32>> = None;
            let mut fastest = Duration::MAX;
            for lanes in candidates() {
                if began.elapsed() > DEADLINE {
                    break;
                }
                engine.facts.tuning = Tuning::all(lanes);
                let found = engine.run(&step)?;
                let same = first
                    .get_or_insert_with(|| found.clone())
                    .iter()
                    .zip(&found)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                // The values are exact in both arithmetics but for the rounding of sums of some 500.
                let right = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs().max(1.0));
                if !same || !right {
                    continue;
                }
                let (start, mut n_runs) = (Instant::now(), 0);
                while start.elapsed() < MEASURE_FOR {
                    engine.run(&several)?;
                    n_runs += 1;
                }
                let time = start.elapsed() / n_runs;
                if time < fastest {
                    fastest = time;
                    tuning.0[index][bucket] = lanes;
                }
            }
        }
    }
    Ok(tuning)
}

/// So many products with a matrix of 4 bits. The activations are whole multiples of 1/127 of the largest, so that 8 bits hold them.
fn product(engine: &mut dyn Engine, n_out: usize, n_rows: usize, times: usize) -> Result<Recording, EngineError> {
    let n_bytes = WeightType::Q4_1.matrix_bytes(n_out, INPUTS).unwrap_or_default();
    // Bytes from 0x11 to 0x1f: scales of 2^-10 or so.
    let ggml: Vec<u8> = (0..n_bytes).map(|i| 0x11 + (i * 7 % 15) as u8).collect();
    let weight = engine.load_matrix(WeightType::Q4_1, n_out, INPUTS, &ggml)?;
    let (x, out) = (engine.alloc(n_rows * INPUTS)?, engine.alloc(n_rows * n_out)?);
    let values = (0..n_rows * INPUTS).map(|i| if i % 32 == 0 { 127.0 } else { (i * 37 % 255) as f32 - 127.0 });
    let mut recording = Recording::default();
    recording.upload(x, 0, values.map(|value| value / 128.0).collect());
    for _ in 0..times {
        recording.push(Matmul { weight, x, first_row: 0, n_rows, bias: None, residual: None, out });
    }
    recording.readback(out, 0..n_rows * n_out);
    Ok(recording)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_does_not() {
        let mut tuning = Tuning::all(Lanes { n_rows: 2, workgroup: 64 });
        tuning.0[1][0] = Lanes { n_rows: 4, workgroup: 32 };
        assert_eq!(Tuning::from_bytes(&tuning.to_bytes()), Some(tuning));
        let mut bytes = tuning.to_bytes();
        bytes[0] = 3;
        assert_eq!(Tuning::from_bytes(&bytes), None);
        assert_eq!(Tuning::from_bytes(&bytes[1..]), None);
    }
}
