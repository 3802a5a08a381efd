//! Folders with safetensors: the same model as the GGUF file of it, and what is wrong is refused with its field.

use std::fs;
use std::path::{Path, PathBuf};

use polyphony_model::{Experts, Manifest, Role, TensorReader, TensorType};
use serde_json::{Value, json};

use crate::files;

fn folder(name: &str) -> PathBuf {
    files::golden("tiny").join(name)
}

/// A copy of a golden folder, to be spoilt.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(folder(name)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        Self(copy)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut json = serde_json::from_slice(&fs::read(self.at(name)).unwrap()).unwrap();
        change(&mut json);
        fs::write(self.at(name), json.to_string()).unwrap();
    }

    /// Changes the header of a safetensors file, whose length stays.
    fn edit_header(&self, name: &str, from: &str, to: &str) {
        let mut bytes = fs::read(self.at(name)).unwrap();
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = str::from_utf8(&bytes[8..8 + n]).unwrap();
        assert!(header.contains(from), "{from} is not in the header");
        let header = format!("{:n$}", header.replacen(from, to, 1).trim_end());
        assert_eq!(header.len(), n, "the header is longer by now");
        bytes[8..8 + n].copy_from_slice(header.as_bytes());
        fs::write(self.at(name), bytes).unwrap();
    }

    fn build(&self) -> Result<Manifest, String> {
        Manifest::build(self.0.path()).map_err(|error| error.to_string())
    }
}

/// What is said of a folder after it was spoilt.
fn refusal(name: &str, spoil: impl FnOnce(&Copy)) -> String {
    let copy = Copy::of(name);
    spoil(&copy);
    copy.build().expect_err("a spoilt folder was taken")
}

#[track_caller]
fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

fn bytes(path: &Path, manifest: &Manifest, tensor: &str) -> Vec<u8> {
    let entry = manifest.tensors.iter().find(|entry| entry.name == tensor).unwrap();
    TensorReader::open(path, manifest, entry).unwrap().read_all().unwrap()
}

/// The tensors of the small llama in F32, in the order and under the names that a folder has them.
fn write_llama(copy: &Copy) -> Manifest {
    write_mixtral(copy, 0)
}

/// The same with so many experts, each as the feed-forward network that there is without any.
fn write_mixtral(copy: &Copy, n_experts: usize) -> Manifest {
    let path = files::tiny("llama");
    let gguf = Manifest::build(&path).unwrap();
    let modules = [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    let experts = [("ffn_gate", "w1"), ("ffn_up", "w3"), ("ffn_down", "w2")];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for entry in &gguf.tensors {
        let module = entry.name.strip_suffix(".weight").unwrap().rsplit('.').next().unwrap();
        let (_, theirs) = modules.iter().find(|row| row.0 == module).unwrap();
        let names = match entry.layer {
            Some(layer) => match experts.iter().find(|row| row.0 == module) {
                Some((_, theirs)) if n_experts > 0 => {
                    let name =
                        |expert| format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{theirs}.weight");
                    (0..n_experts).map(name).collect()
                }
                _ => vec![format!("model.layers.{layer}.{theirs}.weight")],
            },
            None => vec![format!("{theirs}.weight")],
        };
        let mut bytes = bytes(&path, &gguf, &entry.name);
        if ["attn_q", "attn_k"].contains(&module) {
            // Of each head of 16 rows the even ones first, then the odd ones.
            let rows: Vec<&[u8]> = bytes.chunks(64 * 4).collect();
            let halves = |head: &[&[u8]]| {
                [0, 1].map(|odd| head.iter().skip(odd).step_by(2).copied().collect::<Vec<_>>().concat())
            };
            bytes = rows.chunks(16).flat_map(halves).collect::<Vec<_>>().concat();
        }
        let shape: Vec<u64> = entry.shape.iter().rev().copied().collect();
        for name in names {
            let offsets = [data.len(), data.len() + bytes.len()];
            header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
            data.extend(&bytes);
        }
    }
    for layer in (0..4).filter(|_| n_experts > 0) {
        let name = format!("model.layers.{layer}.block_sparse_moe.gate.weight");
        let offsets = [data.len(), data.len() + n_experts * 64 * 4];
        header.insert(name, json!({"dtype": "F32", "shape": [n_experts, 64], "data_offsets": offsets}));
        data.resize(offsets[1], 0);
    }
    let header = format!("{:<12000}", Value::Object(header).to_string());
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data.as_slice()].concat();
    fs::write(copy.at("model.safetensors"), file).unwrap();
    gguf
}

#[test]
fn a_folder_is_the_same_model_as_the_gguf_file_of_it_to_the_byte() {
    let copy = Copy::of("llama_hf");
    let gguf = write_llama(&copy);
    let found = copy.build().unwrap();
    assert_eq!(found.hyperparameters, gguf.hyperparameters);
    assert_eq!((&found.end_tokens, found.tensors.len()), (&gguf.end_tokens, gguf.tensors.len()));
    for entry in &found.tensors {
        let same = gguf.tensor(entry.role, entry.layer).unwrap();
        assert_eq!((&entry.shape, entry.tensor_type), (&same.shape, same.tensor_type), "{}", entry.name);
        // Queries and keys have their rows in another order in the folder.
        assert_eq!(entry.sha256, same.sha256, "{}", entry.name);
        assert!(entry.matches(&bytes(copy.0.path(), &found, &entry.name)), "{}", entry.name);
    }
    let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
}

#[test]
fn experts_that_a_folder_has_apart_are_one_tensor() {
    let copy = Copy::of("llama_hf");
    let gguf = write_mixtral(&copy, 3);
    copy.edit("config.json", |config| {
        config["model_type"] = "mixtral".into();
        config["num_local_experts"] = 3.into();
        config["num_experts_per_tok"] = 2.into();
    });
    let found = copy.build().unwrap();
    assert_eq!(found.hyperparameters.experts, Some(Experts { n_experts: 3, n_chosen: 2, scale: 1.0 }));
    for (role, of_one) in [(Role::ExpertGate, Role::FfnGate), (Role::ExpertDown, Role::FfnDown)] {
        let (whole, one) = (found.tensor(role, Some(2)).unwrap(), gguf.tensor(of_one, Some(2)).unwrap());
        assert_eq!(whole.shape, [one.shape[0], one.shape[1], 3]);
        let one = bytes(&files::tiny("llama"), &gguf, &one.name);
        assert!(bytes(copy.0.path(), &found, &whole.name) == one.repeat(3), "{}", whole.name);
    }
    copy.edit("config.json", |config| config["num_local_experts"] = 4.into());
    assert_says(&copy.build().unwrap_err(), &["blk.0.ffn_gate_inp.weight", "[64, 3]", "[64, 4]"]);
}

#[test]
fn shards_are_one_model_whose_vectors_are_widened() {
    let gguf = Manifest::build(&files::tiny("qwen2")).unwrap();
    let path = folder("qwen2_hf");
    let found = Manifest::build(&path).unwrap();
    assert_eq!(found.hyperparameters, gguf.hyperparameters);
    assert_eq!((found.files.len(), found.tensors.len()), (7, gguf.tensors.len()));
    // Of F16 in the file. Both are read in pieces that begin and end anywhere, too.
    for name in ["blk.2.attn_q.bias", "blk.3.attn_k.weight"] {
        let entry = found.tensors.iter().find(|entry| entry.name == name).unwrap();
        let reader = TensorReader::open(&path, &found, entry).unwrap();
        let whole = reader.read_all().unwrap();
        assert!(entry.matches(&whole), "{name}");
        for (from, to) in [(0, 1), (1, 2), (3, 9), (7, 64), (5, whole.len())] {
            let mut part = vec![0; to - from];
            reader.read_at(from as u64, &mut part).unwrap();
            assert_eq!(part, whole[from..to], "{name}, {from} to {to}");
        }
        assert!(reader.read_at(whole.len() as u64, &mut [0]).is_err());
    }
    let f32s = |manifest: &Manifest, path: &Path| -> Vec<f32> {
        let bytes = bytes(path, manifest, "blk.2.attn_q.bias");
        bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
    };
    let (halves, exact) = (f32s(&found, &path), f32s(&gguf, &files::tiny("qwen2")));
    // The golden weights were rounded to F16.
    assert!(halves.iter().zip(&exact).all(|(half, exact)| (half - exact).abs() <= exact.abs() / 2048.0));
    assert_eq!(halves.len(), 96);
}

#[test]
fn rows_that_take_turns_are_read_in_pieces_as_in_whole() {
    let copy = Copy::of("llama_hf");
    write_llama(&copy);
    let manifest = copy.build().unwrap();
    let entry = manifest.tensors.iter().find(|entry| entry.name == "blk.1.attn_q.weight").unwrap();
    assert_eq!(entry.source.form.heads_taking_turns, Some(4));
    let reader = TensorReader::open(copy.0.path(), &manifest, entry).unwrap();
    let whole = reader.read_all().unwrap();
    for piece in [1, 100, 128, 1000] {
        let mut pieces = Vec::new();
        while pieces.len() < whole.len() {
            let mut part = vec![0; piece.min(whole.len() - pieces.len())];
            reader.read_at(pieces.len() as u64, &mut part).unwrap();
            pieces.extend(part);
        }
        assert!(pieces == whole, "pieces of {piece}");
    }
}

#[test]
fn any_file_of_a_folder_stands_for_it() {
    let digest = Manifest::outline(&folder("qwen2_hf")).unwrap().digest();
    for name in ["config.json", "model.safetensors.index.json", "model-00002-of-00003.safetensors"] {
        assert_eq!(Manifest::outline(&folder("qwen2_hf").join(name)).unwrap().digest(), digest, "{name}");
    }
}

#[test]
fn llama_3s_frequencies_are_a_tensor_that_no_file_has() {
    let copy = Copy::of("llama_hf");
    write_llama(&copy);
    copy.edit("config.json", |config| {
        config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    });
    let manifest = copy.build().unwrap();
    assert!(manifest.hyperparameters.rope.as_ref().unwrap().has_frequency_factors);
    let factors = bytes(copy.0.path(), &manifest, "rope_freqs.weight");
    assert_eq!(
        (factors.len(), &factors[..4], &factors[28..]),
        (32, &1_f32.to_le_bytes()[..], &8_f32.to_le_bytes()[..])
    );
}

#[test]
fn a_tied_output_is_the_embedding_whatever_else_is_there() {
    let copy = Copy::of("llama_hf");
    write_llama(&copy);
    copy.edit("config.json", |config| config["tie_word_embeddings"] = true.into());
    assert!(copy.build().unwrap().hyperparameters.tied_embedding);
    let error = refusal("llama_hf", |copy| copy.edit_header("model.safetensors", "lm_head.weight", "lm_dead.weight"));
    assert_says(&error, &["`lm_dead.weight` is not part of a llama model"]);
}

#[test]
fn fields_that_change_the_arithmetic_are_refused_with_their_names() {
    let table: [(&str, Value, &str); 18] = [
        (
            "model_type",
            json!("mamba"),
            "`model_type` is \"mamba\", which is not supported; supported are llama, mistral",
        ),
        ("model_type", json!(null), "`model_type` is missing"),
        ("model_type", json!(3), "`model_type` is 3, but a string"),
        ("hidden_act", json!("gelu"), "`hidden_act` is \"gelu\""),
        ("hidden_size", json!(-64), "`hidden_size` is -64"),
        ("hidden_size", json!("64"), "`hidden_size` is \"64\""),
        ("num_attention_heads", json!(0), "`num_attention_heads` is 0"),
        ("num_key_value_heads", json!(3), "`num_key_value_heads` is 3"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "`rope_scaling.type` is \"dynamic\""),
        ("quantization_config", json!({"quant_method": "gptq"}), "`quantization_config` is an object"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "`layer_types` is an array"),
        ("tie_word_embeddings", json!("no"), "`tie_word_embeddings` is \"no\""),
        ("eos_token_id", json!([1, "a"]), "`eos_token_id` is an array"),
        // Factors of positions would be as many as that, made before anything else is read.
        ("head_dim", json!(u32::MAX), "`head_dim` is 4294967295"),
        ("head_dim", json!(0), "`head_dim` is 0"),
        ("partial_rotary_factor", json!(1e300), "`partial_rotary_factor` is 1e+300"),
        ("partial_rotary_factor", json!(0.0), "`partial_rotary_factor` is 0.0"),
        ("vocab_size", json!(1e300), "`vocab_size` is 1e+300"),
    ];
    for (field, value, words) in table {
        let error = refusal("llama_hf", |copy| copy.edit("config.json", |config| config[field] = value));
        assert_says(&error, &[words]);
    }
    let windows =
        refusal("qwen2_hf", |copy| copy.edit("config.json", |config| config["use_sliding_window"] = true.into()));
    assert_says(&windows, &["config.json: `use_sliding_window` is true"]);
}

#[test]
fn a_gguf_file_beside_the_configuration_it_was_made_of_is_the_model() {
    let copy = Copy::of("qwen2_hf");
    fs::copy(files::tiny("llama"), copy.at("m.gguf")).unwrap();
    let outline = Manifest::outline(copy.0.path()).unwrap();
    assert_eq!(outline.files[0].name, "config.json", "safetensors are there, too");
    for file in outline.files.iter().filter(|file| file.name.contains(".safetensors")) {
        fs::remove_file(copy.at(&file.name)).unwrap();
    }
    assert_eq!(copy.build().unwrap().files[0].name, "m.gguf");
    fs::copy(files::tiny("llama"), copy.at("n.gguf")).unwrap();
    assert_says(&copy.build().unwrap_err(), &["names several models, \"m.gguf\" and \"n.gguf\"; name one of them"]);
}

#[test]
fn files_that_are_missing_or_no_such_files_are_named() {
    let without = |model: &str, name: &str| refusal(model, |copy| fs::remove_file(copy.at(name)).unwrap());
    assert_says(&without("llama_hf", "model.safetensors"), &["neither `model.safetensors` nor"]);
    assert_says(&without("llama_hf", "tokenizer.json"), &["tokenizer.json"]);
    assert_says(&without("qwen2_hf", "model-00002-of-00003.safetensors"), &["model-00002-of-00003.safetensors"]);
    assert_says(&without("qwen2_hf", "model.safetensors.index.json"), &["neither `model.safetensors` nor"]);
    let written = |name: &str, text: &str| refusal("qwen2_hf", |copy| fs::write(copy.at(name), text).unwrap());
    assert_says(&written("config.json", "[]"), &["config.json: it is no JSON object"]);
    assert_says(&written("config.json", &"[".repeat(1 << 20)), &["config.json: it is no JSON object"]);
    assert_says(
        &written("config.json", &" ".repeat((1 << 20) + 1)),
        &["`config.json` has 1048577 bytes, over the limit"],
    );
    assert_says(&written("tokenizer.json", "{}"), &["tokenizer.json"]);
    let long = |name: &str, n_bytes: u64| {
        refusal("qwen2_hf", |copy| fs::File::create(copy.at(name)).unwrap().set_len(n_bytes).unwrap())
    };
    assert_says(&long("tokenizer.json", (64 << 20) + 1), &["`tokenizer.json` has 67108865 bytes, over the limit"]);
    let config = long("tokenizer_config.json", (16 << 20) + 1);
    assert_says(&config, &["`tokenizer_config.json` has 16777217 bytes, over the limit"]);
    assert_says(
        &written("generation_config.json", "{\"eos_token_id\": {}}"),
        &["generation_config.json: `eos_token_id`"],
    );
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    let index = "model.safetensors.index.json";
    let with = |tensor: &str, shard: &str| {
        refusal("qwen2_hf", |copy| copy.edit(index, |json| json["weight_map"][tensor] = shard.into()))
    };
    let beyond = with("model.layers.9.mlp.up_proj.weight", "model-00001-of-00003.safetensors");
    assert_says(&beyond, &["`weight_map.model.layers.9.mlp.up_proj.weight`", "model-00001-of-00003.safetensors"]);
    assert_says(
        &with("lm_head.weight", "model-00002-of-00003.safetensors"),
        &["`weight_map.lm_head.weight`", "not in that file"],
    );
    assert_says(&with("lm_head.weight", "../model.safetensors"), &["`weight_map`", "\"../model.safetensors\""]);
    assert_says(&with("lm_head.weight", "model-00004-of-00003.safetensors"), &["cannot read", "model-00004-of-00003"]);
    let twice = refusal("qwen2_hf", |copy| {
        let text = fs::read_to_string(copy.at(index)).unwrap();
        let text = text.replacen("\"weight_map\": {", "\"weight_map\": {\"lm_head.weight\": \"a.safetensors\",", 1);
        fs::write(copy.at(index), text).unwrap();
    });
    assert_says(&twice, &["`weight_map.lm_head.weight` stands in it twice"]);
    let shards = refusal("qwen2_hf", |copy| {
        fs::copy(copy.at("model-00001-of-00003.safetensors"), copy.at("model-00002-of-00003.safetensors"))
            .map(|_| ())
            .unwrap();
    });
    assert_says(&shards, &["stands in model-00001-of-00003.safetensors and in model-00002"]);
}

#[test]
fn a_shard_cut_at_any_length_is_refused() {
    let copy = Copy::of("qwen2_hf");
    let name = "model-00002-of-00003.safetensors";
    let whole = fs::read(copy.at(name)).unwrap();
    let spread = (0..100).map(|step| step * whole.len() / 100);
    for len in spread.chain(0..20).chain([whole.len() - 1]) {
        fs::write(copy.at(name), &whole[..len]).unwrap();
        let error = copy.build().expect_err("a cut shard was taken");
        assert_says(&error, &[name]);
    }
}

#[test]
fn a_file_beside_the_weights_cut_at_any_length_is_refused_by_its_name() {
    for name in ["config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"] {
        let copy = Copy::of("qwen2_hf");
        let whole = fs::read(copy.at(name)).unwrap();
        let end = whole.trim_ascii_end().len();
        for len in (0..end).step_by(97).chain([end - 1]) {
            fs::write(copy.at(name), &whole[..len]).unwrap();
            let error = copy.build().expect_err("a cut file was taken");
            assert!(error.contains(name), "{name} cut at {len}: {error}");
        }
    }
}

#[test]
fn numbers_of_a_configuration_that_are_none_in_32_bits_are_refused_with_their_field() {
    for field in ["rms_norm_eps", "rope_theta"] {
        for spoilt in [json!(0), json!(-1e-5), json!(1e300), json!(1e-300)] {
            let error = refusal("llama_hf", |copy| copy.edit("config.json", |config| config[field] = spoilt.clone()));
            assert_says(&error, &["config.json: ", &format!("`{field}` is {spoilt}")]);
        }
    }
    let error = refusal("llama_hf", |copy| {
        copy.edit("config.json", |config| config["rope_scaling"] = json!({"rope_type": "linear", "factor": 0.0}));
    });
    assert_says(&error, &["`rope_scaling.factor` is 0.0"]);
}

#[test]
fn tensors_that_cannot_be_are_refused_with_their_names() {
    let shard = "model.safetensors";
    let with = |from: &'static str, to: &'static str| refusal("llama_hf", |copy| copy.edit_header(shard, from, to));
    assert_says(&with("\"lm_head.weight\"", "\"ln_head.weight\""), &["`ln_head.weight` is not part of a llama model"]);
    assert_says(&with("\"BF16\"", "\"BF17\""), &["`lm_head.weight.dtype` is \"BF17\""]);
    assert_says(&with("\"BF16\"", "\"I16\""), &["`lm_head.weight.dtype` is I16"]);
    assert_says(&with("[384,64]", "[192,64]"), &["`lm_head.weight.data_offsets` make 49152 bytes"]);
}

#[test]
fn types_of_a_folder_are_those_of_its_files() {
    let manifest = Manifest::outline(&folder("qwen2_hf")).unwrap();
    assert_eq!(manifest.tensor_types().into_iter().collect::<Vec<_>>(), [TensorType::F32, TensorType::F16]);
}
