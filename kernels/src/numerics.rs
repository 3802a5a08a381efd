//! Numerics: the names of arithmetics, each with its revision. Says which results are the same to the bit; computes none.

use std::fmt;

/// What decides the bits of results. On a GPU its device and driver do, too: their words come after the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    CpuF32,
    CpuInt8,
    VulkanF32,
    VulkanInt8,
}

// === impl Numerics ===

impl Numerics {
    pub const ALL: [Self; 4] = [Self::CpuF32, Self::CpuInt8, Self::VulkanF32, Self::VulkanInt8];

    /// Raised by whoever changes a bit of what comes out: in a kernel, in the order of a layer's ops, or in the rounding between
    /// layers or of what a KV cache keeps, both of which are in every class: a class is `NAME/hidden states/kv-TYPE`. Phones of two revisions make no ring, and no session takes its KV cache from one into the
    /// other. `node-agent/tests/it/numerics.rs` holds what each gives.
    pub const fn revision(self) -> u32 {
        match self {
            Self::CpuF32 => 1,
            Self::CpuInt8 => 2,
            Self::VulkanF32 => 3,
            Self::VulkanInt8 => 4,
        }
    }

    const fn arithmetic(self) -> &'static str {
        match self {
            Self::CpuF32 => "cpu-f32",
            Self::CpuInt8 => "cpu-int8",
            Self::VulkanF32 => "vulkan-f32",
            Self::VulkanInt8 => "vulkan-int8",
        }
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-r{}", self.arithmetic(), self.revision())
    }
}

#[cfg(test)]
mod tests {
    use super::Numerics;

    #[test]
    fn a_name_says_the_revision_and_is_of_one_class_alone() {
        let names = Numerics::ALL.map(|numerics| numerics.to_string());
        assert_eq!(names[0], format!("cpu-f32-r{}", Numerics::CpuF32.revision()));
        for (at, name) in names.iter().enumerate() {
            // A class is `NAME/hidden states/kv-TYPE`: the slash is its own.
            assert!(!name.contains('/') && !names[at + 1..].contains(name), "{name}");
        }
    }
}
