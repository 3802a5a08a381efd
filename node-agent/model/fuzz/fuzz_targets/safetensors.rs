//! Safetensors: bytes as the weights of a golden folder, or as all files of a folder.
//!
//! With a byte of 0xff, which no text has, the input is a folder: `config.json`, index, `generation_config.json`,
//! `tokenizer_config.json` and the headers of up to three files, each after such a byte. Without one it is a safetensors file. Data
//! are holes, as long as the offsets in the headers say.
#![no_main]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use polyphony_model::Manifest;

/// The longest data that a header is given.
const MAX_HOLE_BYTES: u64 = 4 << 20;
const SHARDS: [&str; 3] =
    ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"];

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../../e2e/golden/tiny/llama_hf/", $name))
    };
}

static WEIGHTS_ALONE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    write(folder.path(), "config.json", golden!("config.json"));
    write(folder.path(), "tokenizer.json", golden!("tokenizer.json"));
    write(folder.path(), "tokenizer_config.json", golden!("tokenizer_config.json"));
    folder
});

static WHOLE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    write(folder.path(), "tokenizer.json", golden!("tokenizer.json"));
    folder
});

fuzz_target!(|data: &[u8]| { if data.contains(&0xff) { folder(data) } else { weights_alone(data) } });

fn weights_alone(data: &[u8]) {
    let folder = WEIGHTS_ALONE.path();
    let path = folder.join("model.safetensors");
    fs::write(&path, data).expect("the file can be written");
    take(folder);
    let Some((length, rest)) = data.split_first_chunk::<8>() else { return };
    let header = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|n| rest.get(..n));
    if let Some(header) = header {
        write_weights(&path, header);
        take(folder);
    }
}

fn folder(data: &[u8]) {
    let folder = WHOLE.path();
    let mut parts = data.split(|byte| *byte == 0xff);
    for name in ["config.json", "model.safetensors.index.json", "generation_config.json", "tokenizer_config.json"] {
        match parts.next().filter(|part| !part.is_empty()) {
            Some(part) => write(folder, name, part),
            None => drop(fs::remove_file(folder.join(name))),
        }
    }
    for name in SHARDS {
        match parts.next() {
            Some(header) => write_weights(&folder.join(name), header),
            None => drop(fs::remove_file(folder.join(name))),
        }
    }
    take(folder);
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(name), bytes).expect("the file can be written");
}

/// A file of this header, and of as many bytes of data as its offsets call for.
fn write_weights(path: &Path, header: &[u8]) {
    let mut file = File::create(path).expect("the file can be made");
    let start = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    file.write_all(&start).expect("the file can be written");
    let json: serde_json::Value = serde_json::from_slice(header).unwrap_or_default();
    let ends = json.as_object().into_iter().flatten().filter_map(|(_, entry)| entry["data_offsets"][1].as_u64());
    let n_data = ends.max().unwrap_or(0).min(MAX_HOLE_BYTES);
    file.set_len(start.len() as u64 + n_data).expect("a hole takes no room");
}

fn take(folder: &Path) {
    let Ok(manifest) = Manifest::outline(folder) else { return };
    manifest.check().expect("what is made of a folder is sound");
    let json = serde_json::to_string(&manifest).expect("a manifest is JSON");
    let back: Manifest = serde_json::from_str(&json).expect("a manifest comes back");
    assert_eq!(back, manifest);
}
