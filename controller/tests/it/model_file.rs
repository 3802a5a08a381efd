//! A GGUF file of the Llama family, as small as can be: 4 layers of 32 values, four tokens, every weight 0.

const HIDDEN: u64 = 32;
const FFN: u64 = 64;
const VOCAB: u64 = 4;
const LAYERS: u32 = 4;

/// The bytes of the file.
pub fn tiny() -> Vec<u8> {
    let numbers = [
        ("llama.block_count", LAYERS),
        ("llama.embedding_length", HIDDEN as u32),
        ("llama.attention.head_count", 2),
        ("llama.context_length", 64),
        ("llama.feed_forward_length", FFN as u32),
        ("llama.vocab_size", VOCAB as u32),
    ];
    let tensors = tensors();
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((numbers.len() as u64 + 6).to_le_bytes());
    text(&mut file, "general.architecture");
    file.extend(8_u32.to_le_bytes());
    text(&mut file, "llama");
    text(&mut file, "llama.attention.layer_norm_rms_epsilon");
    file.extend(6_u32.to_le_bytes());
    file.extend(1e-5_f32.to_le_bytes());
    for (key, value) in [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "gpt-2")] {
        text(&mut file, key);
        file.extend(8_u32.to_le_bytes());
        text(&mut file, value);
    }
    for (key, values) in
        [("tokenizer.ggml.tokens", ["a", "b", "ab", "c"].as_slice()), ("tokenizer.ggml.merges", &["a b"])]
    {
        text(&mut file, key);
        file.extend(9_u32.to_le_bytes());
        file.extend(8_u32.to_le_bytes());
        file.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| text(&mut file, value));
    }
    for (key, value) in numbers {
        text(&mut file, key);
        file.extend(4_u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    let mut offset = 0_u64;
    for (name, shape) in &tensors {
        text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|n| file.extend(n.to_le_bytes()));
        file.extend(0_u32.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += (shape.iter().product::<u64>() * 4).next_multiple_of(32);
    }
    let data = file.len().next_multiple_of(32) + offset as usize;
    file.resize(data, 0);
    file
}

fn tensors() -> Vec<(String, Vec<u64>)> {
    let mut tensors =
        vec![("token_embd.weight".to_owned(), vec![HIDDEN, VOCAB]), ("output_norm.weight".to_owned(), vec![HIDDEN])];
    for layer in 0..LAYERS {
        let of_layer = [
            ("attn_norm", vec![HIDDEN]),
            ("attn_q", vec![HIDDEN, HIDDEN]),
            ("attn_k", vec![HIDDEN, HIDDEN]),
            ("attn_v", vec![HIDDEN, HIDDEN]),
            ("attn_output", vec![HIDDEN, HIDDEN]),
            ("ffn_norm", vec![HIDDEN]),
            ("ffn_gate", vec![HIDDEN, FFN]),
            ("ffn_up", vec![HIDDEN, FFN]),
            ("ffn_down", vec![FFN, HIDDEN]),
        ];
        tensors.extend(of_layer.into_iter().map(|(name, shape)| (format!("blk.{layer}.{name}.weight"), shape)));
    }
    tensors
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}
