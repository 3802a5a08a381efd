//! The user guide says what the programs do: its links lead somewhere, its reasons are the controller's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tidy::{files, root};

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    files(&root().join("docs"), "md", &mut pages);
    pages.extend(["README.md", "SECURITY.md"].map(|page| root().join(page)));
    pages
}

/// The anchor that a heading gets: its lower-case letters and digits, hyphens for spaces.
fn anchor(heading: &str) -> String {
    let letters = heading.trim_start_matches('#').trim().to_lowercase();
    letters
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_of_the_guide_leads_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: {target} is not there", page.display());
            let headings = fs::read_to_string(&path).unwrap_or_default();
            let is_there = headings.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(heading.is_empty() || is_there, "{}: {target} has no such heading", page.display());
        }
    }
}

/// Names of tests are `file::function`; the file may be a folder's `tests.rs`.
#[test]
fn every_test_that_security_names_is_there() {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let is_name = |word: &&str| {
        word.split_once("::").is_some_and(|(room, function)| {
            [room, function]
                .iter()
                .all(|part| part.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte)))
        })
    };
    let named: BTreeSet<&str> = text.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() > 20, "{named:?}");
    let mut sources = Vec::new();
    for room in ["controller", "node-agent", "e2e"] {
        files(&root().join(room), "rs", &mut sources);
    }
    let sources: Vec<(String, String)> = sources
        .iter()
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    for name in named {
        let (room, function) = name.split_once("::").unwrap();
        let has = |(stem, source): &&(String, String)| stem == room && source.contains(&format!("fn {function}("));
        assert!(sources.iter().any(|source| has(&source)), "SECURITY.md names {name}, which is not there");
    }
}

/// The words in CamelCase that a text has in such quotes.
fn camel_case(text: &str, quote: char) -> BTreeSet<String> {
    let is_reason = |word: &&str| {
        let is_camel =
            word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().skip(1).any(|c| c.is_ascii_lowercase());
        is_camel && word.chars().all(|c| c.is_ascii_alphanumeric())
    };
    text.split(quote).filter(is_reason).map(str::to_owned).collect()
}

/// The variants that `strum` gives their own names as text.
fn named_variants(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in code.split("strum::IntoStaticStr").skip(1) {
        // rustfmt closes an enum at the margin, and indents its variants by four.
        let lines = rest.lines().take_while(|line| *line != "}");
        for line in lines.filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
            let name: String = line.trim().chars().take_while(char::is_ascii_alphanumeric).collect();
            names.extend(Some(name).filter(|name| name.starts_with(|first: char| first.is_ascii_uppercase())));
        }
    }
    names
}

#[test]
fn the_reasons_of_the_guide_are_the_controllers() {
    let text = fs::read_to_string(root().join("docs/reading-describe.md")).unwrap();
    let rows: String = text.lines().filter(|line| line.starts_with("| `")).collect();
    let told = camel_case(&rows, '`');
    let read = |path: &Path| fs::read_to_string(path).unwrap().split("#[cfg(test)]").next().unwrap().to_owned();
    let mut sources = Vec::new();
    for folder in ["controller/src/reconcile", "controller/src/models", "controller/placement/src"] {
        files(&root().join(folder), "rs", &mut sources);
    }
    sources.push(root().join("controller/src/models.rs"));
    sources.retain(|path| !path.iter().any(|part| part == "tests" || part == "fixtures.rs"));
    let code: String = sources.iter().map(|path| read(path)).collect();
    let quoted = camel_case(&code, '"');
    // The reasons of one condition, and those of sources, have pages of their own.
    let page = |name: &str| fs::read_to_string(root().join("docs").join(name)).unwrap();
    let text = text + &page("load-balancing.md") + &page("models.md");
    // The action of every event, the three truths, units, and the strategies, which the manifests' reference explains.
    let known = ["Reconcile", "True", "False", "Unknown", "KiB", "MiB"];
    let strategies = ["Optimal", "EqualSplit", "MemoryProportional", "MinMax", "LinguaLinked", "LinguaLinkedBestFirst"];
    let is_ours = |word: &&String| !known.contains(&word.as_str()) && !strategies.contains(&word.as_str());
    let said: BTreeSet<String> = quoted.union(&named_variants(&code)).cloned().collect();
    let invented: Vec<_> = told.difference(&said).filter(is_ours).collect();
    assert!(invented.is_empty(), "reading-describe.md explains what nothing says: {invented:?}");
    let unexplained: Vec<_> =
        quoted.iter().filter(is_ours).filter(|word| !text.contains(&format!("`{word}`"))).collect();
    assert!(unexplained.is_empty(), "reading-describe.md does not explain {unexplained:?}");
}
