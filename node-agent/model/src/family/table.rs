//! The table of families: what each differs in from [`LLAMA`]. A new family is a new row, and nothing else.

use super::{
    AbsentWindow, Activation, Biases, EmbeddingScale, Experts, Family, FeedForward, HeadNorms, LogitScale, NormKind,
    NormPlaces, Positions, RopeStyle, Router, ScoreScale, Turned, WindowedTurn, Windows,
};
use crate::role::Role;

/// Norm, attention with rotary positions, norm, SwiGLU; no biases (arXiv 2302.13971). So are Mistral, SmolLM and TinyLlama.
const LLAMA: Family = Family {
    name: "llama",
    norm: NormKind::Rms,
    norm_places: NormPlaces::Before,
    is_parallel: false,
    head_norms: HeadNorms::None,
    fuses_queries: false,
    biases: Biases::None,
    feed_forward: FeedForward::Gated,
    activation: Activation::Silu,
    positions: Positions::Rotary(RopeStyle::Pairs),
    turned: Turned::All,
    windows: Windows::None,
    has_sinks: false,
    has_embedding_norm: false,
    embedding_scale: EmbeddingScale::One,
    scales_residuals: false,
    score_scale: ScoreScale::Head,
    logit_scale: LogitScale::None,
    caps: None,
    experts: Experts::None,
    has_convolutions: false,
    optional: &[],
    names: &[],
};

const HALVES: Positions = Positions::Rotary(RopeStyle::Halves);

pub(super) static FAMILIES: &[Family] = &[
    // Mistral 7B v0.1 names a window, and runs without it everywhere; Mixtral (arXiv 2401.04088) has experts.
    Family { windows: Windows::Ignored, experts: Experts::Some(Router::OfChosen), ..LLAMA },
    Family { name: "qwen2", biases: Biases::Queries, positions: HALVES, ..LLAMA },
    Family { name: "qwen3", head_norms: HeadNorms::Each, positions: HALVES, ..LLAMA },
    // arXiv 2505.09388.
    Family {
        name: "qwen3moe",
        head_norms: HeadNorms::Each,
        positions: HALVES,
        experts: Experts::All(Router::OfChosen),
        ..LLAMA
    },
    // arXiv 2409.02060.
    Family {
        name: "olmoe",
        head_norms: HeadNorms::All,
        positions: HALVES,
        experts: Experts::All(Router::OfAll),
        ..LLAMA
    },
    // arXiv 2508.10925; the second of the two norms before sub-layers is called otherwise.
    Family {
        name: "gpt-oss",
        biases: Biases::All,
        activation: Activation::SiluClamped,
        positions: HALVES,
        windows: Windows::Some { period: 2, absent: AbsentWindow::Refused, turn: WindowedTurn::Alike },
        has_sinks: true,
        experts: Experts::All(Router::OfChosen),
        names: &[(Role::FfnNorm, "post_attention_norm.weight")],
        ..LLAMA
    },
    // Every fourth layer does without positions (arXiv 2501.18795).
    Family { name: "smollm3", turned: Turned::AllButEvery(4), ..LLAMA },
    // arXiv 2403.17297; its fused queries are taken apart when it is converted.
    Family { name: "internlm2", ..LLAMA },
    // arXiv 2403.08295.
    Family {
        name: "gemma",
        activation: Activation::Gelu,
        positions: HALVES,
        embedding_scale: EmbeddingScale::RootOfHiddenSize,
        ..LLAMA
    },
    // arXiv 2408.00118; the model of 46 layers scales scores by another width than that of its heads.
    Family {
        name: "gemma2",
        norm_places: NormPlaces::Both,
        activation: Activation::Gelu,
        positions: HALVES,
        windows: Windows::Some { period: 2, absent: AbsentWindow::Usual(4096), turn: WindowedTurn::Alike },
        embedding_scale: EmbeddingScale::RootOfHiddenSize,
        score_scale: ScoreScale::HeadBut { n_layers: 46 },
        caps: Some((50.0, 30.0)),
        ..LLAMA
    },
    // arXiv 2503.19786; the model of 62 layers as gemma2's of 46.
    Family {
        name: "gemma3",
        norm_places: NormPlaces::Both,
        head_norms: HeadNorms::Each,
        activation: Activation::Gelu,
        positions: HALVES,
        windows: Windows::Some { period: 6, absent: AbsentWindow::NoWindow, turn: WindowedTurn::Based(10_000.0) },
        embedding_scale: EmbeddingScale::RootOfHiddenSize,
        score_scale: ScoreScale::HeadBut { n_layers: 62 },
        ..LLAMA
    },
    // arXiv 2404.14219; files name a window that nobody honours.
    Family {
        name: "phi3",
        fuses_queries: true,
        feed_forward: FeedForward::Fused,
        positions: HALVES,
        windows: Windows::Ignored,
        ..LLAMA
    },
    // arXiv 2501.00656; with a window they are OLMo 3.
    Family {
        name: "olmo2",
        norm_places: NormPlaces::After,
        head_norms: HeadNorms::All,
        positions: HALVES,
        windows: Windows::Some { period: 4, absent: AbsentWindow::NoWindow, turn: WindowedTurn::Unscaled },
        ..LLAMA
    },
    Family {
        name: "granite",
        embedding_scale: EmbeddingScale::Key,
        scales_residuals: true,
        score_scale: ScoreScale::Key,
        logit_scale: LogitScale::Divides,
        ..LLAMA
    },
    // arXiv 2504.00698.
    Family {
        name: "cohere2",
        norm: NormKind::LayerWithoutBias,
        is_parallel: true,
        turned: Turned::Windowed,
        windows: Windows::Some { period: 4, absent: AbsentWindow::Refused, turn: WindowedTurn::Alike },
        logit_scale: LogitScale::Multiplies,
        ..LLAMA
    },
    // arXiv 2402.19173.
    Family {
        name: "starcoder2",
        norm: NormKind::Layer,
        biases: Biases::All,
        feed_forward: FeedForward::Plain,
        activation: Activation::Gelu,
        positions: HALVES,
        ..LLAMA
    },
    // arXiv 2311.16867; the larger ones have a second norm, of what attention takes.
    Family {
        name: "falcon",
        norm: NormKind::Layer,
        is_parallel: true,
        fuses_queries: true,
        feed_forward: FeedForward::Plain,
        activation: Activation::Gelu,
        positions: HALVES,
        optional: &[Role::AttentionNorm2],
        ..LLAMA
    },
    // Radford et al. 2019.
    Family {
        name: "gpt2",
        norm: NormKind::Layer,
        fuses_queries: true,
        biases: Biases::All,
        feed_forward: FeedForward::Plain,
        activation: Activation::Gelu,
        positions: Positions::Learned,
        ..LLAMA
    },
    // arXiv 2211.05100.
    Family {
        name: "bloom",
        norm: NormKind::Layer,
        fuses_queries: true,
        biases: Biases::All,
        feed_forward: FeedForward::Plain,
        activation: Activation::Gelu,
        positions: Positions::Alibi,
        has_embedding_norm: true,
        ..LLAMA
    },
    // An encoder and a decoder (arXiv 1910.10683); the first models of the family have no gate, and ReLU for GELU.
    Family {
        name: "t5",
        activation: Activation::Gelu,
        positions: Positions::Buckets,
        score_scale: ScoreScale::One,
        names: &[(Role::OutputNorm, "dec.output_norm.weight"), (Role::AttentionOutput, "attn_o.weight")],
        ..LLAMA
    },
    // arXiv 2511.23404.
    Family {
        name: "lfm2",
        head_norms: HeadNorms::Each,
        positions: HALVES,
        has_convolutions: true,
        names: &[(Role::OutputNorm, "token_embd_norm.weight")],
        ..LLAMA
    },
];
