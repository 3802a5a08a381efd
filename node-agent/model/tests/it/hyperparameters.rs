//! Hyperparameters: what files say, what they leave out, and what is refused.

use std::io::Cursor;

use polyphony_model::family::{Activation, RopeStyle};
use polyphony_model::{Encoder, Experts, Gguf, Hyperparameters, KvType, LayerTurn, Role, WindowedLayers, Yarn};

use crate::files;
use crate::gguf_writer::{self, File, Value};

fn of_tiny(name: &str) -> Hyperparameters {
    Hyperparameters::from_gguf(&Gguf::open(&files::tiny(name)).unwrap()).unwrap()
}

fn with(change: impl FnOnce(&mut File)) -> Result<Hyperparameters, String> {
    let mut file = gguf_writer::llama();
    change(&mut file);
    let gguf = Gguf::read(&mut Cursor::new(file.bytes())).unwrap();
    Hyperparameters::from_gguf(&gguf).map_err(|error| error.to_string())
}

#[test]
fn the_tiny_models_have_the_numbers_of_their_readme() {
    let llama = of_tiny("llama");
    assert_eq!(llama.architecture.name(), "llama");
    assert_eq!((llama.n_layers, llama.hidden_size, llama.ffn_size), (4, 64, 192));
    assert_eq!((llama.n_heads, llama.n_kv_heads, llama.head_size), (4, 2, 16));
    assert_eq!((llama.vocab_size, llama.context_length, llama.norm_epsilon), (384, 256, 1e-5));
    let rope = llama.rope.unwrap();
    assert_eq!((rope.style, rope.base, rope.n_rotated), (RopeStyle::Pairs, 10_000.0, 16));
    assert_eq!((rope.position_scale, rope.has_frequency_factors), (1.0, false));
    assert!(!llama.tied_embedding);

    let freqs = of_tiny("llama_freqs");
    let rope = freqs.rope.unwrap();
    assert!(rope.has_frequency_factors && freqs.tied_embedding && rope.base == 500_000.0);
    let linear = of_tiny("llama_linear");
    assert!(linear.rope.unwrap().position_scale == 0.25 && linear.n_kv_heads == 4 && linear.tied_embedding);
}

#[test]
fn other_families_have_positions_of_their_own_kind() {
    let bloom = of_tiny("bloom");
    assert_eq!((bloom.architecture.name(), bloom.rope, bloom.norm_epsilon), ("bloom", None, 1e-5));
    assert_eq!((bloom.n_kv_heads, bloom.head_size, bloom.tied_embedding), (4, 16, false));
    assert!(of_tiny("gpt2").tied_embedding && of_tiny("gpt2").rope.is_none());
    for name in ["qwen2", "qwen3"] {
        let rope = of_tiny(name).rope.unwrap();
        assert_eq!((rope.style, rope.base), (RopeStyle::Halves, 1_000_000.0), "{name}");
    }
    assert_eq!(of_tiny("qwen3").head_size, 32);
}

#[test]
fn a_t5_counts_the_layers_of_both_halves() {
    let t5 = of_tiny("t5");
    assert_eq!((t5.architecture.name(), t5.n_layers, t5.rope), ("t5", 8, None));
    assert_eq!(t5.encoder, Some(Encoder { n_layers: 4, n_buckets: 8, start_token: 382, is_gated: true }));
    assert!((0..8).all(|layer| t5.attends_to_encoder(layer) == (layer >= 4)));
    // A decoder layer: 2 x 4 square matrices and three of the feed-forward network.
    assert_eq!(t5.multiply_adds_per_layer(), 8 * 64 * 64 + 3 * 64 * 128);
}

#[test]
fn sizes_follow_from_the_numbers() {
    let llama = of_tiny("llama");
    let by_type = KvType::ALL.map(|kv_type| llama.kv_bytes_per_token_per_layer(kv_type));
    // Of 32 keys and 32 values: a word each, half of one, or a quarter and one word with their scale.
    assert_eq!(by_type, [2 * 32 * 4, 2 * 32 * 2, 2 * (32 + 4)]);
    assert_eq!(llama.multiply_adds_per_layer(), 64 * 64 * 2 + 64 * 32 * 2 + 64 * 192 * 3);
    assert_eq!(llama.multiply_adds_of_head(), 64 * 384);
    // Fused queries, keys and values; two matrices of the feed-forward network.
    assert_eq!(of_tiny("bloom").multiply_adds_per_layer(), 64 * 192 + 64 * 64 + 64 * 256 * 2);
}

#[test]
fn what_a_file_leaves_out_has_the_usual_value() {
    let found = with(|file| {
        file.remove("llama.attention.head_count_kv");
        for name in ["blk.0.attn_k.weight", "blk.0.attn_v.weight"] {
            file.tensors.retain(|tensor| tensor.name != name);
            file.add_f32(name, &[32, 32]);
        }
    })
    .unwrap();
    let rope = found.rope.unwrap();
    assert_eq!((found.n_kv_heads, found.head_size, rope.n_rotated), (2, 16, 16));
    assert_eq!((rope.base, found.vocab_size), (10_000.0, 8));
    let factor_alone = with(|file| {
        file.set("llama.rope.scaling.factor", Value::F32(2.0));
    });
    assert_eq!(factor_alone.unwrap().rope.unwrap().position_scale, 0.5, "a factor without a type is linear");
}

#[test]
fn the_head_size_may_differ_from_hidden_by_heads() {
    let found = with(|file| {
        file.set("llama.attention.key_length", Value::U32(32)).set("llama.attention.value_length", Value::U32(32));
    });
    assert_eq!(found.unwrap().head_size, 32);
}

#[test]
fn layers_see_and_turn_as_their_family_has_it() {
    let windows =
        |of: &Hyperparameters| -> Vec<bool> { (0..of.n_layers).map(|at| of.window_of(at).is_some()).collect() };
    let turns = |of: &Hyperparameters| -> Vec<LayerTurn> { (0..of.n_layers).map(|layer| of.turn_of(layer)).collect() };
    use LayerTurn::{None, Plain, Scaled};

    let gemma2 = of_tiny("gemma2");
    assert_eq!((windows(&gemma2), gemma2.window_of(0)), (vec![true, false, true, false], Some(6)));
    assert_eq!((turns(&gemma2), gemma2.caps()), (vec![Scaled; 4], (Some(4.0), Some(8.0))));
    assert_eq!((gemma2.embedding_scale(), gemma2.score_scale()), (40_f32.sqrt(), 0.25));
    let gemma3 = of_tiny("gemma3_scaled");
    assert_eq!(windows(&gemma3), [true, true, true, true, true, false, true]);
    assert_eq!(turns(&gemma3), [Plain, Plain, Plain, Plain, Plain, Scaled, Plain]);
    let rope = gemma3.rope.unwrap();
    assert_eq!((rope.base, rope.windowed_base, rope.position_scale), (100_000.0, Some(10_000.0), 0.125));
    assert!(of_tiny("olmo2").window.is_none() && turns(&of_tiny("olmo2")) == [Scaled; 4]);
    let olmo3 = of_tiny("olmo3");
    assert_eq!((windows(&olmo3), turns(&olmo3)), (vec![true, true, true, false], vec![Plain, Plain, Plain, Scaled]));
    assert_eq!(olmo3.rope.unwrap().yarn, Some(Yarn { factor: 4.0, original_context_length: 64 }));
    let cohere2 = of_tiny("cohere2");
    assert_eq!((turns(&cohere2), cohere2.logit_scale()), (vec![Scaled, Scaled, Scaled, None], 0.25));
    assert_eq!(turns(&of_tiny("smollm3")), [Scaled, Scaled, Scaled, None, Scaled]);
    let granite = of_tiny("granite");
    assert_eq!((granite.embedding_scale(), granite.residual_scale()), (3.0, 0.4));
    assert_eq!((granite.score_scale(), granite.logit_scale()), (0.2, 0.25));
    let phi3 = of_tiny("phi3_long").rope.unwrap();
    assert_eq!((phi3.factors_by_length, phi3.magnitude, phi3.n_rotated), (Some(32), 1.264_911, 8));
    let lfm2 = of_tiny("lfm2");
    assert_eq!([0, 1, 2, 3].map(|layer| lfm2.is_convolution(layer)), [true, true, false, true]);
    assert_eq!((lfm2.n_kv_heads, lfm2.convolutions.as_ref().unwrap().n_taps), (2, 3));
    assert_eq!(
        KvType::ALL.map(|kv_type| lfm2.kv_bytes_per_token_per_layer(kv_type)),
        [160; 3],
        "what a convolution goes over, always of f32, or twice 20 of keys and values"
    );
    assert!(of_tiny("falcon").options.contains(&Role::AttentionNorm2));
}

#[test]
fn the_largest_gemmas_scale_scores_by_another_width() {
    for (name, n_layers) in [("gemma2", 46), ("gemma3", 62)] {
        let mut of = of_tiny(name);
        let by_head = 1.0 / (of.head_size as f32).sqrt();
        assert_eq!(of.score_scale(), by_head, "{name}");
        of.n_layers = n_layers;
        assert_eq!(of.score_scale(), 1.0 / (of.hidden_size as f32 / of.n_heads as f32).sqrt(), "{name}");
    }
}

/// The header of a tiny model with other keys; its tensors are where they were.
fn changed(name: &str, changes: &[(&str, Value)]) -> Result<Hyperparameters, String> {
    let gguf = Gguf::open(&files::tiny(name)).unwrap();
    let mut file = File { keys: Vec::new(), tensors: Vec::new(), data: vec![0; 32], ..gguf_writer::llama() };
    for (key, value) in gguf.metadata.iter() {
        let value = match value {
            polyphony_model::Value::Unsigned(number) => Value::U32(*number as u32),
            polyphony_model::Value::F32(number) => Value::F32(*number),
            polyphony_model::Value::String(text) => Value::Text(text.clone()),
            polyphony_model::Value::Array(_) if key.ends_with("head_count_kv") => {
                Value::I32s(gguf.metadata.optional_integers(key).unwrap().unwrap().iter().map(|n| *n as i32).collect())
            }
            _ => continue,
        };
        file.set(key, value);
    }
    for tensor in gguf.tensors {
        let (offset, type_number) = (file.data.len() as u64, tensor.tensor_type.number());
        file.tensors.push(gguf_writer::Tensor { name: tensor.name, shape: tensor.shape, type_number, offset });
        file.data.resize((file.data.len() + tensor.n_bytes as usize).next_multiple_of(32), 0);
    }
    for (key, value) in changes {
        file.set(key, value.clone());
    }
    let gguf = Gguf::read(&mut Cursor::new(file.bytes())).unwrap();
    Hyperparameters::from_gguf(&gguf).map_err(|error| error.to_string())
}

fn bools(of: &[bool]) -> Value {
    let mut bytes = [7_u32.to_le_bytes().as_slice(), &(of.len() as u64).to_le_bytes()].concat();
    bytes.extend(of.iter().map(|yes| u8::from(*yes)));
    Value::Raw(9, bytes)
}

#[test]
fn a_file_may_say_which_layers_see_a_window() {
    let key = "gemma2.attention.sliding_window_pattern";
    let listed = changed("gemma2", &[(key, bools(&[false, true, true, false]))]).unwrap();
    assert_eq!([0, 1, 2, 3].map(|layer| listed.window_of(layer).is_some()), [false, true, true, false]);
    let period = changed("gemma2", &[(key, Value::U32(3))]).unwrap();
    assert_eq!(period.window.unwrap().layers, WindowedLayers::AllButEvery(3));
    let unheard = changed("llama", &[("llama.attention.sliding_window", Value::U32(4096))]).unwrap();
    assert_eq!(unheard.window, None, "nobody honours the window of a llama");
    let base = changed("gemma3", &[("gemma3.rope.freq_base_swa", Value::F32(5e3))]).unwrap();
    assert_eq!(base.rope.unwrap().windowed_base, Some(5e3));
}

#[test]
fn hostile_numbers_of_every_family_are_refused_with_their_key() {
    let table: [(&str, &str, Value); 49] = [
        ("gemma2", "attention.sliding_window", Value::U32(0)),
        ("gemma3", "attention.sliding_window", Value::U32(u32::MAX)),
        ("gemma2", "attention.sliding_window_pattern", Value::U32(0)),
        ("gemma2", "attention.sliding_window_pattern", bools(&[true])),
        ("gemma2", "attention.sliding_window_pattern", gguf_writer::text("every other")),
        ("gemma2", "attn_logit_softcapping", Value::F32(0.0)),
        ("gemma2", "final_logit_softcapping", Value::F32(f32::NAN)),
        ("gemma2", "attention.head_count", Value::U32(0)),
        ("gemma2", "attention.head_count_kv", Value::U32(0)),
        ("gemma3", "rope.freq_base_swa", Value::F32(-1.0)),
        ("gemma3", "rope.scaling.factor", Value::F32(f32::INFINITY)),
        ("phi3", "rope.dimension_count", Value::U32(18)),
        ("phi3_long", "rope.scaling.attn_factor", Value::F32(0.0)),
        ("phi3_long", "rope.scaling.original_context_length", Value::U32(0)),
        ("olmo3", "rope.scaling.factor", Value::F32(0.5)),
        ("olmo3", "rope.scaling.original_context_length", Value::U32(0)),
        ("olmo3", "rope.freq_base", Value::F32(1.0)),
        ("granite", "embedding_scale", Value::F32(0.0)),
        ("granite", "residual_scale", Value::F32(f32::NAN)),
        ("granite", "attention.scale", Value::F32(-0.5)),
        ("granite", "logit_scale", Value::F32(1e-45)),
        ("cohere2", "logit_scale", Value::F32(0.0)),
        ("cohere2", "attention.sliding_window", Value::U32(0)),
        ("starcoder2", "attention.sliding_window", Value::U32(16)),
        ("falcon", "attn_logit_softcapping", Value::F32(30.0)),
        ("qwen3", "expert_count", Value::U32(8)),
        ("qwen3", "attention.head_count_kv", Value::I32s(vec![0, 2, 2, 2])),
        ("lfm2", "attention.head_count_kv", Value::I32s(vec![0, 0, 0, 0])),
        ("lfm2", "attention.head_count_kv", Value::I32s(vec![0, 4, 2, 0])),
        ("lfm2", "attention.head_count_kv", Value::I32s(vec![0, -2, 0, 0])),
        ("lfm2", "attention.head_count_kv", Value::I32s(vec![0, 2])),
        ("lfm2", "shortconv.l_cache", Value::U32(0)),
        ("mixtral", "expert_count", Value::U32(0)),
        ("qwen3moe", "expert_count", Value::U32(0)),
        ("qwen3moe", "expert_count", Value::U32(1 << 20)),
        ("qwen3moe", "expert_used_count", Value::U32(0)),
        ("mixtral", "expert_used_count", Value::U32(9)),
        ("gptoss", "expert_used_count", Value::I32s(vec![3, 3])),
        ("gptoss", "expert_feed_forward_length", Value::U32(0)),
        ("olmoe", "feed_forward_length", Value::U32(0)),
        ("olmoe", "expert_weights_scale", Value::F32(f32::NAN)),
        ("olmoe", "expert_weights_scale", Value::F32(-1.0)),
        ("qwen3moe", "expert_weights_scale", Value::F32(f32::INFINITY)),
        ("qwen3moe", "expert_shared_count", Value::U32(1)),
        ("mixtral", "leading_dense_block_count", Value::U32(1)),
        ("mixtral", "expert_group_count", Value::U32(2)),
        ("mixtral", "expert_gating_func", Value::U32(2)),
        ("olmoe", "expert_gating_func", Value::U32(3)),
        ("olmoe", "expert_weights_norm", Value::Bool(true)),
    ];
    for (name, rest, value) in table {
        let architecture = of_tiny(name).architecture;
        let key = format!("{architecture}.{rest}");
        let error = changed(name, &[(&key, value)]).expect_err(&key);
        assert!(error.contains(&format!("`{key}`")), "{key} is not in: {error}");
    }
}

#[test]
fn mixtures_of_experts_have_the_numbers_of_their_readme() {
    let experts = |name: &str| {
        let of = of_tiny(name);
        (of.experts.map(|Experts { n_experts, n_chosen, scale }| (n_experts, n_chosen, scale)), of.ffn_size)
    };
    assert_eq!(experts("qwen3moe"), (Some((8, 2, 1.0)), 24), "the width is that of an expert");
    assert_eq!(experts("mixtral"), (Some((8, 2, 1.0)), 24));
    assert_eq!(experts("olmoe"), (Some((8, 3, 1.0)), 16));
    assert_eq!(experts("gptoss"), (Some((8, 3, 1.0)), 32));
    assert_eq!(experts("llama"), (None, 192));
    let gptoss = of_tiny("gptoss");
    assert_eq!((gptoss.architecture.name(), gptoss.activation()), ("gpt-oss", Activation::SiluClamped));
    assert_eq!([0, 1, 2, 3].map(|layer| gptoss.window_of(layer)), [Some(6), None, Some(6), None]);

    // A token is multiplied with its own experts alone, and with the router.
    assert_eq!(of_tiny("mixtral").multiply_adds_per_layer(), 2 * 40 * 40 + 2 * 40 * 20 + 40 * 8 + 2 * 3 * 40 * 24);
    let scaled = changed("mixtral", &[("llama.expert_weights_scale", Value::F32(2.5))]).unwrap();
    assert_eq!(scaled.experts.unwrap().scale, 2.5);
    // A llama that says it has none has none.
    assert_eq!(changed("llama", &[("llama.expert_count", Value::U32(0))]).unwrap().experts, None);
}

#[test]
fn experts_of_a_manifest_are_those_of_its_family() {
    let refusal = |name: &str, spoil: &dyn Fn(&mut Hyperparameters)| {
        let mut of = of_tiny(name);
        spoil(&mut of);
        of.check().unwrap_err().to_string()
    };
    let experts = Experts { n_experts: 4, n_chosen: 2, scale: 1.0 };
    let none = refusal("qwen3moe", &|of| of.experts = None);
    assert_eq!(none, "`qwen3moe.expert_count` is missing: a qwen3moe model has experts");
    let some = refusal("qwen2", &|of| of.experts = Some(experts));
    assert_eq!(some, "`qwen2.expert_count` is 4: a qwen2 model has no experts");
    let more = refusal("llama", &|of| of.experts = Some(Experts { n_chosen: 5, ..experts }));
    assert_eq!(more, "`llama.expert_used_count` is 5: it has to be from 1 to 4");
    let scale = refusal("olmoe", &|of| of.experts = Some(Experts { scale: f32::NAN, ..experts }));
    assert!(scale.contains("`olmoe.expert_weights_scale` is NaN"), "{scale}");
}

#[test]
fn numbers_that_are_none_are_refused_with_their_key_wherever_a_family_reads_one() {
    let table: [(&str, &[&str]); 5] = [
        ("granite", &["embedding_scale", "residual_scale", "attention.scale", "logit_scale"]),
        ("gemma2", &["attn_logit_softcapping", "final_logit_softcapping", "attention.layer_norm_rms_epsilon"]),
        ("gemma3", &["rope.freq_base", "rope.freq_base_swa", "rope.scaling.factor"]),
        ("phi3_long", &["rope.freq_base", "rope.scaling.attn_factor"]),
        ("olmo3", &["rope.freq_base", "rope.scaling.factor", "rope.scaling.attn_factor"]),
    ];
    for (name, keys) in table {
        let architecture = of_tiny(name).architecture;
        for (rest, spoilt) in keys.iter().flat_map(|key| [f32::NAN, f32::INFINITY, -1.0].map(|spoilt| (key, spoilt))) {
            let key = format!("{architecture}.{rest}");
            let error = changed(name, &[(&key, Value::F32(spoilt))]).expect_err(&key);
            assert!(error.contains(&format!("`{key}`")), "{key} of {spoilt} is not in: {error}");
        }
    }
}

#[test]
fn what_cannot_be_computed_is_refused_with_its_key() {
    let table: [(&str, Value, &str); 16] = [
        ("general.architecture", gguf_writer::text("mamba"), "supported are: llama, qwen2, qwen3, qwen3moe, olmoe"),
        ("llama.block_count", Value::U32(0), "`llama.block_count` is 0"),
        ("llama.block_count", Value::U32(1 << 31), "`llama.block_count`"),
        ("llama.block_count", gguf_writer::text("one"), "`llama.block_count` is the string \"one\""),
        ("llama.embedding_length", Value::U32(33), "no multiple"),
        ("llama.attention.key_length", Value::U32(257), "from 1 to 256"),
        ("llama.attention.head_count", Value::U32(0), "`llama.attention.head_count`"),
        ("llama.attention.head_count_kv", Value::U32(3), "`llama.attention.head_count_kv` is 3"),
        ("llama.attention.value_length", Value::U32(2), "`llama.attention.value_length`"),
        ("llama.rope.dimension_count", Value::U32(3), "`llama.rope.dimension_count`"),
        ("llama.rope.dimension_count", Value::U32(18), "at most the head size 16"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), "finite"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0), "above 0"),
        ("llama.rope.scaling.type", gguf_writer::text("su"), "`llama.rope.scaling.type` is su"),
        ("llama.rope.scaling.factor", Value::F32(-4.0), "`llama.rope.scaling.factor`"),
        ("llama.expert_count", Value::U32(8), "`llama.expert_used_count` is missing"),
    ];
    for (key, value, words) in table {
        let error = with(|file| {
            file.set(key, value);
        })
        .expect_err(key);
        assert!(error.contains(words), "{key}: {words:?} is not in: {error}");
    }
    let missing = with(|file| {
        file.remove("llama.context_length");
    });
    assert!(missing.unwrap_err().contains("`llama.context_length` is missing"));
}
