//! Quirks: devices of which others have told that they compute wrongly or are lost. Such a one is asked for known answers more often; what it
//! answers decides, not its name.
//!
//! What could be avoided for all of them is: workgroups are of one dimension, no lane leaves before a barrier, arrays have literal sizes, and
//! there are no atomics in a workgroup's memory.

/// What was told of a device.
#[derive(Debug)]
pub struct Quirk {
    /// A part of its name, in lower case, which no digit follows.
    device: &'static str,
    pub what: &'static str,
    /// Where it was told: a repository and the number of an issue.
    pub source: &'static str,
}

const fn quirk(device: &'static str, what: &'static str, source: &'static str) -> Quirk {
    Quirk { device, what, source }
}

const QUIRKS: [Quirk; 9] = [
    quirk("adreno (tm) 840", "a fourth of all runs wrong with near-square workgroups", "pytorch/executorch#22327"),
    quirk("adreno (tm) 750", "lost with large batches", "ggml-org/llama.cpp#8743"),
    quirk("adreno (tm) 740", "a kernel compiled wrongly", "ggml-org/llama.cpp#5186"),
    quirk("adreno (tm) 732", "gibberish, and lost with batches over 32", "ggml-org/llama.cpp#16881"),
    quirk("adreno (tm) 702", "wrong products by Mesa's driver", "ggml-org/llama.cpp#25906"),
    quirk("mali-g720", "inexact results", "Tencent/ncnn#6818"),
    quirk("mali-g78", "hangs in a fence until it is lost", "ggml-org/llama.cpp#5186"),
    quirk("mali-g52", "lost under load", "Tencent/ncnn#3112"),
    quirk("mali", "atomics in a workgroup's memory lost", "gfx-rs/wgpu#8643"),
];

/// What was told of the device of this name.
pub fn of(device: &str) -> impl Iterator<Item = &'static Quirk> {
    let device = device.to_lowercase();
    QUIRKS.iter().filter(move |quirk| {
        device
            .match_indices(quirk.device)
            .any(|(at, _)| !device[at + quirk.device.len()..].starts_with(|next: char| next.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_device_is_known_by_its_whole_number() {
        let told = |device: &str| of(device).map(|quirk| quirk.source).collect::<Vec<_>>();
        assert_eq!(
            told("vulkan Adreno (TM) 840 (Qualcomm Technologies Inc. Adreno Vulkan Driver)"),
            ["pytorch/executorch#22327"]
        );
        assert_eq!(told("Mali-G720 MC8"), ["Tencent/ncnn#6818", "gfx-rs/wgpu#8643"]);
        assert_eq!(told("Mali-G725"), ["gfx-rs/wgpu#8643"]);
        assert!(told("llvmpipe (LLVM 15.0.6, 256 bits)").is_empty());
    }
}
