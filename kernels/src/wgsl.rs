//! WGSL sources: which files make up a kernel, and its variants. Compiled into the crate and into its build script, which validates every variant.
//!
//! A kernel is its file after the parts it calls. Two rules make variants of one text, line for line:
//! - a line that ends in `//? NAME` is only in variants in which NAME is on;
//! - a line that holds `$t` is repeated for every token of the variant, one that holds `$r` for every row of a lane, one that holds
//!   `$p` for every pair of such rows (`$e` and `$o` are its even and its odd row); the number stands for the mark.

/// A kernel and the switches of its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    Activate,
    Attention,
    EmbedRows {
        weights: Weights,
    },
    GateUp(Product),
    KvWrite,
    LayerNorm,
    Matmul(Product),
    QuantiseRows,
    RmsNorm {
        /// Whether the rows are stored as activations of 8 bits, too.
        quantised: bool,
    },
    Rope,
    RopeKvWrite,
    RoundRows {
        /// To 8 bits rather than f16.
        q8: bool,
    },
    SiluMul,
}

/// The switches of a matrix's product with rows of activations. Within one arithmetic all of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub weights: Weights,
    /// Activations of 8 bits instead of f32.
    pub int8: bool,
    /// Whether one multiplication of integers does for two rows of a lane, where the device has none of four bytes at once.
    pub pairs: bool,
    /// Rows of activations, 1 or 4.
    pub n_tokens: u32,
    pub lanes: Lanes,
}

/// How the rows of a matrix are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lanes {
    /// Rows of the matrix that one lane takes: 1, 2 or 4.
    pub n_rows: u32,
    /// Lanes of a workgroup.
    pub workgroup: u32,
}

/// How a kernel gets its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    /// GGML's name of the type.
    pub weight_type: &'static str,
    pub source: WeightSource,
}

/// What weights are read from. Software drivers read images many times faster; the sums are the same, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightSource {
    /// A read-only `texture_storage_2d<rgba32uint>`: a texture without the levels of detail that software drivers look up for each texel.
    Image,
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
const QUANTISE: File = file!("parts/quantise.wgsl");
const PRODUCTS: File = file!("parts/products.wgsl");

/// The unpacking of each weight type, by GGML's name.
pub const WEIGHT_TYPES: [(&str, File); 5] = [
    ("f32", file!("weights/f32.wgsl")),
    ("f16", file!("weights/f16.wgsl")),
    ("q4_0", file!("weights/q4_0.wgsl")),
    ("q4_1", file!("weights/q4_1.wgsl")),
    ("q8_0", file!("weights/q8_0.wgsl")),
];

impl Variant {
    /// Every variant there is, in one size of workgroup.
    #[allow(dead_code, reason = "the build script's list")]
    pub fn all() -> Vec<Variant> {
        use Variant::*;
        let norms = [true, false].map(|quantised| RmsNorm { quantised });
        let mut all = vec![Activate, Attention, KvWrite, LayerNorm, QuantiseRows, Rope, RopeKvWrite, SiluMul];
        all.extend(norms);
        all.extend([true, false].map(|q8| RoundRows { q8 }));
        for (weight_type, _) in WEIGHT_TYPES {
            for source in [WeightSource::Image, WeightSource::Texture, WeightSource::Storage] {
                let weights = Weights { weight_type, source };
                all.push(EmbedRows { weights });
                for (int8, pairs) in [(false, false), (true, false), (true, true)] {
                    for (n_tokens, n_rows) in [(1, 1), (1, 2), (1, 4), (4, 1), (4, 2), (4, 4)] {
                        let may_be = (!int8 || weights.may_be_int8()) && (!pairs || weights.may_be_paired(n_rows));
                        if !may_be {
                            continue;
                        }
                        let product =
                            Product { weights, int8, pairs, n_tokens, lanes: Lanes { n_rows, workgroup: 64 } };
                        all.push(Matmul(product));
                        if n_rows > 1 {
                            all.push(GateUp(product));
                        }
                    }
                }
            }
        }
        all
    }

    /// The pieces of the source, in order. `workgroup` is the size of the workgroups that share nothing, products' aside.
    pub fn pieces(self, workgroup: u32) -> Vec<Piece> {
        let mut files = vec![];
        let mut form = Form { workgroup, n_tokens: 1, n_rows: 1, switches: vec![] };
        match self {
            Variant::Activate => files.extend([EXPONENTIAL, file!("activate.wgsl")]),
            Variant::Attention => files.extend([EXPONENTIAL, file!("attention.wgsl")]),
            Variant::EmbedRows { weights } => {
                files.extend(weights.files());
                files.push(file!("embed_rows.wgsl"));
            }
            Variant::GateUp(product) => {
                form = product.form();
                files.extend(product.weights.files());
                files.extend([EXPONENTIAL, file!("gate_up.wgsl"), PRODUCTS]);
            }
            Variant::KvWrite => files.push(file!("kv_write.wgsl")),
            Variant::LayerNorm => files.push(file!("layer_norm.wgsl")),
            Variant::Matmul(product) => {
                form = product.form();
                files.extend(product.weights.files());
                files.extend([file!("matmul.wgsl"), PRODUCTS]);
            }
            Variant::QuantiseRows => files.extend([QUANTISE, file!("quantise_rows.wgsl")]),
            Variant::RmsNorm { quantised } => {
                if quantised {
                    form.switches.push("quantised");
                    files.push(QUANTISE);
                }
                files.push(file!("rms_norm.wgsl"));
            }
            Variant::Rope => files.push(file!("rope.wgsl")),
            Variant::RopeKvWrite => files.push(file!("rope_kv_write.wgsl")),
            Variant::RoundRows { q8 } => {
                files.push(if q8 { file!("parts/round_q8.wgsl") } else { file!("parts/round_f16.wgsl") });
                files.push(file!("round_rows.wgsl"));
            }
            Variant::SiluMul => files.extend([EXPONENTIAL, file!("silu_mul.wgsl")]),
        }
        let sizes =
            format!("const WORKGROUP: u32 = {}u;\nconst ROWS_A_LANE: u32 = {}u;\n", form.workgroup, form.n_rows);
        let sizes = Piece { file: "sizes", text: sizes };
        let files = files.into_iter().map(|(file, text)| Piece { file, text: form.apply(text) });
        std::iter::once(sizes).chain(files).collect()
    }

    /// The whole source.
    #[allow(dead_code, reason = "the build script joins the pieces itself, to name the file of an error")]
    pub fn source(self, workgroup: u32) -> String {
        self.pieces(workgroup).into_iter().map(|piece| piece.text).collect()
    }
}

impl Product {
    fn form(self) -> Form {
        let Lanes { n_rows, workgroup } = self.lanes;
        let switches = match (self.int8, self.pairs) {
            (true, true) => vec!["int8", "pairs"],
            (true, false) => vec!["int8", "dots"],
            (false, _) => vec!["f32"],
        };
        Form { workgroup, n_tokens: self.n_tokens, n_rows, switches }
    }
}

impl Weights {
    /// Whether the type is multiplied with activations of 8 bits: where values have more bits, there is nothing to gain.
    pub fn may_be_int8(self) -> bool {
        self.weight_type.starts_with('q')
    }

    /// Whether two rows of a lane's can share a multiplication: sums of products of 4 bits and 8 leave room for it.
    pub fn may_be_paired(self, n_rows: u32) -> bool {
        self.weight_type.starts_with("q4") && n_rows > 1
    }

    fn files(self) -> Vec<File> {
        let source = match self.source {
            WeightSource::Image => file!("parts/image.wgsl"),
            WeightSource::Texture => file!("parts/texture.wgsl"),
            WeightSource::Storage => file!("parts/storage.wgsl"),
        };
        let unpacking = WEIGHT_TYPES.into_iter().find(|(name, _)| *name == self.weight_type);
        [source, GROUPS].into_iter().chain(unpacking.map(|(_, file)| file)).collect()
    }
}

/// What a text is made into.
struct Form {
    workgroup: u32,
    n_tokens: u32,
    n_rows: u32,
    switches: Vec<&'static str>,
}

impl Form {
    /// Empties the lines of switches that are off and repeats those that hold marks; the count of lines stays.
    fn apply(&self, text: &str) -> String {
        let mut applied = String::with_capacity(text.len());
        for line in text.lines() {
            let (code, switch) = line.split_once("//? ").unwrap_or((line, ""));
            let kept = switch.is_empty() || self.switches.contains(&switch.trim());
            if kept && !code.contains('$') {
                applied.push_str(code);
            } else if kept && !code.trim_start().starts_with("//") {
                applied.push_str(&self.repeat(code));
            }
            applied.push('\n');
        }
        applied
    }

    fn repeat(&self, line: &str) -> String {
        let count = |mark: &str, n: u32| if line.contains(mark) { n } else { 1 };
        let of_pairs = ["$p", "$e", "$o"].iter().any(|mark| line.contains(mark));
        let pairs = if of_pairs { self.n_rows / 2 } else { 1 };
        let mut repeated = String::new();
        for token in 0..count("$t", self.n_tokens) {
            for row in 0..count("$r", self.n_rows) {
                for pair in 0..pairs {
                    let number = |line: String, mark: &str, n: u32| line.replace(mark, &n.to_string());
                    let line = number(number(line.to_string(), "$t", token), "$r", row);
                    repeated.push_str(&number(number(number(line, "$p", pair), "$e", 2 * pair), "$o", 2 * pair + 1));
                    repeated.push(' ');
                }
            }
        }
        repeated
    }
}
