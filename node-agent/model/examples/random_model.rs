//! Writes a model of random weights to try sizes with, since its text means nothing: no published file is needed.
//!
//! `cargo run -p polyphony-model --example random_model -- bloom|llama FILE [LAYERS] [HIDDEN] [HEADS] [VOCABULARY]`; without numbers 12 layers of
//! hidden size 512, 8 heads, 8192 tokens: the shape of BLOOM-560m, halved twice. Four heads of a Llama share keys and values. Matrices are Q8_0,
//! vectors F32; the same numbers give the same bytes.

#[path = "../tests/it/gguf_writer.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "the tests use the rest of it")]
mod gguf_writer;

use gguf_writer::{File, Tensor, Value, text};

/// GGML's number of Q8_0, and its block: f16 scale, then 32 signed bytes.
const Q8_0: u32 = 8;
const BLOCK: usize = 32;
/// Heads of a Llama that share keys and values.
const HEADS_A_GROUP: u64 = 4;
const CONTROL_TOKENS: [&str; 4] = ["<unk>", "<s>", "</s>", "<pad>"];

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Bloom,
    Llama,
}

/// The shape of the model.
struct Shape {
    family: Family,
    n_layers: u64,
    hidden: u64,
    n_heads: u64,
    vocab: u64,
}

fn main() -> Result<(), String> {
    const USAGE: &str = "usage: random_model bloom|llama FILE [LAYERS] [HIDDEN] [HEADS] [VOCABULARY]";
    let mut arguments = std::env::args().skip(1);
    let family = match arguments.next().as_deref() {
        Some("bloom") => Family::Bloom,
        Some("llama") => Family::Llama,
        _ => return Err(USAGE.to_owned()),
    };
    let path = arguments.next().ok_or(USAGE)?;
    let mut number = |usual: u64| match arguments.next() {
        Some(text) => text.parse::<u64>().map_err(|error| format!("`{text}` is no number: {error}")),
        None => Ok(usual),
    };
    let shape =
        Shape { family, n_layers: number(12)?, hidden: number(512)?, n_heads: number(8)?, vocab: number(8192)? };
    shape.check()?;
    let bytes = shape.file().bytes();
    std::fs::write(&path, &bytes).map_err(|error| format!("cannot write {path}: {error}"))?;
    println!("{path}: {} bytes", bytes.len());
    Ok(())
}

// === impl Shape ===

impl Shape {
    fn check(&self) -> Result<(), String> {
        if self.n_layers == 0 || self.hidden == 0 || !self.hidden.is_multiple_of(BLOCK as u64) {
            return Err(format!("layers and hidden size have to be above 0, the latter a multiple of {BLOCK}"));
        }
        if self.n_heads == 0 || !self.hidden.is_multiple_of(self.n_heads * 4) {
            return Err("the hidden size has to be a multiple of four times the heads".to_owned());
        }
        if self.family == Family::Llama && !self.n_heads.is_multiple_of(HEADS_A_GROUP) {
            return Err(format!("the heads of a Llama have to be a multiple of {HEADS_A_GROUP}"));
        }
        let least = 256 + CONTROL_TOKENS.len() as u64;
        if !(least..=1 << 15).contains(&self.vocab) {
            return Err(format!("the vocabulary has to be from {least} to {}", 1 << 15));
        }
        Ok(())
    }

    fn file(&self) -> File {
        let (name, n_kv_heads, ffn) = match self.family {
            Family::Bloom => ("bloom", self.n_heads, 4 * self.hidden),
            Family::Llama => ("llama", self.n_heads / HEADS_A_GROUP, 3 * self.hidden),
        };
        let count = |number: u64| Value::U32(number as u32);
        let key = |rest: &str, value| (format!("{name}.{rest}"), value);
        let mut file = File {
            magic: *b"GGUF",
            version: 3,
            keys: vec![
                ("general.architecture".into(), text(name)),
                ("general.name".into(), text(&format!("random {name}"))),
                key("context_length", count(8192)),
                key("embedding_length", count(self.hidden)),
                key("block_count", count(self.n_layers)),
                key("feed_forward_length", count(ffn)),
                key("attention.head_count", count(self.n_heads)),
                key("attention.head_count_kv", count(n_kv_heads)),
            ],
            tensors: Vec::new(),
            n_tensors: None,
            n_keys: None,
            data: Vec::new(),
        };
        file.keys.extend(match self.family {
            Family::Bloom => vec![key("attention.layer_norm_epsilon", Value::F32(1e-5))],
            Family::Llama => vec![
                key("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
                key("rope.dimension_count", count(self.hidden / self.n_heads)),
            ],
        });
        file.keys.extend(self.tokenizer(if self.family == Family::Bloom { "bloom" } else { "llama-bpe" }));
        let mut random = Random(560);
        random.matrix(&mut file, "token_embd.weight", self.hidden, self.vocab);
        match self.family {
            Family::Bloom => self.bloom(&mut file, &mut random, ffn),
            Family::Llama => self.llama(&mut file, &mut random, self.hidden / self.n_heads * n_kv_heads, ffn),
        }
        file
    }

    fn bloom(&self, file: &mut File, random: &mut Random, ffn: u64) {
        let hidden = self.hidden;
        random.norm(file, "token_embd_norm", hidden);
        for layer in 0..self.n_layers {
            let name = |rest: &str| format!("blk.{layer}.{rest}");
            random.norm(file, &name("attn_norm"), hidden);
            random.linear(file, &name("attn_qkv"), hidden, 3 * hidden);
            random.linear(file, &name("attn_output"), hidden, hidden);
            random.norm(file, &name("ffn_norm"), hidden);
            random.linear(file, &name("ffn_up"), hidden, ffn);
            random.linear(file, &name("ffn_down"), ffn, hidden);
        }
        random.norm(file, "output_norm", hidden);
    }

    fn llama(&self, file: &mut File, random: &mut Random, kv_width: u64, ffn: u64) {
        let hidden = self.hidden;
        for layer in 0..self.n_layers {
            let name = |rest: &str| format!("blk.{layer}.{rest}.weight");
            random.vector(file, &name("attn_norm"), hidden, 1.0);
            random.matrix(file, &name("attn_q"), hidden, hidden);
            random.matrix(file, &name("attn_k"), hidden, kv_width);
            random.matrix(file, &name("attn_v"), hidden, kv_width);
            random.matrix(file, &name("attn_output"), hidden, hidden);
            random.vector(file, &name("ffn_norm"), hidden, 1.0);
            random.matrix(file, &name("ffn_gate"), hidden, ffn);
            random.matrix(file, &name("ffn_up"), hidden, ffn);
            random.matrix(file, &name("ffn_down"), ffn, hidden);
        }
        random.vector(file, "output_norm.weight", hidden, 1.0);
    }

    /// Byte-level pairs: 256 bytes, then pairs of them, then the control tokens.
    fn tokenizer(&self, pre: &str) -> Vec<(String, Value)> {
        let bytes = byte_alphabet();
        let n_pairs = self.vocab as usize - 256 - CONTROL_TOKENS.len();
        let pairs: Vec<(char, char)> =
            bytes.iter().flat_map(|left| bytes.iter().map(|right| (*left, *right))).take(n_pairs).collect();
        let mut tokens: Vec<String> = bytes.iter().map(char::to_string).collect();
        tokens.extend(pairs.iter().map(|(left, right)| format!("{left}{right}")));
        let mut types = vec![1; tokens.len()];
        tokens.extend(CONTROL_TOKENS.map(str::to_owned));
        types.resize(tokens.len(), 3);
        let control = |place: u64| Value::U32((self.vocab - CONTROL_TOKENS.len() as u64 + place) as u32);
        let merges = pairs.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let key = |rest: &str, value| (format!("tokenizer.ggml.{rest}"), value);
        vec![
            key("model", text("gpt2")),
            key("pre", text(pre)),
            key("tokens", Value::Strings(tokens)),
            key("token_type", Value::I32s(types)),
            key("merges", Value::Strings(merges)),
            key("bos_token_id", control(1)),
            key("eos_token_id", control(2)),
            key("padding_token_id", control(3)),
        ]
    }
}

/// The character that stands for each byte: those that print stand for themselves, letters first; the others come after 255.
fn byte_alphabet() -> Vec<char> {
    let prints = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|byte| !prints(byte)).count() as u32;
    let letters = (b'a'..=b'z').map(u32::from);
    let rest = (0..256).filter(|byte| prints(byte) && !(97..=122).contains(byte));
    letters.chain(rest).chain(256..256 + others).filter_map(char::from_u32).collect()
}

/// A generator (splitmix64).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    /// Even bytes times a power of two, so that a product with values of size 1 is of size 1 or so.
    fn matrix(&mut self, file: &mut File, name: &str, n_in: u64, n_out: u64) {
        // The bytes have a standard deviation of 74, about 2^6.
        let exponent = -6 - (n_in.max(1).ilog2() as i32).div_euclid(2);
        let scale = ((exponent + 15).max(1) as u16) << 10;
        let offset = file.data.len() as u64;
        let shape = vec![n_in, n_out];
        file.tensors.push(Tensor { name: name.to_owned(), shape, type_number: Q8_0, offset });
        for _ in 0..n_in * n_out / BLOCK as u64 {
            file.data.extend(scale.to_le_bytes());
            for _ in 0..BLOCK / 8 {
                file.data.extend(self.bits().to_le_bytes());
            }
        }
        file.data.resize(file.data.len().next_multiple_of(32), 0);
    }

    fn vector(&mut self, file: &mut File, name: &str, len: u64, mean: f32) {
        file.add_f32(name, &[len]);
        let at = file.tensors.last().map_or(0, |tensor| tensor.offset as usize);
        for place in file.data[at..at + len as usize * 4].as_chunks_mut::<4>().0 {
            *place = (mean + 0.1 * self.value()).to_le_bytes();
        }
    }

    fn norm(&mut self, file: &mut File, name: &str, width: u64) {
        self.vector(file, &format!("{name}.weight"), width, 1.0);
        self.vector(file, &format!("{name}.bias"), width, 0.0);
    }

    fn linear(&mut self, file: &mut File, name: &str, n_in: u64, n_out: u64) {
        self.matrix(file, &format!("{name}.weight"), n_in, n_out);
        self.vector(file, &format!("{name}.bias"), n_out, 0.0);
    }
}
