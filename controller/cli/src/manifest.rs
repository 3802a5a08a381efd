//! Manifests: files of YAML or JSON documents as objects that know where they were written.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The file as it was named; `STDIN` for `-`.
    pub file: String,
    /// Counted from 1 within the file.
    pub number: usize,
    /// The document's first line in the file, counted from 1.
    pub first_line: usize,
    text: String,
    pub object: Value,
}

/// Why files are not manifests.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the path {path:?} does not exist: look at -f")]
    Missing { path: String },
    #[error("{path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("no objects passed to apply: {path:?} has no file that ends in .yaml, .yml or .json")]
    EmptyFolder { path: String },
    #[error("{file}:{line}: document {number} is not YAML: {detail}")]
    NotYaml { file: String, line: usize, number: usize, detail: String },
    #[error("{file}:{line}: document {number}: {field}: the number {text} is too large: it has to fit into 64 bits")]
    NumberTooLarge { file: String, line: usize, number: usize, field: String, text: String },
    #[error("{file}:{line}: document {number}: {detail}")]
    NotAnObject { file: String, line: usize, number: usize, detail: String },
    #[error(
        "{url}: manifests are read from files and standard input: fetch it first, as in `curl -sSL {url} | polyctl apply -f -`"
    )]
    Url { url: String },
}

/// Reads files, folders (their .yaml, .yml and .json files by name) and `-` (standard input).
///
/// # Errors
/// [`ManifestError`] for the first file that cannot be read as objects: nothing is applied of a half-read set.
pub fn load(sources: &[String], recursive: bool) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    for source in sources {
        if source.starts_with("http://") || source.starts_with("https://") {
            return Err(ManifestError::Url { url: source.clone() });
        }
        if source == "-" {
            let mut text = String::new();
            let unreadable = |source| ManifestError::Unreadable { path: "STDIN".into(), source };
            std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
            documents.extend(parse("STDIN", &text)?);
            continue;
        }
        let path = Path::new(source);
        let files = if path.is_dir() { files_of(path, recursive)? } else { vec![path.to_owned()] };
        if files.is_empty() {
            return Err(ManifestError::EmptyFolder { path: source.clone() });
        }
        for file in files {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(&file).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => ManifestError::Missing { path: name.clone() },
                _ => ManifestError::Unreadable { path: name.clone(), source },
            })?;
            documents.extend(parse(&name, &text)?);
        }
    }
    Ok(documents)
}

fn files_of(folder: &Path, recursive: bool) -> Result<Vec<PathBuf>, ManifestError> {
    let unreadable = |source| ManifestError::Unreadable { path: folder.display().to_string(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?.path());
    }
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if entry.is_dir() {
            if recursive {
                files.extend(files_of(&entry, recursive)?);
            }
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(entry);
        }
    }
    Ok(files)
}

/// The objects of a file's text. Documents of comments alone are skipped; a `List` gives its items.
///
/// # Errors
/// [`ManifestError`] with the line of the file.
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    for (idx, (first_line, text)) in split(text).into_iter().enumerate() {
        let number = idx + 1;
        let not_yaml = |error: serde_yaml::Error| {
            let line = error.location().map_or(1, |location| location.line());
            // The parser counts from the document's own start.
            let detail = error.to_string();
            let detail = detail.split(" at line ").next().unwrap_or_default().to_owned();
            let (file, line) = (file.to_owned(), first_line + line - 1);
            match large_number(&detail) {
                Some((field, text)) => ManifestError::NumberTooLarge { file, line, number, field, text },
                None => ManifestError::NotYaml { file, line, number, detail },
            }
        };
        // Not straight to JSON: only this form refuses a key that is given twice.
        let value = serde_yaml::Value::deserialize(serde_yaml::Deserializer::from_str(&text)).and_then(|mut value| {
            value.apply_merge()?;
            Ok(value)
        });
        let value = value.map_err(not_yaml)?;
        let fault = |detail: &str| ManifestError::NotAnObject {
            file: file.to_owned(),
            line: first_line,
            number,
            detail: detail.to_owned(),
        };
        if value.is_null() {
            continue;
        }
        let object: Value = serde_json::to_value(&value).map_err(|error| fault(&error.to_string()))?;
        if !object.is_object() {
            return Err(fault("an object with apiVersion, kind and metadata was expected"));
        }
        let document = |object| Document { file: file.to_owned(), number, first_line, text: text.clone(), object };
        let objects = match object["items"].as_array() {
            Some(items) if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.clone(),
            _ => vec![object],
        };
        for object in objects {
            for (field, found) in [
                ("apiVersion", &object["apiVersion"]),
                ("kind", &object["kind"]),
                ("metadata.name", &object["metadata"]["name"]),
            ] {
                if found.as_str().is_none_or(str::is_empty) {
                    return Err(fault(&format!("{field} is missing or is no text: give it one")));
                }
            }
            documents.push(document(object));
        }
    }
    Ok(documents)
}

/// The field and the digits, where a parser's words are about a whole number that no 64 bits hold.
fn large_number(detail: &str) -> Option<(String, String)> {
    let (field, rest) = detail.split_once("invalid type: integer `")?;
    let (digits, rest) = rest.split_once('`')?;
    let is_wide = rest.starts_with(" as u128") || rest.starts_with(" as i128");
    let field = field.trim_end_matches([':', ' ']);
    is_wide.then(|| (if field.is_empty() { "." } else { field }.to_owned(), digits.to_owned()))
}

/// The documents of a file, each with the number of its first line.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (idx, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") || line == "..." {
            documents.push((idx + 2, String::new()));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents.retain(|(_, document)| {
        document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    documents
}

// === impl Document ===

impl Document {
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str()
    }

    /// `file:line, document n`, where `field` (such as `spec.placement.minPhones`) or the nearest field above it is written.
    pub fn place_of(&self, field: &str) -> String {
        let line = self.first_line + locate(&self.text, field);
        format!("{}:{line}, document {}", self.file, self.number)
    }
}

/// A line's key or dash, and how far it is indented.
struct Line<'a> {
    idx: usize,
    indent: usize,
    content: &'a str,
}

/// The index of the line where `field` is written in block style, or the nearest field above it.
fn locate(text: &str, field: &str) -> usize {
    let lines = lines_of(text);
    let mut found = lines.first().map_or(0, |line| line.idx);
    let (mut from, mut parent_indent) = (0, None);
    for step in field.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        let is_child = |line: &Line| {
            parent_indent.is_none_or(|indent| line.indent > indent || (line.indent == indent && line.content == "-"))
        };
        let block = lines[from..].iter().take_while(|line| is_child(line)).count();
        let children = &lines[from..from + block];
        let Some(level) = children.first().map(|line| line.indent) else { return found };
        let mut of_level = children.iter().enumerate().filter(|(_, line)| line.indent == level);
        let child = match step.parse::<usize>() {
            Ok(index) => of_level.filter(|(_, line)| line.content == "-").nth(index),
            Err(_) => of_level.find(|(_, line)| is_key(line.content, step)),
        };
        let Some((offset, line)) = child else { return found };
        found = line.idx;
        parent_indent = Some(line.indent);
        from += offset + 1;
    }
    found
}

fn lines_of(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for (idx, line) in text.lines().enumerate() {
        let mut content = line.trim_start();
        let mut indent = line.len() - content.len();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        while let Some(rest) = content.strip_prefix("- ") {
            lines.push(Line { idx, indent, content: "-" });
            content = rest.trim_start();
            indent = line.len() - content.len();
        }
        lines.push(Line { idx, indent, content: content.trim_end() });
    }
    lines
}

fn is_key(content: &str, name: &str) -> bool {
    let bare = content.strip_prefix(['"', '\'']).unwrap_or(content);
    bare.strip_prefix(name).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TWO: &str = "# A model.\n---\napiVersion: g/v1\nkind: Model\nmetadata:\n  name: m\nspec:\n  list:\n  - a: 1\n    b: 2\n  - a: 3\n--- # the second\napiVersion: g/v1\nkind: Model\nmetadata: {name: n}\n";

    #[test]
    fn documents_know_their_place() {
        let documents = parse("f.yaml", TWO).unwrap();
        let places: Vec<_> =
            documents.iter().map(|document| (document.number, document.first_line, document.name())).collect();
        assert_eq!(places, [(1, 3, "m"), (2, 13, "n")]);
    }

    #[test]
    fn a_field_is_found_on_its_line_or_its_parents() {
        let documents = parse("f.yaml", TWO).unwrap();
        for (field, place) in [
            ("spec.list[1].a", "f.yaml:11, document 1"),
            (".spec.list[0].b", "f.yaml:10, document 1"),
            ("spec.list[0].missing", "f.yaml:9, document 1"),
            ("spec.other", "f.yaml:7, document 1"),
            ("", "f.yaml:3, document 1"),
        ] {
            assert_eq!(documents[0].place_of(field), place, "{field}");
        }
        assert_eq!(documents[1].place_of("metadata.name"), "f.yaml:15, document 2");
    }

    #[test]
    fn what_is_not_a_manifest_is_told_with_its_line() {
        for (text, expected) in [
            ("a: 1\n---\nkind: [\n", "f.yaml:4: document 2 is not YAML"),
            ("kind: A\nkind: B\n", "f.yaml:1: document 1 is not YAML: duplicate entry with key \"kind\""),
            (
                "kind: A\nspec:\n  n: 99999999999999999999999\n",
                "f.yaml:3: document 1: spec.n: the number 99999999999999999999999 is too large",
            ),
            ("- 1\n", "f.yaml:1: document 1: an object with apiVersion, kind and metadata was expected"),
            ("apiVersion: v1\n", "kind is missing"),
            ("apiVersion: v1\nkind: 7\n", "kind is missing or is no text"),
            ("apiVersion: v1\nkind: A\nmetadata: 3\n", "metadata.name is missing"),
        ] {
            let text = if text.starts_with("a: 1") {
                "apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n".to_owned() + "kind: [\n"
            } else {
                text.to_owned()
            };
            let error = parse("f.yaml", &text).unwrap_err().to_string();
            assert!(error.contains(expected.trim_start_matches("f.yaml:4: ")), "{text:?}: {error}");
        }
    }

    #[test]
    fn lists_and_json_are_read_too() {
        let list = r#"{"kind": "List", "apiVersion": "v1", "items": [{"apiVersion": "v1", "kind": "A", "metadata": {"name": "x"}}]}"#;
        assert_eq!(parse("f.json", list).unwrap()[0].name(), "x");
        assert!(parse("f.yaml", "# nothing\n---\n\n").unwrap().is_empty());
    }

    #[test]
    fn a_folder_gives_its_manifests_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, object) in [("b.yaml", "b"), ("a.yml", "a"), ("c.txt", "c")] {
            std::fs::write(
                folder.path().join(name),
                format!("apiVersion: v1\nkind: A\nmetadata: {{name: {object}}}\n"),
            )
            .unwrap();
        }
        let source = folder.path().display().to_string();
        let names: Vec<_> = load(std::slice::from_ref(&source), false)
            .unwrap()
            .iter()
            .map(|document| document.name().to_owned())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let missing = load(&[format!("{source}/none.yaml")], false).unwrap_err().to_string();
        assert!(missing.contains("does not exist"), "{missing}");
    }
}
