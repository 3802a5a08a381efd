//! Circles of imports: a file and those in the folder of its name are one room and may name each other; between rooms imports go one way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::tidy::{files, root};

/// Where that holds.
const CRATES: [&str; 9] = [
    "controller/adb/src",
    "controller/apiserver/src",
    "controller/cli/src",
    "controller/src",
    "controller/gateway/src",
    "node-agent/doorway/src",
    "node-agent/identity/src",
    "node-agent/src",
    "node-agent/wire/src",
];

/// What a file imports of its crate, by module: `a::b` for `a/b.rs`. Tests are left out.
struct Imports(BTreeMap<String, BTreeSet<String>>);

// === impl Imports ===

impl Imports {
    fn of(folder: &Path) -> Self {
        let mut paths = Vec::new();
        files(folder, "rs", &mut paths);
        let texts: BTreeMap<String, String> =
            paths.iter().map(|path| (module_of(folder, path), program_of(path))).collect();
        let is_program = |module: &&String| !module.split("::").any(|part| part == "tests");
        let all: BTreeSet<&String> = texts.keys().filter(is_program).collect();
        let of_one = |module: &&String| {
            let text = &texts[*module];
            let named = paths_in(text).into_iter().filter_map(|path| resolve(module, &path, &all));
            // What a file calls by the name of one that lies in its folder.
            let children = all.iter().filter(|child| is_child(module, child) && names(text, last(child)));
            let imported = named.chain(children.map(|child| (*child).clone())).filter(|other| other != *module);
            ((*module).clone(), imported.collect())
        };
        Self(all.iter().map(of_one).collect())
    }

    fn reachable(&self, from: &str) -> BTreeSet<String> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(module) = open.pop() {
            for next in &self.0[&module] {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    }

    /// Modules that import each other, by whatever way; each set once.
    fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let reachable: BTreeMap<&String, BTreeSet<String>> =
            self.0.keys().map(|module| (module, self.reachable(module))).collect();
        let circle_of = |module: &String| -> BTreeSet<String> {
            reachable[module].iter().filter(|other| reachable[other].contains(module)).cloned().collect()
        };
        self.0.keys().map(circle_of).filter(|circle| circle.len() > 1).collect()
    }
}

/// `a::b` for `a/b.rs`.
fn module_of(folder: &Path, path: &Path) -> String {
    let within = path.strip_prefix(folder).unwrap().with_extension("");
    within.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("::")
}

/// A file without its comments and without tests at its end.
fn program_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let program = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    program.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// All paths that begin at the crate or at a module above, those of `use` with groups spelled out.
fn paths_in(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let begins = text[..at].chars().next_back().is_none_or(|before| before.is_whitespace() || before == ')');
        if begins && let Some((tree, _)) = text[at + 4..].split_once(';') {
            spell_out("", tree, &mut paths);
        }
    }
    for word in ["crate::", "super::"] {
        // Who may see something is no import.
        for (at, _) in text.match_indices(word).filter(|(at, _)| !text[..*at].ends_with("pub(in ")) {
            let path = text[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next();
            paths.extend(path.map(str::to_owned));
        }
    }
    paths
}

fn spell_out(before: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        paths.push(format!("{before}{path}"));
        return;
    };
    let (before, group) = (format!("{before}{}", head.trim()), group.trim_end());
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut from) = (0, 0);
    for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spell_out(&before, &group[from..at], paths);
                from = (at + 1).min(group.len());
            }
            _ => {}
        }
    }
}

/// The module that a path leads into.
fn resolve(module: &str, path: &str, all: &BTreeSet<&String>) -> Option<String> {
    let mut parts: Vec<&str> = path.split("::").collect();
    let mut place: Vec<&str> = module.split("::").collect();
    match parts.first() {
        Some(&"crate") => {
            place.clear();
            parts.remove(0);
        }
        Some(&"super") => {
            while parts.first() == Some(&"super") {
                place.pop();
                parts.remove(0);
            }
        }
        Some(&"self") => {
            parts.remove(0);
        }
        _ => {}
    }
    place.extend(parts);
    (1..=place.len()).rev().map(|n| place[..n].join("::")).find(|found| all.contains(found))
}

fn is_child(module: &str, other: &str) -> bool {
    other.strip_prefix(module).and_then(|rest| rest.strip_prefix("::")).is_some_and(|rest| !rest.contains("::"))
}

fn last(module: &str) -> &str {
    module.rsplit("::").next().unwrap_or(module)
}

/// Whether a text calls something in `module`, by that name.
fn names(text: &str, module: &str) -> bool {
    let begins =
        |at: usize| text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
    text.match_indices(&format!("{module}::")).any(|(at, _)| begins(at))
}

fn is_one_room(circle: &BTreeSet<String>) -> bool {
    circle.iter().any(|room| circle.iter().all(|file| file == room || file.starts_with(&format!("{room}::"))))
}

#[test]
fn imports_between_rooms_go_one_way() {
    for folder in CRATES {
        let circles = Imports::of(&root().join(folder)).circles();
        let wide: Vec<_> = circles.iter().filter(|circle| !is_one_room(circle)).collect();
        assert!(wide.is_empty(), "{folder}: these import each other: {wide:#?}");
    }
}

#[test]
fn a_circle_is_found_through_groups_and_names_of_children() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a;\nmod b;\nmod c;\n");
    write("a.rs", "use std::io;\npub use crate::{b::{B, inner}, d as e};\n");
    write("b.rs", "mod under;\nfn f() { under::g() }\n");
    write("b/under.rs", "fn g() { super::super::c::h() }\n");
    write("c.rs", "// crate::b\nuse crate::a::A;\n#[cfg(test)]\nmod tests { use crate::d; }\n");
    write("d.rs", "use super::c;\n");
    let found = |circles: BTreeSet<BTreeSet<String>>| -> Vec<String> { circles.into_iter().flatten().collect() };
    let circles = Imports::of(folder.path()).circles();
    assert!(circles.iter().all(|circle| !is_one_room(circle)));
    assert_eq!(found(circles), ["a", "b", "b::under", "c", "d"]);
    // Without what is named across there is a room alone.
    write("c.rs", "fn h() {}\n");
    write("b/under.rs", "use super::B;\n");
    let circles = Imports::of(folder.path()).circles();
    assert!(circles.iter().all(is_one_room));
    assert_eq!(found(circles), ["b", "b::under"]);
}
