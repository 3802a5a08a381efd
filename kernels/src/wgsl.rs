//! WGSL sources: which files make up a kernel, and its variants. Compiled into the crate and into its build script, which validates every variant.
//!
//! A kernel is its file after the parts it calls. Two rules make variants of one text, line for line:
//! - a line that ends in `//? NAME` is only in variants in which NAME is on;
//! - a line that holds `$t` is repeated for every token of the variant, one that holds `$r` for every row of a lane, one that holds
//!   `$p` for every pair of such rows (`$e` and `$o` are its even and its odd row), one that holds `$w` for every window on activations;
//!   the number stands for the mark. Beside `$t` the mark `$w` is the token's window: there are four at most.

use crate::kv_type::KvType;
use crate::packing::Packing;
use crate::weight_type::WeightType;

// By its path, which is the same for the build script.
#[path = "wgsl/form.rs"]
mod form;

use form::Form;

/// A kernel and the switches of its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    Plain(Text),
    Attention(Queries),
    EmbedRows {
        weights: Weights,
    },
    ExpertMatmul(Product),
    GateUp(Product),
    KvWrite {
        kv_type: KvType,
    },
    Matmul(Product),
    RmsNorm {
        /// Whether the rows are stored as activations of 8 bits, too.
        quantised: bool,
    },
    RopeKvWrite {
        kv_type: KvType,
    },
    RoundRows {
        /// To 8 bits rather than f16.
        q8: bool,
    },
}

/// The switches of attention. All of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queries {
    pub kv_type: KvType,
    /// Heads of a row that a workgroup takes, 1 to 4: those that share a key head.
    pub n_heads: u32,
    /// Rows that it takes, 1, 2 or 4.
    pub n_rows: u32,
    pub heads: Heads,
    /// Whether a workgroup takes one part of the positions, which is 256 of them, and leaves what comes of it to another kernel.
    pub is_split: bool,
}

/// Positions whose shares are one sum, before it is added to those of earlier parts: no split of the positions changes a bit.
pub const PART: usize = 256;

/// How the values of a head are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heads {
    /// Of any size.
    Singles,
    /// Of whole fours of values, a lane one of these.
    Quads,
    /// The same, where the processor plays the GPU: queries are looked at by windows, and a lane has four fours, since each value that
    /// it reads from a storage buffer costs as much as ten products.
    WindowedQuads,
}

/// The switches of a matrix's product with rows of activations. Within one arithmetic all of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub weights: Weights,
    /// Activations of 8 bits instead of f32.
    pub int8: bool,
    /// Whether one multiplication of integers does for two rows of a lane, where the device has none of four bytes at once.
    pub pairs: bool,
    /// Rows of activations, 1, 4 or 8.
    pub n_tokens: u32,
    pub lanes: Lanes,
}

/// How the rows of a matrix and their columns are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lanes {
    /// Rows of the matrix that one lane takes: 1, 2 or 4.
    pub n_rows: u32,
    /// Lanes of a workgroup.
    pub workgroup: u32,
    /// Lanes that share the columns of a row, 1, 2, 4 or 8: each takes whole blocks of 256 columns, and one adds what comes of them.
    pub n_splits: u32,
}

/// Windows on rows of activations that a kernel has at most: devices have eight uniforms whose place may change. Of more rows two share one.
pub const WINDOWS: u32 = 4;

/// Groups of 32 columns whose terms are one sum, before it is added to those of earlier blocks: no split of the columns changes a bit.
pub const BLOCK: usize = 8;

/// How a kernel gets its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    pub packing: Packing,
    pub source: WeightSource,
}

/// What weights are read from. Software drivers read images many times faster; the sums are the same, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightSource {
    /// A read-only `texture_storage_2d<rgba32uint>`, 16 bytes a texel: without the levels of detail that software drivers look up for each of
    /// another texture.
    Image,
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
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/wgsl/", $name)))
    };
}

// After what it reads files with.
#[path = "wgsl/weights.rs"]
mod weights;

type File = (&'static str, &'static str);

const GROUPS: File = file!("parts/groups.wgsl");
const EIGHT_BITS: File = file!("parts/eight_bits.wgsl");
const EXPONENTIAL: File = file!("parts/exponential.wgsl");
const ACTIVATIONS: File = file!("parts/activations.wgsl");
const ADDED: File = file!("parts/added.wgsl");
const QUANTISE: File = file!("parts/quantise.wgsl");
const PRODUCTS: File = file!("parts/products.wgsl");

macro_rules! texts {
    ($($kernel:ident = [$($file:expr),+],)+) => {
        /// A kernel of one text, without switches.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Text {
            $($kernel,)+
        }

        impl Text {
            #[allow(dead_code, reason = "the build script's list")]
            const ALL: &[Self] = &[$(Self::$kernel),+];

            fn files(self) -> Vec<File> {
                match self {
                    $(Self::$kernel => vec![$($file),+],)+
                }
            }
        }
    };
}
texts! {
    Activate = [EXPONENTIAL, ACTIVATIONS, file!("activate.wgsl")],
    AddRows = [file!("add_rows.wgsl")],
    AttentionParts = [EXPONENTIAL, ADDED, file!("attention_parts.wgsl")],
    ConvWrite = [file!("conv_write.wgsl")],
    LayerNorm = [file!("layer_norm.wgsl")],
    MixRows = [file!("mix_rows.wgsl")],
    PadRows = [file!("pad_rows.wgsl")],
    QuantiseRows = [QUANTISE, file!("quantise_rows.wgsl")],
    Rope = [file!("rope.wgsl")],
    Route = [EXPONENTIAL, file!("route.wgsl")],
    ScaleRows = [EXPONENTIAL, file!("scale_rows.wgsl")],
    ShortConv = [file!("short_conv.wgsl")],
}

impl Variant {
    /// Every variant there is, in one size of workgroup.
    #[allow(dead_code, reason = "the build script's list")]
    pub fn all() -> Vec<Variant> {
        use Variant::*;
        let norms = [true, false].map(|quantised| RmsNorm { quantised });
        let mut all = Text::ALL.iter().copied().map(Plain).collect::<Vec<_>>();
        for kv_type in KvType::ALL {
            for heads in [Heads::Singles, Heads::Quads, Heads::WindowedQuads] {
                let rows = [1, Queries::rows_at_most(heads)];
                let shapes = rows.into_iter().flat_map(|n_rows| (1..=4).map(move |n_heads| (n_heads, n_rows)));
                for (n_heads, n_rows) in shapes {
                    let splits = if heads == Heads::WindowedQuads { &[false][..] } else { &[false, true] };
                    let queries = |is_split: &bool| Queries { kv_type, n_heads, n_rows, heads, is_split: *is_split };
                    all.extend(splits.iter().map(queries).map(Attention));
                }
            }
            all.extend([KvWrite { kv_type }, RopeKvWrite { kv_type }]);
        }
        all.extend(norms);
        all.extend([true, false].map(|q8| RoundRows { q8 }));
        let mut packings: Vec<Packing> = vec![];
        for packing in WeightType::ALL.map(WeightType::packing) {
            if !packings.contains(&packing) {
                packings.push(packing);
            }
        }
        for packing in packings {
            for source in [WeightSource::Image, WeightSource::Storage] {
                let weights = Weights { packing, source };
                all.push(EmbedRows { weights });
                for (int8, pairs) in [(false, false), (true, false), (true, true)] {
                    for (n_tokens, n_rows, n_splits) in products() {
                        let may_be = (!int8 || weights.may_be_int8()) && (!pairs || weights.may_be_paired(n_rows));
                        if !may_be {
                            continue;
                        }
                        let lanes = Lanes { n_rows, workgroup: 64, n_splits };
                        let product = Product { weights, int8, pairs, n_tokens, lanes };
                        all.push(Matmul(product));
                        if n_tokens == 1 {
                            all.push(ExpertMatmul(product));
                        }
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
        let (mut files, mut generated) = (vec![], String::new());
        let mut form = Form { workgroup, n_tokens: 1, n_rows: 1, n_splits: 1, switches: vec![] };
        match self {
            Variant::Plain(kernel) => files.extend(kernel.files()),
            Variant::Attention(queries) => {
                form = queries.form();
                let heads = match queries.heads {
                    Heads::Singles => file!("parts/singles.wgsl"),
                    Heads::Quads | Heads::WindowedQuads => file!("parts/quads.wgsl"),
                };
                files.extend([EXPONENTIAL, ADDED, heads, file!("attention.wgsl")]);
                generated = format!("const HEADS: u32 = {}u;\n", queries.n_heads);
            }
            Variant::EmbedRows { weights } => {
                form.switches = weights.switches();
                generated = weights.generated();
                files.extend(weights.files());
                files.push(file!("embed_rows.wgsl"));
            }
            Variant::ExpertMatmul(product) => {
                form = product.form("gathered");
                generated = product.weights.generated();
                files.extend(product.weights.files());
                files.extend([file!("expert_matmul.wgsl"), PRODUCTS]);
            }
            Variant::GateUp(product) => {
                form = product.form("dense");
                generated = product.weights.generated();
                files.extend(product.weights.files());
                files.extend([EXPONENTIAL, ACTIVATIONS, file!("gate_up.wgsl"), PRODUCTS]);
            }
            Variant::KvWrite { kv_type } => {
                files.extend(kept(kv_type));
                files.push(file!("kv_write.wgsl"));
            }
            Variant::Matmul(product) => {
                form = product.form("dense");
                generated = product.weights.generated();
                files.extend(product.weights.files());
                files.extend([file!("matmul.wgsl"), PRODUCTS]);
            }
            Variant::RmsNorm { quantised } => {
                if quantised {
                    form.switches.push("quantised");
                    files.push(QUANTISE);
                }
                files.push(file!("rms_norm.wgsl"));
            }
            Variant::RopeKvWrite { kv_type } => {
                files.extend(kept(kv_type));
                files.push(file!("rope_kv_write.wgsl"));
            }
            Variant::RoundRows { q8 } => {
                match q8 {
                    true => files.extend([EIGHT_BITS, file!("parts/round_q8.wgsl")]),
                    false => files.push(file!("parts/round_f16.wgsl")),
                }
                files.push(file!("round_rows.wgsl"));
            }
        }
        let Form { workgroup, n_tokens, n_rows, n_splits, .. } = form;
        let sizes = format!(
            "const WORKGROUP: u32 = {workgroup}u;\nconst TOKENS: u32 = {n_tokens}u;\nconst ROWS_A_LANE: u32 = {n_rows}u;\n\
             const SPLITS: u32 = {n_splits}u;\nconst WINDOWS: u32 = {WINDOWS}u;\nconst BLOCK: u32 = {BLOCK}u;\nconst PART: u32 = {PART}u;\n{generated}"
        );
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

/// Rows of activations, rows of the matrix and lanes a row: all that texts differ by. One split stands for all that are more than none.
#[allow(dead_code, reason = "the build script's list")]
fn products() -> impl Iterator<Item = (u32, u32, u32)> {
    let rows = [1, 4, 8].into_iter().flat_map(|n_tokens| [1, 2, 4].map(|n_rows| (n_tokens, n_rows)));
    rows.flat_map(|(n_tokens, n_rows)| [1, 8].map(|n_splits| (n_tokens, n_rows, n_splits)))
}

/// How a row of a cache is written in its type.
fn kept(kv_type: KvType) -> Vec<File> {
    match kv_type {
        KvType::F32 => vec![file!("parts/keep_f32.wgsl")],
        KvType::F16 => vec![file!("parts/keep_f16.wgsl")],
        KvType::Q8 => vec![EIGHT_BITS, file!("parts/keep_q8.wgsl")],
    }
}

/// How it is read.
fn switches(kv_type: KvType) -> Vec<&'static str> {
    match kv_type {
        KvType::F32 => vec!["kv f32"],
        KvType::F16 => vec!["kv f16", "kv words"],
        KvType::Q8 => vec!["kv q8", "kv words"],
    }
}

impl Lanes {
    /// Rows of the matrix that a workgroup takes.
    #[allow(dead_code, reason = "the build script cuts nothing")]
    pub fn rows_a_workgroup(self) -> u32 {
        self.workgroup / self.n_splits * self.n_rows
    }
}

impl Queries {
    /// Rows of a slot that a workgroup takes at once where there are several.
    pub fn rows_at_most(heads: Heads) -> u32 {
        match heads {
            Heads::Singles | Heads::Quads => 2,
            Heads::WindowedQuads => 4,
        }
    }

    /// What the text of `attention.wgsl` is made into: its tokens are queries, its rows of a lane fours of values.
    fn form(self) -> Form {
        let mut switches = switches(self.kv_type);
        let (of_queries, n_quads) = match self.heads {
            Heads::Singles | Heads::Quads => ("stored", 1),
            Heads::WindowedQuads => ("windows", 4),
        };
        switches.extend([of_queries, if self.n_rows > 1 { "rows" } else { "row" }]);
        switches.push(if self.is_split { "split" } else { "whole" });
        Form { workgroup: 64, n_tokens: self.n_heads * self.n_rows, n_rows: n_quads, n_splits: 1, switches }
    }
}

impl Product {
    /// What the text of `parts/products.wgsl` is made into; `rows` is how those of the matrix are found: "dense", or "gathered".
    fn form(self, rows: &'static str) -> Form {
        let Lanes { n_rows, workgroup, n_splits } = self.lanes;
        let mut switches = self.weights.switches();
        switches.push(rows);
        switches.extend(match (self.int8, self.pairs) {
            (true, true) => ["int8", "paired rows"],
            (true, false) => ["int8", "dots"],
            (false, _) => ["f32", "f32"],
        });
        switches.push(if n_splits > 1 { "split" } else { "whole" });
        Form { workgroup, n_tokens: self.n_tokens, n_rows, n_splits, switches }
    }
}
