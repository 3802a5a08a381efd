//! Hyperparameters: what files say, what they leave out, and what is refused.

use std::io::Cursor;

use polyphony_model::{Architecture, Encoder, Gguf, Hyperparameters, RopeStyle};

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
    assert_eq!(llama.architecture, Architecture::Llama);
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
    assert_eq!((bloom.architecture, bloom.rope, bloom.norm_epsilon), (Architecture::Bloom, None, 1e-5));
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
    assert_eq!((t5.architecture, t5.n_layers, t5.rope), (Architecture::T5, 8, None));
    assert_eq!(t5.encoder, Some(Encoder { n_layers: 4, n_buckets: 8, start_token: 382, is_gated: true }));
    assert!((0..8).all(|layer| t5.attends_to_encoder(layer) == (layer >= 4)));
    // A decoder layer: 2 x 4 square matrices and three of the feed-forward network.
    assert_eq!(t5.multiply_adds_per_layer(), 8 * 64 * 64 + 3 * 64 * 128);
}

#[test]
fn sizes_follow_from_the_numbers() {
    let llama = of_tiny("llama");
    assert_eq!(llama.kv_bytes_per_token_per_layer(2), 2 * 2 * 16 * 2);
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
fn what_cannot_be_computed_is_refused_with_its_key() {
    let table: [(&str, Value, &str); 18] = [
        ("general.architecture", gguf_writer::text("mamba"), "supported are: llama, qwen2, qwen3, gpt2, bloom, t5"),
        ("llama.block_count", Value::U32(0), "`llama.block_count` is 0"),
        ("llama.block_count", Value::U32(1 << 31), "`llama.block_count`"),
        ("llama.block_count", gguf_writer::text("one"), "`llama.block_count` is the string \"one\""),
        ("llama.embedding_length", Value::U32(33), "no multiple"),
        ("llama.attention.key_length", Value::U32(260), "a multiple of 4, at most 256"),
        ("llama.attention.key_length", Value::U32(6), "a multiple of 4, at most 256"),
        ("llama.attention.head_count", Value::U32(0), "`llama.attention.head_count`"),
        ("llama.attention.head_count_kv", Value::U32(3), "`llama.attention.head_count_kv` is 3"),
        ("llama.attention.value_length", Value::U32(2), "`llama.attention.value_length`"),
        ("llama.rope.dimension_count", Value::U32(3), "`llama.rope.dimension_count`"),
        ("llama.rope.dimension_count", Value::U32(18), "at most the head size 16"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), "finite"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0), "above 0"),
        ("llama.rope.scaling.type", gguf_writer::text("yarn"), "`llama.rope.scaling.type` is yarn"),
        ("llama.rope.scaling.factor", Value::F32(-4.0), "`llama.rope.scaling.factor`"),
        ("llama.expert_count", Value::U32(8), "experts"),
        ("llama.attention.sliding_window", Value::U32(16), "sliding window"),
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
