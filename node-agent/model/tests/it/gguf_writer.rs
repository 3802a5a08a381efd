//! Writes small GGUF files byte by byte, right ones and wrong ones.

/// A file in the making; every part is public so that a test can spoil it.
#[derive(Clone)]
pub struct File {
    pub magic: [u8; 4],
    pub version: u32,
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
    /// In place of the true numbers.
    pub n_tensors: Option<u64>,
    pub n_keys: Option<u64>,
    pub data: Vec<u8>,
}

#[derive(Clone)]
pub enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// The number of the type, then these bytes.
    Raw(u32, Vec<u8>),
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub type_number: u32,
    pub offset: u64,
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn strings(items: &[&str]) -> Value {
    Value::Strings(items.iter().map(|item| (*item).to_owned()).collect())
}

/// A Llama of 1 layer, hidden size 32, 2 heads over 1 of keys and values, 8 tokens, tied, F32 zeros throughout; with a vocabulary of
/// five tokens, one of them a control token.
pub fn llama() -> File {
    let mut file = File {
        magic: *b"GGUF",
        version: 3,
        keys: vec![
            ("general.architecture".into(), text("llama")),
            ("llama.block_count".into(), Value::U32(1)),
            ("llama.context_length".into(), Value::U32(32)),
            ("llama.embedding_length".into(), Value::U32(32)),
            ("llama.feed_forward_length".into(), Value::U32(64)),
            ("llama.attention.head_count".into(), Value::U32(2)),
            ("llama.attention.head_count_kv".into(), Value::U32(1)),
            ("llama.attention.layer_norm_rms_epsilon".into(), Value::F32(1e-5)),
            ("tokenizer.ggml.model".into(), text("gpt2")),
            ("tokenizer.ggml.pre".into(), text("gpt-2")),
            ("tokenizer.ggml.tokens".into(), strings(&["a", "b", "ab", "<|im_end|>", "Ġ"])),
            ("tokenizer.ggml.token_type".into(), Value::I32s(vec![1, 1, 1, 3, 1])),
            ("tokenizer.ggml.merges".into(), strings(&["a b"])),
            ("tokenizer.ggml.bos_token_id".into(), Value::U32(4)),
        ],
        tensors: Vec::new(),
        n_tensors: None,
        n_keys: None,
        data: Vec::new(),
    };
    let tensors: [(&str, &[u64]); 11] = [
        ("token_embd.weight", &[32, 8]),
        ("output_norm.weight", &[32]),
        ("blk.0.attn_norm.weight", &[32]),
        ("blk.0.attn_q.weight", &[32, 32]),
        ("blk.0.attn_k.weight", &[32, 16]),
        ("blk.0.attn_v.weight", &[32, 16]),
        ("blk.0.attn_output.weight", &[32, 32]),
        ("blk.0.ffn_norm.weight", &[32]),
        ("blk.0.ffn_gate.weight", &[32, 64]),
        ("blk.0.ffn_up.weight", &[32, 64]),
        ("blk.0.ffn_down.weight", &[64, 32]),
    ];
    for (name, shape) in tensors {
        file.add_f32(name, shape);
    }
    file
}

// === impl File ===

impl File {
    pub fn add_f32(&mut self, name: &str, shape: &[u64]) {
        let offset = self.data.len() as u64;
        let n_bytes = shape.iter().product::<u64>() as usize * 4;
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), type_number: 0, offset });
        self.data.resize((self.data.len() + n_bytes).next_multiple_of(32), 0);
    }

    /// Adds the key or puts another value in its place.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        self.remove(key).keys.push((key.to_owned(), value));
        self
    }

    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(name, _)| name != key);
        self
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|size| out.extend_from_slice(&size.to_le_bytes()));
            out.extend_from_slice(&tensor.type_number.to_le_bytes());
            out.extend_from_slice(&tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend_from_slice(&self.data);
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |number: u32, bytes: &[u8]| {
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::U32(number) => put(4, &number.to_le_bytes()),
        Value::F32(number) => put(6, &number.to_le_bytes()),
        Value::Bool(yes) => put(7, &[u8::from(*yes)]),
        Value::Text(text) => {
            put(8, &[]);
            put_text(out, text);
        }
        Value::Strings(strings) => {
            put(9, &8_u32.to_le_bytes());
            out.extend_from_slice(&(strings.len() as u64).to_le_bytes());
            strings.iter().for_each(|text| put_text(out, text));
        }
        Value::I32s(numbers) => {
            put(9, &5_u32.to_le_bytes());
            out.extend_from_slice(&(numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        }
        Value::F32s(numbers) => {
            put(9, &6_u32.to_le_bytes());
            out.extend_from_slice(&(numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        }
        Value::Raw(number, bytes) => put(*number, bytes),
    }
}
