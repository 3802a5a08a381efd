//! Real models: every step of their golden data, for several cuts, backends and types of hidden states.

use std::path::PathBuf;

use polyphony_kernels::Backend;
use polyphony_protocol::ActivationType;

use crate::golden::{
    CPU, CPU_INT8, CPU_INT8_THREE, CPU_THREE, Compared, EXACT, LOSSY, Off, Ring, VULKAN, VULKAN_INT8, compare, golden,
    greedy, off, vulkan_is_here,
};

/// A model that set-up fetches, and its golden file.
pub struct RealModel {
    file: &'static str,
    pub golden: &'static str,
    f32: Off,
    /// Activations of 8 bits in the products.
    int8: Off,
}

pub const SMOLLM2: RealModel = RealModel {
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    golden: "smollm2-135m-instruct-q4_1.json",
    f32: off(1.07e-4, 3.6e-5),
    int8: off(0.962, 0.122),
};
/// Its types are Q4_K, Q5_0, Q6_K and Q8_0.
const GEMMA3: RealModel = RealModel {
    file: "gemma-3-270m-q4_k_m.gguf",
    golden: "gemma3-270m-q4_k_m.json",
    f32: off(1.18e-4, 3.9e-5),
    int8: off(0.471, 0.0883),
};
pub const MODELS: [RealModel; 2] = [SMOLLM2, GEMMA3];

/// Hidden states of less than 32 bits after every layer, of SmolLM2.
const F16: Off = off(0.0373, 0.0045);
const Q8: Off = off(1.04, 0.214);

/// Software Vulkan is slow: the first steps of each case tell right from wrong.
const FIRST_STEPS: usize = 4;

impl RealModel {
    /// Where it is; none where it is missing, which is said aloud.
    pub fn path(&self) -> Option<PathBuf> {
        let cache = std::env::var_os("POLYPHONY_CACHE").map(PathBuf::from).or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
                .map(|base| base.join("polyphony"))
        })?;
        let path = cache.join("models").join(self.file);
        if !path.exists() {
            polyphony_skip::skipped(format_args!("{} is not there; `make setup-tests` fetches it", path.display()));
            return None;
        }
        Some(path)
    }

    fn compare(
        &self,
        cuts: &[u32],
        backend: Backend,
        activation_type: ActivationType,
        allowed: Off,
        steps: usize,
    ) -> Option<Compared> {
        let mut ring = Ring::load(&self.path()?, cuts, backend, activation_type);
        println!("{}, cut at {cuts:?}", self.golden);
        Some(compare(&mut ring, &golden(self.golden), allowed, steps))
    }
}

#[test]
fn smollm2_gives_its_golden_logits_on_the_cpu() {
    for cuts in [&[][..], &[11], &[9, 20]] {
        SMOLLM2.compare(cuts, CPU, ActivationType::F32, SMOLLM2.f32.times(EXACT), usize::MAX);
    }
}

#[test]
fn gemma3_gives_its_golden_logits_on_the_cpu() {
    for cuts in [&[][..], &[5, 11]] {
        GEMMA3.compare(cuts, CPU, ActivationType::F32, GEMMA3.f32.times(EXACT), usize::MAX);
    }
}

#[test]
fn real_models_give_their_golden_logits_on_vulkan() {
    if vulkan_is_here() {
        for model in MODELS {
            model.compare(&[9], VULKAN, ActivationType::F32, model.f32.times(EXACT), FIRST_STEPS);
        }
    }
}

#[test]
fn smollm2_is_as_near_as_measured_with_f16_on_the_wire() {
    SMOLLM2.compare(&[13], CPU, ActivationType::F16, F16.times(LOSSY), usize::MAX);
}

#[test]
fn smollm2_is_as_near_as_measured_with_q8_on_the_wire() {
    let compared = SMOLLM2.compare(&[13], CPU, ActivationType::Q8, Q8.times(LOSSY), usize::MAX);
    // Measured: 94 of 96.
    assert!(compared.is_none_or(|compared| compared.same >= 0.97));
}

#[test]
fn real_models_are_as_near_as_measured_with_8_bits_on_the_cpu() {
    for model in MODELS {
        let compared = model.compare(&[9], CPU_INT8, ActivationType::F32, model.int8.times(LOSSY), usize::MAX);
        assert!(compared.is_none_or(|compared| compared.sure_same >= 0.97), "{}", model.golden);
    }
}

#[test]
fn real_models_are_as_near_as_measured_with_8_bits_on_vulkan() {
    if vulkan_is_here() {
        for model in MODELS {
            model.compare(&[9], VULKAN_INT8, ActivationType::F32, model.int8.times(LOSSY), FIRST_STEPS);
        }
    }
}

#[test]
fn smollm2_says_the_same_64_tokens_however_it_is_cut() {
    let Some(path) = SMOLLM2.path() else { return };
    let prompt = &golden(SMOLLM2.golden).cases[0].prompt_ids;
    for (one, three) in [(CPU, CPU_THREE), (CPU_INT8, CPU_INT8_THREE)] {
        let whole = greedy(&mut Ring::load(&path, &[], one, ActivationType::F16), prompt, 16, 64);
        for (cuts, chunk, backend) in [(&[7][..], 16, one), (&[4, 23], 3, three)] {
            let found = greedy(&mut Ring::load(&path, cuts, backend, ActivationType::F16), prompt, chunk, 64);
            assert_eq!(found, whole, "{cuts:?}, {backend:?}");
        }
    }
}
