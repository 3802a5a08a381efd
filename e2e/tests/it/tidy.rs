//! House rules: what a reader may rely on in every file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

fn all(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root(), extension, &mut found);
    found.sort();
    found
}

#[test]
fn every_rust_file_says_first_what_it_is() {
    let silent: Vec<_> =
        all("rs").into_iter().filter(|path| !fs::read_to_string(path).unwrap().starts_with("//! ")).collect();
    assert!(silent.is_empty(), "these begin without `//! `: {silent:#?}");
}

#[test]
fn no_module_is_a_mod_rs_and_none_is_a_drawer() {
    let drawers = ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs"];
    let found: Vec<_> = all("rs")
        .into_iter()
        .filter(|path| drawers.iter().any(|drawer| path.file_name().unwrap() == *drawer))
        .collect();
    assert!(found.is_empty(), "name these after what is in them: {found:#?}");
}

#[test]
fn every_kernel_is_in_its_three_rooms() {
    let names = |folder: &str, extension: &str| -> Vec<String> {
        let mut found = Vec::new();
        files(&root().join("kernels").join(folder), extension, &mut found);
        found.sort();
        found.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    let (shaders, hosts, twins) = (names("wgsl", "wgsl"), names("src/ops", "rs"), names("src/cpu", "rs"));
    for op in &hosts {
        assert!(shaders.contains(op), "kernels/wgsl/{op}.wgsl is missing");
        assert!(twins.contains(op), "kernels/src/cpu/{op}.rs is missing");
    }
}

/// The arrows between crates, as ARCHITECTURE.md draws them: who may depend on whom.
const ARROWS: &[(&str, &[&str])] = &[
    ("controller/adb", &[]),
    ("controller/api", &[]),
    ("controller/placement", &[]),
    ("controller/jsonpath", &[]),
    ("controller/selector", &[]),
    ("controller/apiserver", &["polyphony-doorway", "polyphony-jsonpath", "polyphony-selector"]),
    ("controller/gateway", &["polyphony-api", "polyphony-doorway", "polyphony-model", "polyphony-protocol"]),
    (
        "controller",
        &[
            "polyphony-api",
            "polyphony-apiserver",
            "polyphony-doorway",
            "polyphony-gateway",
            "polyphony-identity",
            "polyphony-journal",
            "polyphony-model",
            "polyphony-placement",
            "polyphony-protocol",
            "polyphony-wire",
        ],
    ),
    (
        "controller/cli",
        &[
            "polyphony-adb",
            "polyphony-api",
            "polyphony-controller",
            "polyphony-farm",
            "polyphony-identity",
            "polyphony-journal",
            "polyphony-jsonpath",
            "polyphony-model",
            "polyphony-selector",
            "polyphony-wire",
        ],
    ),
    ("node-agent/protocol", &[]),
    ("node-agent/model", &[]),
    ("node-agent/model/fuzz", &["polyphony-model"]),
    ("controller/fuzz", &["polyphony-gateway", "polyphony-identity", "polyphony-protocol"]),
    ("node-agent/doorway", &[]),
    ("node-agent/identity", &[]),
    ("node-agent/wire", &["polyphony-identity", "polyphony-protocol"]),
    (
        "node-agent",
        &[
            "polyphony-doorway",
            "polyphony-identity",
            "polyphony-journal",
            "polyphony-kernels",
            "polyphony-model",
            "polyphony-protocol",
            "polyphony-wire",
        ],
    ),
    ("node-agent/android/library", &["polyphony-agent"]),
    ("journal", &[]),
    ("kernels", &[]),
    (
        "e2e/day",
        &[
            "polyphony-agent",
            "polyphony-api",
            "polyphony-controller",
            "polyphony-model",
            "polyphony-placement",
            "polyphony-protocol",
        ],
    ),
    ("e2e/farm", &["polyphony-adb", "polyphony-journal"]),
    ("e2e/skip", &[]),
    (
        "e2e",
        &[
            "polyphony-api",
            "polyphony-controller",
            "polyphony-farm",
            "polyphony-identity",
            "polyphony-protocol",
            "polyphony-skip",
            "polyphony-wire",
        ],
    ),
];

#[test]
fn arrows_between_crates_point_down() {
    let mut manifests: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for path in all("toml").into_iter().filter(|path| path.file_name().unwrap() == "Cargo.toml") {
        let text = fs::read_to_string(&path).unwrap();
        let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
        // What only tests use may point anywhere below.
        let text = text.split("[dev-dependencies]").next().unwrap_or_default();
        let ours = text.lines().filter(|line| line.starts_with("polyphony-")).map(name).collect();
        manifests.insert(path.parent().unwrap().strip_prefix(root()).unwrap().to_owned(), ours);
    }
    manifests.remove(Path::new(""));
    assert_eq!(manifests.len(), ARROWS.len(), "a crate is not in the list of arrows");
    for (folder, allowed) in ARROWS {
        for dependency in &manifests[Path::new(folder)] {
            assert!(allowed.contains(&dependency.as_str()), "{folder} must not depend on {dependency}");
        }
    }
}

/// Where programs of ours speak: what these macros cannot write, they panic about.
const PROGRAMS: [&str; 4] = ["controller", "node-agent", "journal/src", "e2e/farm/src"];

#[test]
fn no_line_that_cannot_be_written_ends_a_program() {
    for room in PROGRAMS {
        let mut found = Vec::new();
        files(&root().join(room), "rs", &mut found);
        let is_of_program = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "src");
        for path in found.into_iter().filter(is_of_program) {
            let text = fs::read_to_string(&path).unwrap();
            for (idx, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                for word in ["println!(", "eprintln!(", "eprint!(", " print!("] {
                    let place = format!("{}:{}", path.display(), idx + 1);
                    assert!(!line.contains(word), "{place} uses {word}…): `polyphony_journal::tell!`, or `writeln!`");
                }
            }
        }
    }
}

/// A skip that is only printed is kept by the harness of a green run, and none of `POLYPHONY_NO_SKIP` hears of it.
#[test]
fn tests_skip_in_one_way_which_is_told_aloud() {
    let word = "\"skipped: ";
    let silent = |path: &PathBuf| {
        let place = path.strip_prefix(root()).unwrap();
        // Benches are no tests: they print what `cargo test --all-targets` would else run for an hour.
        let says = ["e2e/skip", "e2e/benches", "e2e/tests/it/tidy.rs"].iter().any(|room| place.starts_with(room));
        !says && fs::read_to_string(path).unwrap().contains(word)
    };
    let silent: Vec<_> = all("rs").into_iter().filter(silent).collect();
    assert!(silent.is_empty(), "these skip without `polyphony_skip::skipped`: {silent:#?}");
}

/// Rooms that open no socket and read no clock.
const PURE: [&str; 6] = [
    "controller/api/src",
    "controller/jsonpath/src",
    "controller/placement/src",
    "controller/selector/src",
    "node-agent/protocol/src",
    "node-agent/model/src",
];

#[test]
fn pure_rooms_have_no_network_and_no_clock() {
    for room in PURE {
        let mut found = Vec::new();
        files(&root().join(room), "rs", &mut found);
        for path in found {
            let text = fs::read_to_string(&path).unwrap();
            for word in ["std::net", "tokio::", "reqwest", "SystemTime", "Instant::now", "Timestamp::now"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}

#[test]
fn no_file_holds_a_path_of_a_machine() {
    let home = format!("{}/", root().parent().unwrap().display());
    for extension in ["rs", "toml", "md", "yaml", "sh", "wgsl"] {
        for path in all(extension) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(home == "/" || !text.contains(&home), "{} holds {home}", path.display());
        }
    }
}
