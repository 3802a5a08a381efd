//! Split GGUF files: the parts together are the whole, and what is not one of its parts is refused by name.

use std::path::{Path, PathBuf};

use polyphony_model::{Manifest, TensorReader};

use crate::files;
use crate::gguf_writer::{self, File, Value};

const NAMES: [&str; 2] = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];

/// The small llama in two parts, as `gguf-split` writes them.
fn parts() -> [File; 2] {
    let whole = gguf_writer::llama();
    let part = |number: u16, is_in: fn(&str) -> bool| {
        let mut file = File { keys: Vec::new(), tensors: Vec::new(), data: Vec::new(), ..whole.clone() };
        whole.tensors.iter().filter(|it| is_in(&it.name)).for_each(|it| file.add_f32(&it.name, &it.shape));
        file.set("split.no", Value::Raw(2, number.to_le_bytes().to_vec()));
        file.set("split.count", Value::Raw(2, 2_u16.to_le_bytes().to_vec()));
        file.set("split.tensors.count", Value::Raw(5, 11_i32.to_le_bytes().to_vec()));
        file
    };
    let mut first = part(0, |name| !name.contains(".ffn_"));
    first.keys.extend(whole.keys.clone());
    [first, part(1, |name| name.contains(".ffn_"))]
}

/// What becomes of the parts after `spoil`, when `name` is what is named of them.
fn built(name: &str, spoil: impl FnOnce(&mut [File; 2], &Path)) -> Result<Manifest, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut files = parts();
    spoil(&mut files, folder.path());
    for (name, file) in NAMES.iter().zip(&files) {
        // What a test has put there stays.
        if !folder.path().join(name).exists() && file.version > 0 {
            std::fs::write(folder.path().join(name), file.bytes()).unwrap();
        }
    }
    Manifest::build(&folder.path().join(name)).map_err(|error| error.to_string())
}

fn golden(name: &str) -> PathBuf {
    files::golden("tiny").join(name)
}

#[test]
fn parts_of_a_file_give_its_tensors_whichever_is_named() {
    let whole = Manifest::build(&golden("llama_q4_0.gguf")).unwrap();
    for (name, n_files) in [
        ("split2-00001-of-00002.gguf", 2),
        ("split2-00002-of-00002.gguf", 2),
        ("split2-*-of-*.gguf", 2),
        ("split3-00001-of-00003.gguf", 3),
        ("split3-00003-of-00003.gguf", 3),
        ("split3-*", 3),
    ] {
        let path = golden(name);
        let split = Manifest::build(&path).unwrap();
        assert_eq!((split.files.len(), &split.hyperparameters), (n_files, &whole.hyperparameters), "{name}");
        assert_eq!(split.end_tokens, whole.end_tokens);
        assert_eq!(split.tensors.len(), whole.tensors.len(), "{name}");
        for entry in &split.tensors {
            let same = whole.tensor(entry.role, entry.layer).unwrap();
            assert_eq!((&entry.sha256, &entry.shape), (&same.sha256, &same.shape), "{name}: {}", entry.name);
            let bytes = TensorReader::open(&path, &split, entry).unwrap().read_all().unwrap();
            assert!(entry.matches(&bytes), "{name}: {}", entry.name);
        }
    }
}

#[test]
fn the_digest_of_parts_is_that_of_the_list_that_sha256sum_prints() {
    let split = Manifest::build(&golden("split3-00002-of-00003.gguf")).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg("sha256sum split3-*.gguf | sha256sum").current_dir(files::golden("tiny"));
    let listed = shell.output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().split(' ').next().unwrap(), split.file_sha256());
}

#[test]
fn a_part_that_is_missing_is_named() {
    let error = built(NAMES[0], |files, _| files[1].version = 0).unwrap_err();
    assert!(error.contains("m-00002-of-00002.gguf: part 2 of 2 is missing"), "{error}");
    let error = built(NAMES[1], |files, _| files[0].version = 0).unwrap_err();
    assert!(error.contains("m-00001-of-00002.gguf: part 1 of 2 is missing"), "{error}");
}

#[test]
fn parts_that_overlap_are_refused_with_the_file_and_the_field() {
    assert!(built("*.gguf", |_, _| ()).is_ok());
    let number = |number: u16| Value::Raw(2, number.to_le_bytes().to_vec());
    let error = built(NAMES[0], |files, _| {
        files[1].set("split.no", number(0));
    })
    .unwrap_err();
    assert!(error.contains("m-00002-of-00002.gguf: `split.no` is 0, but it is named as part 2"), "{error}");
    // Beyond the parts that there are.
    let error = built(NAMES[0], |files, _| {
        files[1].set("split.no", number(2));
    })
    .unwrap_err();
    assert!(error.contains("m-00002-of-00002.gguf: `split.no` is 2, but it is named as part 2"), "{error}");
    let error = built(NAMES[0], |files, _| files[1].add_f32("output_norm.weight", &[32])).unwrap_err();
    assert!(
        error.contains("m-00002-of-00002.gguf: tensor `output_norm.weight` stands in it and in m-00001"),
        "{error}"
    );
}

#[test]
fn parts_of_another_model_are_refused_with_what_differs() {
    let count = |count: u16| Value::Raw(2, count.to_le_bytes().to_vec());
    let error = built(NAMES[0], |files, _| {
        files[1].set("split.count", count(3));
    })
    .unwrap_err();
    assert!(error.contains("m-00002-of-00002.gguf: `split.count` is 3, but 2 in its name"), "{error}");
    let tensors = |count: i32| Value::Raw(5, count.to_le_bytes().to_vec());
    let error = built(NAMES[0], |files, _| {
        files[1].set("split.tensors.count", tensors(12));
    })
    .unwrap_err();
    assert!(
        error.contains("`split.tensors.count` is 12, but 11 in m-00001-of-00002.gguf: it is a part of another"),
        "{error}"
    );
    let architecture = gguf_writer::text("qwen2");
    let error = built(NAMES[0], |files, _| {
        files[1].set("general.architecture", architecture);
    })
    .unwrap_err();
    assert!(error.contains("`general.architecture` is qwen2, but llama in m-00001"), "{error}");
    let error = built(NAMES[0], |files, _| drop(files[1].tensors.pop())).unwrap_err();
    assert!(error.contains("`split.tensors.count` is 11, but all parts together have 10"), "{error}");
    let error = built(NAMES[0], |files, _| {
        files[1].remove("split.count");
    })
    .unwrap_err();
    assert!(error.contains("m-00002-of-00002.gguf: it is named as part 2 of 2 and has no `split.count`"), "{error}");
    let error = built(NAMES[0], |_, folder| std::fs::create_dir(folder.join(NAMES[1])).unwrap()).unwrap_err();
    assert!(error.contains("m-00002-of-00002.gguf: it is a folder"), "{error}");
}

#[test]
fn a_part_under_another_name_is_told_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("renamed.gguf");
    std::fs::write(&path, parts()[1].bytes()).unwrap();
    let error = Manifest::build(&path).unwrap_err().to_string();
    assert!(error.contains("`split.count` is 2: this is part 2 of a file that was split"), "{error}");
    assert!(error.contains("NAME-00002-of-00002.gguf"), "{error}");
}

#[test]
fn a_part_cut_at_any_length_is_refused() {
    let whole = parts()[1].bytes();
    for len in (0..whole.len()).step_by(61) {
        let error = built(NAMES[0], |_, folder| std::fs::write(folder.join(NAMES[1]), &whole[..len]).unwrap());
        let error = error.expect_err("a cut part was taken");
        assert!(error.contains("m-00002-of-00002.gguf: "), "{error}");
    }
}

#[test]
fn a_folder_without_a_model_or_with_several_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let build = || Manifest::build(folder.path()).map_err(|error| error.to_string());
    assert!(build().unwrap_err().contains("names no model"));
    std::fs::write(folder.path().join("a.gguf"), gguf_writer::llama().bytes()).unwrap();
    assert_eq!(build().unwrap().files[0].name, "a.gguf");
    std::fs::write(folder.path().join("b.gguf"), "").unwrap();
    let error = build().unwrap_err();
    assert!(error.contains("several models, \"a.gguf\" and \"b.gguf\""), "{error}");
}
