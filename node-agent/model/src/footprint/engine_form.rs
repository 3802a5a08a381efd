//! Engine forms: what weights and buffers become in an engine, as far as bytes go. The engines' own layouts, held to them by a test of who
//! has both.

use crate::manifest::TensorEntry;
use crate::role::Role;
use crate::tensor_type::TensorType;

/// How engines of a numerics class keep what they are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineForm {
    CpuF32,
    CpuInt8,
    VulkanF32,
    VulkanInt8,
    /// A processor's and a GPU's, each of which holds all.
    MixedF32,
    MixedInt8,
}

/// Columns of a group, which rows of matrices are filled up to.
pub(super) const GROUP: u64 = 32;
/// Values of which a type's planes are told.
const SUPER: u64 = 256;
/// Rows of a matrix whose words take turns on a processor that multiplies 8 bits.
const STRIP: u64 = 8;
/// What every buffer of a GPU has besides, so that a window may start at its last value.
const WINDOW_BYTES: u64 = 16 << 10;

// === impl EngineForm ===

impl EngineForm {
    pub const ALL: [Self; 6] =
        [Self::CpuF32, Self::CpuInt8, Self::VulkanF32, Self::VulkanInt8, Self::MixedF32, Self::MixedInt8];

    /// That of a numerics class, or of its first part, such as `cpu-int8-r2`; of one that is not known here, one of those that take most.
    pub fn of(numerics: &str) -> Self {
        let mut words = numerics.split('-');
        match (words.next(), words.next()) {
            (Some("cpu"), Some("f32")) => Self::CpuF32,
            (Some("cpu"), Some("int8")) => Self::CpuInt8,
            (Some("vulkan"), Some("f32")) => Self::VulkanF32,
            (Some("vulkan"), Some("int8")) => Self::VulkanInt8,
            (_, Some("f32")) => Self::MixedF32,
            _ => Self::MixedInt8,
        }
    }

    /// The engines that there are of it; what the rest of this says is of one of these.
    pub(super) fn engines(self) -> &'static [Self] {
        match self {
            Self::CpuF32 => &[Self::CpuF32],
            Self::CpuInt8 => &[Self::CpuInt8],
            Self::VulkanF32 => &[Self::VulkanF32],
            Self::VulkanInt8 => &[Self::VulkanInt8],
            Self::MixedF32 => &[Self::CpuF32, Self::VulkanF32],
            Self::MixedInt8 => &[Self::CpuInt8, Self::VulkanInt8],
        }
    }

    pub(super) fn is_gpu(self) -> bool {
        matches!(self, Self::VulkanF32 | Self::VulkanInt8)
    }

    pub(super) fn is_int8(self) -> bool {
        matches!(self, Self::CpuInt8 | Self::VulkanInt8)
    }

    /// Bytes of a matrix; `None` of a type that no kernel reads.
    pub fn matrix_bytes(self, tensor_type: TensorType, n_rows: u64, n_cols: u64) -> Option<u64> {
        let word = if self.is_gpu() { 16 } else { 4 };
        let n_groups = n_cols.div_ceil(GROUP);
        let plane = |bytes: &u64| bytes.saturating_mul(n_groups).div_ceil(SUPER / GROUP).next_multiple_of(word);
        let row_bytes: u64 = planes(tensor_type)?.iter().map(plane).sum();
        let in_strips = self == Self::CpuInt8 && is_quantised(tensor_type);
        let n_rows = if in_strips { n_rows.next_multiple_of(STRIP) } else { n_rows };
        Some(row_bytes.saturating_mul(n_rows))
    }

    /// Bytes of a buffer of so many f32.
    pub(super) fn buffer_bytes(self, n_values: u64) -> u64 {
        let bytes = n_values.saturating_mul(4);
        if self.is_gpu() { (bytes.saturating_add(15) / 16 * 16).saturating_add(WINDOW_BYTES) } else { bytes }
    }

    /// Bytes of 32 activations as a matrix is multiplied with them on a GPU: of 8 bits with what scales them, or f32.
    pub(super) fn group_bytes(self, of_bytes: bool) -> u64 {
        if of_bytes { 48 } else { 4 * GROUP }
    }

    /// Bytes of what is made of so many rows of activations before a GPU multiplies them, of 8 bits or filled up to whole groups.
    pub(super) fn made_bytes(self, n_rows: u64, width: u64, of_bytes: bool) -> u64 {
        let groups = n_rows.saturating_mul(width.div_ceil(GROUP));
        groups.saturating_mul(self.group_bytes(of_bytes)).saturating_add(WINDOW_BYTES)
    }

    /// Bytes of a tensor. One whose shape does not make its bytes is taken as it is; a table becomes another vector, which is counted apart.
    pub(super) fn tensor_bytes(self, tensor: &TensorEntry) -> u64 {
        if tensor.role.is_table() {
            return 0;
        }
        if tensor.role.is_vector() {
            // Biases of matrices that may be joined lie there joined, too.
            let n_copies = if matches!(tensor.role, Role::QueryBias | Role::KeyBias | Role::ValueBias) { 2 } else { 1 };
            return n_copies * tensor.n_bytes;
        }
        let Some((&n_cols, rows)) = tensor.shape.split_first().filter(|(_, rows)| !rows.is_empty()) else {
            return tensor.n_bytes;
        };
        if tensor.tensor_type.bytes(&tensor.shape) != Some(tensor.n_bytes) {
            return tensor.n_bytes;
        }
        self.matrix_bytes(tensor.tensor_type, rows.iter().product(), n_cols).unwrap_or(tensor.n_bytes)
    }
}

/// Whether a type's values are codes with scales.
pub(super) fn is_quantised(tensor_type: TensorType) -> bool {
    !matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::Bf16)
}

/// Bytes of each plane of 256 values, as `packing.rs` of the kernels lays them out.
fn planes(tensor_type: TensorType) -> Option<&'static [u64]> {
    use TensorType::*;
    Some(match tensor_type {
        F32 => &[1024],
        F16 | Bf16 => &[512],
        Q4_0 | Iq4Nl => &[128, 16],
        Q4_1 => &[128, 32],
        Q5_0 => &[128, 32, 16],
        Q5_1 => &[128, 32, 32],
        Q8_0 => &[256, 16],
        Q2K => &[64, 16, 4],
        Q3K => &[64, 32, 8, 4, 2],
        Q4K => &[128, 16, 4],
        Q5K => &[128, 32, 16, 4],
        Q6K => &[128, 64, 16, 2],
        Iq4Xs => &[128, 8, 2],
        Mxfp4 => &[128, 8],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_tells_the_form_and_one_that_is_not_known_takes_most() {
        let table = [
            ("cpu-f32-r1/f16/kv-f16", EngineForm::CpuF32),
            ("cpu-int8-r2", EngineForm::CpuInt8),
            ("vulkan-f32-r1-llvmpipe", EngineForm::VulkanF32),
            ("vulkan-int8-r2-adreno/f16/kv-f32", EngineForm::VulkanInt8),
            ("mixed-f32-r1", EngineForm::MixedF32),
            ("mixed-int8-r2/f16/kv-f16", EngineForm::MixedInt8),
            ("", EngineForm::MixedInt8),
        ];
        for (numerics, form) in table {
            assert_eq!(EngineForm::of(numerics), form, "{numerics}");
        }
    }

    #[test]
    fn every_type_that_is_computed_has_its_planes() {
        for tensor_type in TensorType::computed() {
            let (values, bytes) = (u64::from(tensor_type.block_values()), u64::from(tensor_type.block_bytes()));
            let planes: u64 = planes(tensor_type).into_iter().flatten().sum();
            let file = bytes * (SUPER / values);
            assert!(planes >= file && planes * 100 <= file * 103, "{tensor_type}: {planes} bytes of {file}");
        }
    }
}
