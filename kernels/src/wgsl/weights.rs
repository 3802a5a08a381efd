//! Weights: what a kernel that reads some is made of by their packing: files, switches, and what is generated. Compiled into the crate and into its build script.

use super::{File, GROUPS, WeightSource, Weights};
use crate::packing::{Codes, Packing, Plane, Scales};

impl Weights {
    /// Whether they are multiplied with activations of 8 bits.
    pub fn may_be_int8(self) -> bool {
        self.packing.quantised().is_some()
    }

    /// Whether two rows of a lane's can share a multiplication: sums of products of 4 bits and 8 leave room for it.
    pub fn may_be_paired(self, n_rows: u32) -> bool {
        matches!(self.packing, Packing::Quantised(Codes::Bits { bits: 4, .. }, _)) && n_rows > 1
    }

    pub(super) fn files(self) -> Vec<File> {
        let source = match self.source {
            WeightSource::Image => file!("parts/image.wgsl"),
            WeightSource::Storage => file!("parts/storage.wgsl"),
        };
        let mut files = vec![source, GROUPS];
        match self.packing {
            Packing::F32 => files.push(file!("codes/floats_32.wgsl")),
            Packing::F16 | Packing::Bf16 => files.push(file!("codes/floats_16.wgsl")),
            Packing::Quantised(_, scales) => files.extend([
                match scales {
                    Scales::Half => file!("scales/half.wgsl"),
                    Scales::HalfMinimum => file!("scales/half_minimum.wgsl"),
                    Scales::Exponent => file!("scales/exponent.wgsl"),
                    Scales::Bytes16 => file!("scales/bytes_16.wgsl"),
                    Scales::Bytes32 => file!("scales/bytes_32.wgsl"),
                    Scales::Six16 => file!("scales/six_16.wgsl"),
                    Scales::BytesMinimum32 => file!("scales/bytes_minimum_32.wgsl"),
                    Scales::NibblesMinimum16 => file!("scales/nibbles_minimum_16.wgsl"),
                },
                file!("codes/bits.wgsl"),
            ]),
        }
        files
    }

    /// The switches of `codes/`.
    pub(super) fn switches(self) -> Vec<&'static str> {
        let (codes, scales) = match self.packing {
            Packing::F32 => return vec![],
            Packing::F16 => return vec!["f16"],
            Packing::Bf16 => return vec!["bf16"],
            Packing::Quantised(codes, scales) => (codes, scales),
        };
        let mut switches = vec![if scales.has_minimum() { "minimum" } else { "no minimum" }];
        switches.extend(match codes {
            Codes::Bits { .. } => &["codes"][..],
            Codes::Bytes => &["bytes", "signed"],
            Codes::Table(_) => &["table", "signed"],
        });
        let (nibbles, pairs) = (codes.has_nibbles(), codes.has_pairs());
        switches.extend(nibbles.then_some("nibbles"));
        switches.extend(pairs.then_some("pairs"));
        switches.extend(pairs.then_some(if nibbles { "pairs over nibbles" } else { "pairs alone" }));
        switches.extend(codes.has_ones().then_some("ones"));
        switches
    }

    /// What `codes/` and `scales/` know of the packing: its numbers, and the word that each plane begins with.
    pub(super) fn generated(self) -> String {
        let Some((codes, _)) = self.packing.quantised() else { return String::new() };
        let table = match codes {
            Codes::Table(table) => table.integers().map(i8::cast_unsigned),
            Codes::Bits { .. } | Codes::Bytes => [0; 16],
        };
        let [x, y, z, w] = [0, 4, 8, 12].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| table[at + byte])));
        let mut text = format!(
            "const OFFSET: f32 = {}.0;\nconst LOWER_BITS: u32 = {}u;\nconst TABLE = vec4<u32>({x}u, {y}u, {z}u, {w}u);\n",
            codes.offset(),
            codes.lower_bits()
        );
        let mut before = "0u".to_string();
        for plane in Plane::ALL {
            let name = match plane {
                Plane::Values => "values",
                Plane::Nibbles => "nibbles",
                Plane::Pairs => "pairs",
                Plane::Ones => "ones",
                Plane::Factors => "factors",
                Plane::HighFactors => "high_factors",
                Plane::Scales => "scales",
            };
            text.push_str(&format!("fn {name}_at() -> u32 {{ return {before}; }}\n"));
            match self.packing.plane_bytes(plane) {
                0 => {}
                bytes => before.push_str(&format!(" + (params.n_groups * {bytes}u + 127u) / 128u")),
            }
        }
        text
    }
}
