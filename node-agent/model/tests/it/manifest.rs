//! Manifests: what they list, whose bytes are whose, and what a phone refuses.

use polyphony_model::{FilesError, Holds, LayerRange, Manifest, ModelError, Role, TensorEntry, TensorType};
use sha2::{Digest, Sha256};

use crate::files;
use crate::gguf_writer::{self, File, Value};

fn names(entries: &[&TensorEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.name.clone()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Of a tensor of a model of one file.
fn bytes_of<'a>(file: &'a [u8], entry: &TensorEntry) -> &'a [u8] {
    let range = entry.source.plain().unwrap();
    &file[range.offset as usize..(range.offset + range.n_bytes) as usize]
}

fn built(spoil: impl FnOnce(&mut File)) -> Result<Manifest, String> {
    let mut file = gguf_writer::llama();
    spoil(&mut file);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    Manifest::build(&path).map_err(|error| {
        assert!(error.to_string().contains("made.gguf"), "no path in: {error}");
        error.to_string()
    })
}

/// What a bad wire or a bad host could do to a manifest.
type Spoil = fn(&mut Manifest);

/// The manifest of a file without damage, then spoilt as a phone might receive it.
fn refusal(spoil: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = Manifest::build(&files::tiny("llama_q4_1")).unwrap();
    spoil(&mut manifest);
    manifest.check().expect_err("a spoilt manifest was taken").to_string()
}

#[test]
fn every_digest_is_that_of_the_bytes_in_the_file() {
    for name in files::TINY {
        let path = files::tiny(name);
        let file = std::fs::read(&path).unwrap();
        let manifest = Manifest::build(&path).unwrap();
        manifest.check().unwrap();
        assert_eq!((manifest.file_bytes(), manifest.file_sha256()), (file.len() as u64, sha256(&file)), "{name}");
        for entry in &manifest.tensors {
            let bytes = bytes_of(&file, entry);
            assert_eq!(entry.sha256, sha256(bytes), "{name}: {}", entry.name);
            assert!(entry.matches(bytes));
            assert!(!entry.matches(&bytes[1..]) && !entry.matches(&vec![0x5a; bytes.len()]));
        }
        // The last four tokens are control tokens, the end of an answer the second of them.
        assert_eq!(manifest.end_tokens, [manifest.hyperparameters.vocab_size - 3], "{name}");
    }
}

#[test]
fn the_real_model_is_listed_whole() {
    let Some(path) = files::smollm2() else { return };
    let mut reports = Vec::new();
    let manifest = Manifest::build_with_progress(&path, &mut |bytes| {
        reports.push(bytes);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(manifest.file_sha256(), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
    assert_eq!(manifest.tensors.len(), 272);
    assert_eq!(manifest.end_tokens, [0, 2], "<|endoftext|> and <|im_end|>");
    assert_eq!(manifest.layer_bytes(29), 2_216_448);
    let types = [TensorType::F32, TensorType::Q4_1, TensorType::Q8_0];
    assert_eq!(manifest.tensor_types().into_iter().collect::<Vec<_>>(), types);
    let file = std::fs::read(&path).unwrap();
    for entry in manifest.tensors.iter().filter(|entry| entry.layer.is_none_or(|layer| layer % 7 == 0)) {
        let bytes = bytes_of(&file, entry);
        assert!(entry.matches(bytes), "{}", entry.name);
    }
    assert_eq!(reports.last(), Some(&manifest.file_bytes()));
    assert!(reports.is_sorted());
}

#[test]
fn a_manifest_comes_back_from_json_with_the_same_digest() {
    for name in files::TINY {
        let manifest = Manifest::build(&files::tiny(name)).unwrap();
        let json = serde_json::to_string(&manifest).unwrap();
        let back: Manifest = serde_json::from_str(&json).unwrap();
        assert_eq!(back, manifest, "{name}");
        assert_eq!(back.digest(), manifest.digest(), "{name}");
        let mut other = back;
        other.end_tokens.push(1);
        assert_ne!(other.digest(), manifest.digest(), "{name}");
    }
}

#[test]
fn a_manifest_with_a_field_that_nobody_knows_is_refused() {
    let manifest = Manifest::build(&files::tiny("llama")).unwrap();
    let mut json = serde_json::to_value(&manifest).unwrap();
    json["tensors"][0]["compression"] = "zstd".into();
    let error = serde_json::from_value::<Manifest>(json).unwrap_err().to_string();
    assert!(error.contains("compression"), "{error}");
}

#[test]
fn a_segment_needs_its_own_tensors_and_no_others() {
    let manifest = Manifest::build(&files::tiny("llama")).unwrap();
    let first = Holds { embedding: true, layers: LayerRange::from(0..1), head: false };
    let mut expected = vec!["token_embd.weight".to_owned()];
    let of = &manifest.hyperparameters;
    expected.extend(Role::of_layer(of, 0).map(|role| role.tensor_name(of, Some(0))));
    let mut found = names(&manifest.tensors_of(&first));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);

    // What stands at either end goes with it.
    let bloom = Manifest::build(&files::tiny("bloom")).unwrap();
    let ends = |embedding, head| names(&bloom.tensors_of(&Holds { embedding, layers: LayerRange::from(2..2), head }));
    assert_eq!(ends(true, false), ["token_embd.weight", "token_embd_norm.weight", "token_embd_norm.bias"]);
    assert_eq!(ends(false, true), ["output_norm.weight", "output_norm.bias", "output.weight"]);
    let gpt2 = Manifest::build(&files::tiny("gpt2")).unwrap();
    let first = Holds { embedding: true, layers: LayerRange::from(2..2), head: false };
    assert_eq!(names(&gpt2.tensors_of(&first)), ["token_embd.weight", "position_embd.weight"]);

    let last = Holds { embedding: false, layers: LayerRange::from(4..4), head: true };
    assert_eq!(names(&manifest.tensors_of(&last)), ["output_norm.weight", "output.weight"]);
    let nothing = Holds::default();
    assert!(manifest.tensors_of(&nothing).is_empty() && manifest.bytes_of(&nothing) == 0);
    assert_eq!(manifest.tensors_of(&Holds::all(4)).len(), manifest.tensors.len());
}

#[test]
fn a_tied_embedding_belongs_to_head_and_tail_and_frequencies_to_any_layer() {
    let manifest = Manifest::build(&files::tiny("llama_freqs")).unwrap();
    let tail = Holds { embedding: false, layers: LayerRange::from(3..4), head: true };
    let found = names(&manifest.tensors_of(&tail));
    for name in ["token_embd.weight", "output_norm.weight", "rope_freqs.weight", "blk.3.attn_q.weight"] {
        assert!(found.iter().any(|found| found == name), "{name} is missing in {found:?}");
    }
    assert_eq!(found.len(), 3 + 9);
    let whole = Holds::all(4);
    let sum: u64 = manifest.tensors.iter().map(|entry| entry.n_bytes).sum();
    assert_eq!(manifest.bytes_of(&whole), sum, "the embedding counts once where one phone has both ends");
    let head_alone = Holds { embedding: true, layers: LayerRange::default(), head: true };
    assert_eq!(names(&manifest.tensors_of(&head_alone)), ["token_embd.weight", "output_norm.weight"]);
}

#[test]
fn cutting_the_layers_anywhere_loses_and_doubles_nothing() {
    let manifest = Manifest::build(&files::tiny("llama")).unwrap();
    for cut in 0..=4 {
        let front = Holds { embedding: true, layers: LayerRange::from(0..cut), head: false };
        let back = Holds { embedding: false, layers: LayerRange::from(cut..4), head: true };
        let sum = manifest.bytes_of(&front) + manifest.bytes_of(&back);
        assert_eq!(sum, manifest.bytes_of(&Holds::all(4)), "cut at {cut}");
    }
    let layers: u64 = (0..4).map(|layer| manifest.layer_bytes(layer)).sum();
    let only_layers = Holds { embedding: false, layers: LayerRange::from(0..4), head: false };
    assert_eq!(layers, manifest.bytes_of(&only_layers));
}

#[test]
fn a_model_file_that_is_not_whole_gives_no_manifest() {
    assert!(built(|_| ()).is_ok());
    let missing = built(|file| file.tensors.retain(|tensor| tensor.name != "blk.0.ffn_up.weight"));
    assert!(missing.unwrap_err().contains("`blk.0.ffn_up.weight` is missing"));
    let shape = built(|file| file.tensor("blk.0.attn_k.weight").shape = vec![16, 32]);
    let shape = shape.unwrap_err();
    assert!(shape.contains("`blk.0.attn_k.weight` has the shape [16, 32]") && shape.contains("[32, 16]"), "{shape}");
    let unknown = built(|file| file.add_f32("blk.0.attn_q.bias", &[32]));
    assert!(unknown.unwrap_err().contains("`blk.0.attn_q.bias` is not part of a llama model"));
    let beyond = built(|file| file.add_f32("blk.7.attn_norm.weight", &[32]));
    assert!(beyond.unwrap_err().contains("`blk.7.attn_norm.weight` is not part"));
    let half = built(|file| file.tensor("output_norm.weight").type_number = 1);
    assert!(half.unwrap_err().contains("`output_norm.weight` is of type F16"));
}

/// A Llama whose layer has four experts, of which a token takes two.
fn mixtral(file: &mut File) {
    file.set("llama.expert_count", Value::U32(4)).set("llama.expert_used_count", Value::U32(2));
    file.tensors.retain(|tensor| !["ffn_gate", "ffn_up", "ffn_down"].iter().any(|name| tensor.name.contains(name)));
    file.add_f32("blk.0.ffn_gate_inp.weight", &[32, 4]);
    file.add_f32("blk.0.ffn_gate_exps.weight", &[32, 64, 4]);
    file.add_f32("blk.0.ffn_up_exps.weight", &[32, 64, 4]);
    file.add_f32("blk.0.ffn_down_exps.weight", &[64, 32, 4]);
}

#[test]
fn experts_that_do_not_fit_their_router_are_refused_by_the_tensors_name() {
    let manifest = built(mixtral).unwrap();
    let of_layer = names(&manifest.tensors_of(&Holds { layers: LayerRange::from(0..1), ..Holds::default() }));
    assert!(of_layer.contains(&"blk.0.ffn_down_exps.weight".to_owned()), "{of_layer:?}");
    assert_eq!(manifest.tensor(Role::ExpertUp, Some(0)).unwrap().n_bytes, 32 * 64 * 4 * 4);

    let refusal = |spoil: &dyn Fn(&mut File)| {
        built(|file| {
            mixtral(file);
            spoil(file);
        })
        .unwrap_err()
    };
    let wide = refusal(&|file| file.tensor("blk.0.ffn_gate_inp.weight").shape = vec![16, 8]);
    assert!(wide.contains("`blk.0.ffn_gate_inp.weight` has the shape [16, 8]") && wide.contains("[32, 4]"), "{wide}");
    let wider = refusal(&|file| {
        let offset = file.data.len() as u64;
        file.data.extend([0; 32 * 8 * 4]);
        let router = file.tensor("blk.0.ffn_gate_inp.weight");
        (router.shape, router.offset) = (vec![32, 8], offset);
    });
    assert!(
        wider.contains("`blk.0.ffn_gate_inp.weight` has the shape [32, 8]") && wider.contains("[32, 4]"),
        "{wider}"
    );
    let few = refusal(&|file| file.tensor("blk.0.ffn_up_exps.weight").shape = vec![32, 64, 3]);
    assert!(few.contains("`blk.0.ffn_up_exps.weight` has the shape [32, 64, 3]"), "{few}");
    for name in ["blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_exps.weight", "blk.0.ffn_down_exps.weight"] {
        let missing = refusal(&|file| file.tensors.retain(|tensor| tensor.name != name));
        assert!(missing.contains(&format!("`{name}` is missing")), "{missing}");
    }
    let none = refusal(&|file| {
        file.set("llama.expert_count", Value::U32(0));
    });
    assert!(none.contains("`llama.expert_count` is 0"), "{none}");
    let bias = refusal(&|file| file.add_f32("blk.0.ffn_gate_inp.bias", &[4]));
    assert!(bias.contains("`blk.0.ffn_gate_inp.bias` is not part of a llama model"), "{bias}");
}

#[test]
fn what_no_gateway_could_answer_with_is_refused_with_its_tensors() {
    let set = |key: &'static str, value: Value| {
        built(move |file| {
            file.set(key, value);
        })
    };
    let kind = set("tokenizer.ggml.model", gguf_writer::text("rwkv")).unwrap_err();
    assert!(kind.contains("tokenizer model `rwkv`"), "{kind}");
    let pre = set("tokenizer.ggml.pre", gguf_writer::text("poro-chat")).unwrap_err();
    assert!(pre.contains("pre-tokenizer `poro-chat`"), "{pre}");
    let merges = set("tokenizer.ggml.merges", gguf_writer::strings(&["a z"])).unwrap_err();
    assert!(merges.contains("do not fit together"), "{merges}");
    let template = set("tokenizer.chat_template", gguf_writer::text("{{ clock('%Y') }}")).unwrap_err();
    assert!(template.contains("clock is unknown"), "{template}");
    let doubling = "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    let doubling = set("tokenizer.chat_template", gguf_writer::text(doubling)).unwrap_err();
    assert!(doubling.contains("more text than any chat needs"), "{doubling}");
    let rows = built(|file| file.tensor("token_embd.weight").shape = vec![32, 4]).unwrap_err();
    assert!(rows.contains("has 5 tokens, but `token_embd.weight` has 4 rows"), "{rows}");
}

#[test]
fn what_no_kernel_computes_with_is_refused_with_its_tensor() {
    let long = built(|file| file.tensor("blk.0.ffn_up.weight").type_number = 24).unwrap_err();
    assert!(
        long.contains("`blk.0.ffn_up.weight` is of type I8, but kernels read F32, F16, Q4_0, Q4_1, Q5_0"),
        "{long}"
    );
    assert!(long.contains("Q6_K, IQ4_NL, IQ4_XS, BF16, MXFP4 only"), "{long}");
    // Rows of 32 are no whole blocks of 256.
    let blocks = built(|file| file.tensor("blk.0.ffn_up.weight").type_number = 14).unwrap_err();
    assert!(blocks.contains("blk.0.ffn_up.weight"), "{blocks}");
}

#[test]
fn matrices_of_any_width_are_taken() {
    let width = built(|file| {
        file.set("llama.feed_forward_length", Value::U32(72));
        for (name, shape) in [("gate", vec![32, 72]), ("up", vec![32, 72]), ("down", vec![72, 32])] {
            file.tensors.retain(|tensor| tensor.name != format!("blk.0.ffn_{name}.weight"));
            file.add_f32(&format!("blk.0.ffn_{name}.weight"), &shape);
        }
    });
    assert!(width.is_ok(), "{width:?}");
}

#[test]
fn a_weight_that_is_no_number_is_found_when_the_file_is_read() {
    let error = built(|file| {
        let at = file.tensor("blk.0.ffn_gate.weight").offset as usize + 400;
        file.data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let error = error.unwrap_err();
    assert!(error.contains("`blk.0.ffn_gate.weight` holds infinite values or some that are no numbers"), "{error}");
}

#[test]
fn factors_of_positions_that_are_zero_or_no_numbers_are_refused_with_their_tensor() {
    let name = "rope_freqs.weight";
    let with = |spoilt: f32| {
        built(|file| {
            file.add_f32(name, &[8]);
            let at = file.tensor(name).offset as usize;
            file.data[at..at + 32].copy_from_slice(&[1_f32; 8].map(f32::to_le_bytes).concat());
            file.data[at + 12..at + 16].copy_from_slice(&spoilt.to_le_bytes());
        })
    };
    assert!(with(32.0).is_ok());
    for spoilt in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = with(spoilt).unwrap_err();
        assert!(
            error.contains("`rope_freqs.weight` holds a value that is no finite number above 0"),
            "{spoilt}: {error}"
        );
    }
}

#[test]
fn only_files_are_opened_and_none_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, what) in [(pipe.as_path(), "a pipe"), (std::path::Path::new("/dev/zero"), "a device")] {
        let error = Manifest::build(path).unwrap_err().to_string();
        assert!(error.contains(&format!("it is {what}, not a regular file")), "{error}");
    }
}

#[test]
fn a_reading_can_be_called_off() {
    let called_off = Manifest::build_with_progress(&files::tiny("llama"), &mut |_| std::ops::ControlFlow::Break(()));
    assert!(matches!(called_off, Err(ModelError::CalledOff { .. })));
}

#[test]
fn an_absent_file_is_an_error_with_its_path() {
    let error = Manifest::build(std::path::Path::new("no/such/model.gguf")).unwrap_err();
    assert!(matches!(error, ModelError::Files(FilesError::Io { .. })));
    assert!(error.to_string().contains("no/such/model.gguf"), "{error}");
}

#[test]
fn a_phone_refuses_a_manifest_that_contradicts_itself() {
    let table: [(Spoil, &str); 17] = [
        (|manifest| manifest.tensors[3].n_bytes += 1, "bytes"),
        (
            |manifest| manifest.tensors[3].source.ranges[0].offset = manifest.tensors[2].source.ranges[0].offset,
            "outside of the file or over another",
        ),
        (|manifest| manifest.tensors[3].source.ranges[0].offset = u64::MAX, "outside of the file"),
        (|manifest| manifest.tensors[3].source.ranges[0].file = 1, "of file 1, which is outside of the file"),
        (|manifest| manifest.tensors[3].source.ranges.clear(), "gives 0 bytes"),
        (|manifest| manifest.tensors[3].source.form.heads_taking_turns = Some(0), "0 heads"),
        (|manifest| manifest.files[0].n_bytes = 1000, "outside of the file"),
        (|manifest| manifest.files[0].name = "../a".into(), "no name of a file"),
        (|manifest| manifest.files.push(manifest.files[0].clone()), "twice"),
        (|manifest| manifest.tensors[3].sha256.push('0'), "no SHA-256"),
        (|manifest| manifest.files[0].sha256 = "B".repeat(64), "no SHA-256"),
        (|manifest| drop(manifest.tensors.remove(3)), "is missing"),
        (|manifest| manifest.tensors.push(manifest.tensors[3].clone()), "twice"),
        (|manifest| manifest.tensors[3].layer = Some(2), "is missing"),
        (|manifest| manifest.hyperparameters.hidden_size = 96, "shape"),
        (|manifest| manifest.hyperparameters.n_kv_heads = 0, "head_count_kv` is 0"),
        (|manifest| manifest.end_tokens.push(384), "end token 384"),
    ];
    for (idx, (spoil, words)) in table.into_iter().enumerate() {
        let error = refusal(spoil);
        assert!(error.contains(words), "case {idx}: {words:?} is not in: {error}");
    }
}
