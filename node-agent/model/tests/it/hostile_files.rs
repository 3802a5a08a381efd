//! Files that are damaged or made to harm: each is an error that says what is wrong, none is a panic.

use std::io::Cursor;

use polyphony_model::{
    Card, Chat, ChatMessage, ChatTemplate, FileRange, Gguf, GgufError, Hyperparameters, TextSide, Tokenizer,
};
use proptest::prelude::*;

use crate::files;
use crate::gguf_writer::{self, File, Value};

fn read(bytes: impl AsRef<[u8]>) -> Result<Gguf, GgufError> {
    Gguf::read(&mut Cursor::new(bytes))
}

fn refusal(spoil: impl FnOnce(&mut File)) -> String {
    let mut file = gguf_writer::llama();
    spoil(&mut file);
    read(file.bytes()).expect_err("a spoilt file was taken").to_string()
}

#[track_caller]
fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn a_sound_file_is_read_with_every_tensor_in_its_place() {
    let bytes = gguf_writer::llama().bytes();
    let gguf = read(&bytes).unwrap();
    assert_eq!((gguf.version, gguf.tensors.len(), gguf.file_len), (3, 11, bytes.len() as u64));
    let data_start = bytes.len() - gguf_writer::llama().data.len();
    let query = gguf.tensor("blk.0.attn_q.weight").unwrap();
    let expected = FileRange { file: 0, offset: data_start as u64 + 1024 + 128 + 128, n_bytes: 4096 };
    assert_eq!((query.source.plain(), query.n_bytes), (Some(expected), 4096));
}

#[test]
fn a_card_leaves_out_what_is_no_text() {
    let mut file = gguf_writer::llama();
    file.set("general.name", Value::U32(7)).set("general.license", gguf_writer::text("mit"));
    let card = Card::from_gguf(&read(file.bytes()).unwrap());
    assert_eq!((card.name, card.licence.as_deref(), card.n_parameters > 0), (None, Some("mit"), true));
}

#[test]
fn a_file_of_version_2_is_read_as_one_of_version_3() {
    let mut file = gguf_writer::llama();
    let newer = read(file.bytes()).unwrap();
    file.version = 2;
    let older = read(file.bytes()).unwrap();
    assert_eq!((older.version, older.metadata, older.tensors), (2, newer.metadata, newer.tensors));
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let bytes = gguf_writer::llama().bytes();
    let last = 64 * 32 * 4;
    assert_eq!(bytes.len() % 32, 0);
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).expect_err("a cut file was taken").to_string();
        let header_ends = bytes.len() - gguf_writer::llama().data.len();
        let words = if len < header_ends - 32 { "truncated" } else { "fetch it again" };
        assert_says(&error, &[words]);
    }
    let error = read(&bytes[..bytes.len() - last]).unwrap_err().to_string();
    assert_says(&error, &["`blk.0.ffn_down.weight`", &bytes.len().to_string()]);
}

#[test]
fn the_real_model_cut_at_many_lengths_is_refused() {
    let Some(path) = files::smollm2() else { return };
    let whole = std::fs::read(path).unwrap();
    let spread = (0..300_usize).map(|step| step * whole.len() / 300);
    for len in spread.chain(0..200).chain([whole.len() - 1]) {
        read(&whole[..len]).expect_err("a cut file was taken");
    }
}

#[test]
fn what_is_no_gguf_file_is_told_apart() {
    assert_says(&refusal(|file| file.magic = *b"PK\x03\x04"), &["no GGUF model"]);
    assert_says(&refusal(|file| file.version = 1), &["version 1", "2 and 3"]);
    assert_says(&refusal(|file| file.version = 3_u32.swap_bytes()), &["big-endian"]);
}

#[test]
fn counts_and_lengths_beyond_the_file_reserve_nothing() {
    assert_says(&refusal(|file| file.n_tensors = Some(u64::MAX)), &["number of tensors", "limit"]);
    assert_says(&refusal(|file| file.n_keys = Some(1 << 40)), &["number of metadata keys", "limit"]);
    assert_says(&refusal(|file| file.n_keys = Some(90_000)), &["metadata key"]);
    let strings = |count: u64| [8_u32.to_le_bytes().as_slice(), &count.to_le_bytes()].concat();
    let long = |bytes: Vec<u8>| {
        refusal(move |file| {
            file.set("a.b", Value::Raw(9, bytes));
        })
    };
    assert_says(&long(strings(1 << 60)), &["`a.b`", "limit"]);
    assert_says(&long(strings(1 << 21)), &["`a.b`", "truncated"]);
    let string = refusal(|file| {
        file.set("a.b", Value::Raw(8, (1_u64 << 20).to_le_bytes().to_vec()));
    });
    assert_says(&string, &["`a.b`", "truncated"]);
}

#[test]
fn values_of_no_known_kind_are_refused_with_their_key() {
    let with = |number, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        refusal(move |file| {
            file.set("a.b", Value::Raw(number, bytes));
        })
    };
    assert_says(&with(13, &[]), &["`a.b`", "13"]);
    let nested = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat();
    assert_says(&with(9, &nested), &["`a.b`", "array of arrays"]);
    let not_utf8 = [2_u64.to_le_bytes().as_slice(), b"\xff\xfe"].concat();
    assert_says(&with(8, &not_utf8), &["`a.b`", "UTF-8"]);
    let twice = refusal(|file| file.keys.push(("general.architecture".into(), gguf_writer::text("llama"))));
    assert_says(&twice, &["`general.architecture`", "twice"]);
}

#[test]
fn tensors_that_cannot_be_are_refused_with_their_name() {
    let name = "blk.0.attn_k.weight";
    let with = |spoil: fn(&mut gguf_writer::Tensor)| refusal(move |file| spoil(file.tensor(name)));
    let quoted = format!("`{name}`");
    assert_says(&with(|tensor| tensor.type_number = 4), &[&quoted, "type number 4"]);
    assert_says(&with(|tensor| (tensor.type_number, tensor.shape) = (2, vec![31, 16])), &[&quoted, "Q4_0", "[31, 16]"]);
    assert_says(&with(|tensor| tensor.shape = vec![]), &[&quoted, "shape"]);
    assert_says(&with(|tensor| tensor.shape = vec![8, 0]), &[&quoted, "shape"]);
    assert_says(&with(|tensor| tensor.shape = vec![1 << 40, 1 << 40]), &[&quoted, "shape"]);
    assert_says(&with(|tensor| tensor.shape = vec![1; 5]), &[&quoted, "dimensions"]);
    assert_says(&with(|tensor| tensor.offset += 4), &[&quoted, "alignment 32"]);
    assert_says(&with(|tensor| tensor.offset = 1 << 40), &[&quoted, "fetch it again"]);
    assert_says(&with(|tensor| tensor.offset = u64::MAX - 31), &[&quoted, "fetch it again"]);
    assert_says(&with(|tensor| tensor.offset = 0), &["token_embd.weight", name, "overlap"]);
    assert_says(&refusal(|file| file.tensor(name).name = "output_norm.weight".into()), &["output_norm", "twice"]);
}

#[test]
fn an_alignment_has_to_be_a_power_of_two() {
    for alignment in [0, 1, 24, 1 << 20] {
        let error = refusal(|file| {
            file.set("general.alignment", Value::U32(alignment));
        });
        assert_says(&error, &["`general.alignment`", &alignment.to_string()]);
    }
}

#[test]
fn an_array_of_bytes_takes_no_more_memory_than_in_the_file() {
    let n_bytes = 4_000_000_u64;
    let mut array = [0_u32.to_le_bytes().as_slice(), &n_bytes.to_le_bytes()].concat();
    array.resize(array.len() + n_bytes as usize, 7);
    let mut file = gguf_writer::llama();
    file.set("a.b", Value::Raw(9, array));
    let gguf = read(file.bytes()).unwrap();
    let Some(polyphony_model::Value::Array(polyphony_model::Array::Numbers(numbers))) = gguf.metadata.get("a.b") else {
        panic!("it is an array of numbers");
    };
    assert_eq!(numbers.n_bytes(), n_bytes as usize);
    assert_eq!(gguf.metadata.optional_integers("a.b").unwrap().unwrap()[..3], [7, 7, 7]);
}

/// Everything that reads a header; errors are welcome, panics are not. Gives the template, where one was rendered.
fn use_all_of(bytes: &[u8]) -> Option<String> {
    let gguf = read(bytes).ok()?;
    let of = Hyperparameters::from_gguf(&gguf);
    if let Ok(of) = &of {
        let _ = TextSide::from_gguf(&gguf, of);
    }
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
        let _ = tokenizer.encode("Hello, world! 123", true).map(|ids| tokenizer.decode(&ids, false));
    }
    let template = ChatTemplate::from_gguf(&gguf).ok()?;
    template.render(&Chat::new(vec![ChatMessage::new("user", "Hello")])).ok().map(|prompt| prompt.text())
}

const TEMPLATE: &str = "{% for m in messages %}{{ bos_token + m.role ~ ': ' ~ m.content | trim }}{% endfor %}";

fn tiny_header() -> Vec<u8> {
    let mut file = gguf_writer::llama();
    file.set("tokenizer.chat_template", gguf_writer::text(TEMPLATE));
    file.bytes()
}

#[test]
fn the_file_whose_bytes_are_changed_is_one_whose_template_is_rendered() {
    assert_eq!(use_all_of(&tiny_header()).as_deref(), Some("Ġuser: Hello"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_bytes_makes_the_reader_panic(
        // The header of the file is about 2,000 bytes long.
        changes in prop::collection::vec((0..2_500_usize, any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, 0..2_500_usize),
    ) {
        let mut bytes = tiny_header();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let _ = use_all_of(&bytes);
    }
}
