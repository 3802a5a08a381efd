//! WGSL sources: which files make up a kernel, and its variants. Compiled into the crate and into its build script, which validates every variant.
//!
//! A kernel is its file after the parts it calls. A line that ends in `//? NAME` is only in variants in which NAME is on.

/// A kernel and the switches of its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    Attention,
    EmbedRows { weights: Weights },
    KvWrite,
    Matmul { weights: Weights, four_rows: bool },
    RmsNorm,
    Rope,
    RoundRows,
    SiluMul,
}

/// How a kernel gets its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    /// GGML's name of the type.
    pub weight_type: &'static str,
    pub source: WeightSource,
}

/// What weights are read from. Software drivers read textures many times faster; the sums are the same, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightSource {
    /// `texture_2d<u32>`, 16 bytes a texel.
    Texture,
    /// A storage buffer of `vec4<u32>`.
    Storage,
}

/// A piece of a kernel: a file's name and its text with the switches applied, line for line.
pub struct Piece {
    #[allow(dead_code, reason = "the build script names it in errors")]
    pub file: &'static str,
    pub text: String,
}

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../wgsl/", $name)))
    };
}

type File = (&'static str, &'static str);

const GROUPS: File = file!("parts/groups.wgsl");
const EXPONENTIAL: File = file!("parts/exponential.wgsl");

/// The unpacking of each weight type, by GGML's name.
pub const WEIGHT_TYPES: [(&str, File); 5] = [
    ("f32", file!("weights/f32.wgsl")),
    ("f16", file!("weights/f16.wgsl")),
    ("q4_0", file!("weights/q4_0.wgsl")),
    ("q4_1", file!("weights/q4_1.wgsl")),
    ("q8_0", file!("weights/q8_0.wgsl")),
];

impl Variant {
    /// Every variant there is.
    #[allow(dead_code, reason = "the build script's list")]
    pub fn all() -> Vec<Variant> {
        use Variant::*;
        let mut all = vec![Attention, KvWrite, RmsNorm, Rope, RoundRows, SiluMul];
        for (weight_type, _) in WEIGHT_TYPES {
            for source in [WeightSource::Texture, WeightSource::Storage] {
                let weights = Weights { weight_type, source };
                all.push(EmbedRows { weights });
                all.push(Matmul { weights, four_rows: false });
                all.push(Matmul { weights, four_rows: true });
            }
        }
        all
    }

    /// The pieces of the source, in order. `workgroup` is the size of the workgroups that share nothing.
    pub fn pieces(self, workgroup: u32) -> Vec<Piece> {
        let mut files = vec![];
        let mut switches = vec![];
        match self {
            Variant::Attention => files.extend([EXPONENTIAL, file!("attention.wgsl")]),
            Variant::EmbedRows { weights } => {
                files.extend(weights.files());
                files.push(file!("embed_rows.wgsl"));
            }
            Variant::KvWrite => files.push(file!("kv_write.wgsl")),
            Variant::Matmul { weights, four_rows } => {
                files.extend(weights.files());
                files.push(file!("matmul.wgsl"));
                switches.extend(four_rows.then_some("four_rows"));
            }
            Variant::RmsNorm => files.push(file!("rms_norm.wgsl")),
            Variant::Rope => files.push(file!("rope.wgsl")),
            Variant::RoundRows => files.push(file!("round_rows.wgsl")),
            Variant::SiluMul => files.extend([EXPONENTIAL, file!("silu_mul.wgsl")]),
        }
        let sizes = Piece { file: "sizes", text: format!("const WORKGROUP: u32 = {workgroup}u;\n") };
        let files = files.into_iter().map(|(file, text)| Piece { file, text: switched(text, &switches) });
        std::iter::once(sizes).chain(files).collect()
    }

    /// The whole source.
    #[allow(dead_code, reason = "the build script joins the pieces itself, to name the file of an error")]
    pub fn source(self, workgroup: u32) -> String {
        self.pieces(workgroup).into_iter().map(|piece| piece.text).collect()
    }
}

impl Weights {
    fn files(self) -> Vec<File> {
        let source = match self.source {
            WeightSource::Texture => file!("parts/texture.wgsl"),
            WeightSource::Storage => file!("parts/storage.wgsl"),
        };
        let unpacking = WEIGHT_TYPES.into_iter().find(|(name, _)| *name == self.weight_type);
        [source, GROUPS].into_iter().chain(unpacking.map(|(_, file)| file)).collect()
    }
}

/// Empties the lines of switches that are off; the count of lines stays.
fn switched(text: &str, on: &[&str]) -> String {
    let mut switched = String::with_capacity(text.len());
    for line in text.lines() {
        let kept = line.split_once("//? ").is_none_or(|(_, switch)| on.contains(&switch.trim()));
        if kept {
            switched.push_str(line);
        }
        switched.push('\n');
    }
    switched
}
