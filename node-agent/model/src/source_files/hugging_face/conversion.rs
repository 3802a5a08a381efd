//! Conversions: what each family calls its tensors and fields, and what becomes of them in GGUF. Data alone, after `convert_hf_to_gguf.py`
//! of llama.cpp. Another family is another row.

/// How one family is converted.
#[derive(Debug)]
pub(super) struct Conversion {
    /// `model_type` of `config.json`.
    pub(super) model_types: &'static [&'static str],
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// The rows of queries and keys are in another order: halves turn together here, pairs in GGUF.
    pub(super) heads_take_turns: bool,
    /// Norms multiply by 1 + their weights.
    pub(super) norms_plus_one: bool,
    /// What `hidden_activation`, or else `hidden_act`, has to be.
    pub(super) activation: &'static str,
    /// Layers with full attention: every so many, the others having a window. 1 where all have.
    pub(super) full_attention_every: usize,
    /// Modules that are called otherwise than in [`MODULES`], within a layer; looked at first.
    pub(super) modules: &'static [(&'static str, &'static str)],
    /// Fields beside those that every family has.
    pub(super) fields: &'static [Field],
    /// Fields that change the arithmetic, and what they have to be where they are there.
    pub(super) fixed: &'static [(&'static str, Fixed)],
}

/// A field and the key that it becomes.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Without the architecture's name.
    pub(super) key: &'static str,
    pub(super) is_fraction: bool,
}

/// What a field has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fixed {
    Bool(bool),
    Number(f64),
}

/// What a tensor becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// All of a tensor, or that of one expert of it.
    Tensor { name: String, expert: Option<u32> },
    /// Nothing: its values follow from others.
    Dropped,
    Unknown,
}

const fn count(name: &'static str, key: &'static str) -> Field {
    Field { name, key, is_fraction: false }
}

const fn fraction(name: &'static str, key: &'static str) -> Field {
    Field { name, key, is_fraction: true }
}

/// Fields of every family.
pub(super) const FIELDS: [Field; 12] = [
    count("hidden_size", "embedding_length"),
    count("num_hidden_layers", "block_count"),
    count("num_attention_heads", "attention.head_count"),
    count("num_key_value_heads", "attention.head_count_kv"),
    count("head_dim", "attention.key_length"),
    count("head_dim", "attention.value_length"),
    count("intermediate_size", "feed_forward_length"),
    count("max_position_embeddings", "context_length"),
    count("vocab_size", "vocab_size"),
    fraction("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    fraction("layer_norm_eps", "attention.layer_norm_epsilon"),
    fraction("norm_epsilon", "attention.layer_norm_epsilon"),
];

const EXPERTS: [Field; 2] = [count("num_experts_per_tok", "expert_used_count"), count("num_experts", "expert_count")];

/// Tensors of the whole model.
const WHOLE: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// Modules of a layer.
const MODULES: [(&str, &str); 12] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
];

/// Modules of an expert, which `experts.N` of the network of experts has.
const EXPERT_MODULES: [(&str, &str); 6] = [
    ("gate_proj", "ffn_gate_exps"),
    ("up_proj", "ffn_up_exps"),
    ("down_proj", "ffn_down_exps"),
    ("w1", "ffn_gate_exps"),
    ("w3", "ffn_up_exps"),
    ("w2", "ffn_down_exps"),
];

/// Norms before and after both sub-layers.
const GEMMA: [(&str, &str); 3] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

const LLAMA: Conversion = Conversion {
    model_types: &["llama", "mistral"],
    architecture: "llama",
    heads_take_turns: true,
    norms_plus_one: false,
    activation: "silu",
    full_attention_every: 1,
    modules: &[],
    fields: &[],
    fixed: &[],
};

const QWEN: Conversion = Conversion {
    model_types: &["qwen2"],
    architecture: "qwen2",
    heads_take_turns: false,
    fixed: &[("use_sliding_window", Fixed::Bool(false))],
    ..LLAMA
};

static TABLE: [Conversion; 14] = [
    LLAMA,
    QWEN,
    Conversion { model_types: &["qwen3"], architecture: "qwen3", ..QWEN },
    Conversion {
        model_types: &["qwen3_moe"],
        architecture: "qwen3moe",
        fields: &[
            count("moe_intermediate_size", "expert_feed_forward_length"),
            EXPERTS[0].alike(),
            EXPERTS[1].alike(),
        ],
        fixed: &[
            ("use_sliding_window", Fixed::Bool(false)),
            ("norm_topk_prob", Fixed::Bool(true)),
            ("decoder_sparse_step", Fixed::Number(1.0)),
        ],
        ..QWEN
    },
    Conversion {
        model_types: &["mixtral"],
        modules: &[("block_sparse_moe.gate", "ffn_gate_inp")],
        fields: &[count("num_local_experts", "expert_count"), EXPERTS[0].alike()],
        ..LLAMA
    },
    Conversion {
        model_types: &["olmoe"],
        architecture: "olmoe",
        heads_take_turns: false,
        fields: &[EXPERTS[0].alike(), EXPERTS[1].alike()],
        fixed: &[("norm_topk_prob", Fixed::Bool(false))],
        ..LLAMA
    },
    // Which layers do without positions goes by the architecture: every fourth.
    Conversion {
        model_types: &["smollm3"],
        architecture: "smollm3",
        fixed: &[("no_rope_layer_interval", Fixed::Number(4.0)), ("use_sliding_window", Fixed::Bool(false))],
        ..LLAMA
    },
    Conversion {
        model_types: &["granite"],
        architecture: "granite",
        fields: &[
            fraction("attention_multiplier", "attention.scale"),
            fraction("embedding_multiplier", "embedding_scale"),
            fraction("residual_multiplier", "residual_scale"),
            fraction("logits_scaling", "logit_scale"),
        ],
        fixed: &[],
        ..LLAMA
    },
    Conversion {
        model_types: &["olmo2"],
        architecture: "olmo2",
        heads_take_turns: false,
        modules: &[("post_attention_layernorm", "post_attention_norm"), ("post_feedforward_layernorm", "post_ffw_norm")],
        ..LLAMA
    },
    Conversion {
        model_types: &["gemma2"],
        architecture: "gemma2",
        heads_take_turns: false,
        norms_plus_one: true,
        activation: "gelu_pytorch_tanh",
        full_attention_every: 2,
        modules: &GEMMA,
        fields: &[
            count("sliding_window", "attention.sliding_window"),
            fraction("attn_logit_softcapping", "attn_logit_softcapping"),
            fraction("final_logit_softcapping", "final_logit_softcapping"),
        ],
        fixed: &[],
    },
    Conversion {
        model_types: &["gemma3_text"],
        architecture: "gemma3",
        heads_take_turns: false,
        norms_plus_one: true,
        activation: "gelu_pytorch_tanh",
        full_attention_every: 6,
        modules: &GEMMA,
        fields: &[count("sliding_window", "attention.sliding_window")],
        fixed: &[
            ("rope_local_base_freq", Fixed::Number(10_000.0)),
            ("sliding_window_pattern", Fixed::Number(6.0)),
            ("use_bidirectional_attention", Fixed::Bool(false)),
        ],
    },
    Conversion {
        model_types: &["starcoder2"],
        architecture: "starcoder2",
        heads_take_turns: false,
        activation: "gelu_pytorch_tanh",
        modules: &[("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")],
        ..LLAMA
    },
    // A window that a configuration names is not honoured, as in llama.cpp.
    Conversion {
        model_types: &["phi3"],
        architecture: "phi3",
        heads_take_turns: false,
        modules: &[("self_attn.qkv_proj", "attn_qkv"), ("mlp.gate_up_proj", "ffn_up")],
        fields: &[count("original_max_position_embeddings", "rope.scaling.original_context_length")],
        ..LLAMA
    },
    // Pairs turn here, too.
    Conversion {
        model_types: &["cohere2"],
        architecture: "cohere2",
        heads_take_turns: false,
        full_attention_every: 4,
        fields: &[count("sliding_window", "attention.sliding_window"), fraction("logit_scale", "logit_scale")],
        fixed: &[
            ("sliding_window_pattern", Fixed::Number(4.0)),
            ("rotary_pct", Fixed::Number(1.0)),
            ("use_parallel_block", Fixed::Bool(true)),
            ("use_gated_activation", Fixed::Bool(true)),
        ],
        ..LLAMA
    },
];

// === impl Field ===

impl Field {
    const fn alike(&self) -> Self {
        Self { name: self.name, key: self.key, is_fraction: self.is_fraction }
    }
}

// === impl Conversion ===

impl Conversion {
    /// The row of a `model_type`.
    pub(super) fn of(model_type: &str) -> Option<&'static Self> {
        TABLE.iter().find(|row| row.model_types.contains(&model_type))
    }

    /// Every `model_type` that there is a row of.
    pub(super) fn supported() -> String {
        TABLE.iter().flat_map(|row| row.model_types).copied().collect::<Vec<_>>().join(", ")
    }

    /// What becomes of the tensor called `name`.
    pub(super) fn target(&self, name: &str) -> Target {
        if name.ends_with(".rotary_emb.inv_freq") {
            return Target::Dropped;
        }
        let Some((module, part)) = name.rsplit_once('.').filter(|(_, part)| ["weight", "bias"].contains(part)) else {
            return Target::Unknown;
        };
        let found = |name: String, expert| Target::Tensor { name: format!("{name}.{part}"), expert };
        if let Some((_, name)) = WHOLE.iter().find(|row| row.0 == module) {
            return found((*name).to_owned(), None);
        }
        let in_layer = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let Some((layer, module)) = in_layer.filter(|(layer, _)| is_number(layer)) else { return Target::Unknown };
        if let Some((_, name)) = self.modules.iter().chain(&MODULES).find(|row| row.0 == module) {
            return found(format!("blk.{layer}.{name}"), None);
        }
        let in_expert = ["mlp.experts.", "block_sparse_moe.experts."].iter().find_map(|it| module.strip_prefix(it));
        let Some((expert, module)) = in_expert.and_then(|rest| rest.split_once('.')) else { return Target::Unknown };
        let expert = expert.parse::<u32>().ok().filter(|_| is_number(expert));
        match (expert, EXPERT_MODULES.iter().find(|row| row.0 == module)) {
            (Some(expert), Some((_, name))) => found(format!("blk.{layer}.{name}"), Some(expert)),
            _ => Target::Unknown,
        }
    }
}

/// Whether a number is written as it has to be: one number has one name.
fn is_number(text: &str) -> bool {
    let is_plain = text == "0" || !text.starts_with('0');
    is_plain && !text.is_empty() && text.len() <= 9 && text.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(model_type: &str, tensor: &str) -> String {
        match Conversion::of(model_type).unwrap().target(tensor) {
            Target::Tensor { name, expert: None } => name,
            Target::Tensor { name, expert: Some(expert) } => format!("{name}[{expert}]"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn tensors_have_the_names_of_their_family() {
        for (model_type, tensor, expected) in [
            ("llama", "model.embed_tokens.weight", "token_embd.weight"),
            ("llama", "lm_head.weight", "output.weight"),
            ("llama", "model.layers.11.post_attention_layernorm.weight", "blk.11.ffn_norm.weight"),
            ("qwen2", "model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias"),
            ("gemma2", "model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"),
            ("gemma2", "model.layers.0.pre_feedforward_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("mixtral", "model.layers.1.block_sparse_moe.experts.7.w2.weight", "blk.1.ffn_down_exps.weight[7]"),
            ("qwen3_moe", "model.layers.1.mlp.experts.7.up_proj.weight", "blk.1.ffn_up_exps.weight[7]"),
            ("qwen3_moe", "model.layers.1.mlp.gate.weight", "blk.1.ffn_gate_inp.weight"),
            ("llama", "model.layers.1.self_attn.rotary_emb.inv_freq", "Dropped"),
            ("llama", "model.layers.01.mlp.up_proj.weight", "Unknown"),
            ("llama", "model.layers.1.mlp.up_proj.scale", "Unknown"),
            ("llama", "model.layers..mlp.up_proj.weight", "Unknown"),
            ("llama", "weight", "Unknown"),
        ] {
            assert_eq!(name(model_type, tensor), expected, "{model_type}: {tensor}");
        }
    }
}
