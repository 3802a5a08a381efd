//! GGUF: bytes as the file of a model, from the header to the manifest and the text side.
//!
//! Seeds are headers alone, so the file is read once as it is and once with a hole after it, in which the tensors lie.
#![no_main]

use std::fs::{self, OpenOptions};
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use polyphony_model::{Card, Gguf, GgufError, Manifest};

/// More than the tensors of the golden models that seeds are made of.
const HOLE_BYTES: u64 = 4 << 20;

static PLACE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let path = folder.path().join("model.gguf");
    (folder, path)
});

fuzz_target!(|data: &[u8]| {
    match Gguf::read(&mut Cursor::new(data)) {
        Ok(header) => drop(Card::from_gguf(&header)),
        // The hole mends that.
        Err(GgufError::OutOfFile { .. } | GgufError::Truncated { .. }) => {}
        Err(_) => return,
    }
    let path = &PLACE.1;
    fs::write(path, data).expect("the file can be written");
    if let Ok(manifest) = Manifest::build(path) {
        check(manifest);
    }
    let file = OpenOptions::new().write(true).open(path).expect("it was written");
    file.set_len(data.len() as u64 + HOLE_BYTES).expect("a hole takes no room");
    if let Ok(manifest) = Manifest::outline(path) {
        check(manifest);
    }
});

/// What the host makes is what a phone takes.
fn check(manifest: Manifest) {
    manifest.check().expect("what is made of a file is sound");
    let json = serde_json::to_string(&manifest).expect("a manifest is JSON");
    let back: Manifest = serde_json::from_str(&json).expect("a manifest comes back");
    assert_eq!(back, manifest);
}
