//! Manifests: files of YAML or JSON documents as objects that know where they were written.

mod place;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use place::locate;

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
    /// Where in the document the object is: `items[2]` within a list, else empty.
    within: String,
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
        let mut objects = Vec::new();
        flatten(object, String::new(), &mut objects);
        for (within, object) in objects {
            let document = Document { file: file.to_owned(), number, first_line, text: text.clone(), within, object };
            if let Some(field) = document.missing_field() {
                return Err(ManifestError::NotAnObject {
                    file: file.to_owned(),
                    line: document.line_of(field),
                    number,
                    detail: format!("{} is missing or is no text: give it one", document.path_of(field)),
                });
            }
            documents.push(document);
        }
    }
    Ok(documents)
}

/// The object, or those of a list (`kind: List`, or that of a kind), each with its place within the document.
fn flatten(mut object: Value, within: String, objects: &mut Vec<(String, Value)>) {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match object.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            for (i, item) in items.into_iter().enumerate() {
                let place = format!("items[{i}]");
                flatten(item, if within.is_empty() { place } else { format!("{within}.{place}") }, objects);
            }
        }
        Some(items) => {
            object["items"] = items;
            objects.push((within, object));
        }
        None => objects.push((within, object)),
    }
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
    /// The first of the fields that say what an object is, and that this one lacks.
    fn missing_field(&self) -> Option<&'static str> {
        let is_given = |found: &Value| found.as_str().is_some_and(|text| !text.is_empty());
        [
            ("apiVersion", &self.object["apiVersion"]),
            ("kind", &self.object["kind"]),
            ("metadata.name", &self.object["metadata"]["name"]),
        ]
        .into_iter()
        .find(|(_, found)| !is_given(found))
        .map(|(field, _)| field)
    }

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
        format!("{}:{}, document {}", self.file, self.line_of(field), self.number)
    }

    fn line_of(&self, field: &str) -> usize {
        self.first_line + locate(&self.text, &self.path_of(field))
    }

    /// The field as it is called in the whole document.
    fn path_of(&self, field: &str) -> String {
        if self.within.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{}", self.within, field.trim_start_matches('.'))
        }
    }
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
    fn a_list_is_its_items_and_each_knows_its_place() {
        let list = "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: A\n  metadata:\n    name: x\n- apiVersion: v1\n  items:\n  - apiVersion: v1\n    kind: A\n    metadata:\n      name: y\n  kind: AList\nkind: List\nmetadata:\n  resourceVersion: \"\"\n";
        let documents = parse("f.yaml", list).unwrap();
        assert_eq!(documents.iter().map(Document::name).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(documents[0].place_of("metadata.name"), "f.yaml:6, document 1");
        assert_eq!(documents[1].place_of("metadata.name"), "f.yaml:12, document 1");
        let error = parse("f.yaml", &list.replace("name: y", "nam: y")).unwrap_err().to_string();
        assert_eq!(
            error,
            "f.yaml:11: document 1: items[1].items[0].metadata.name is missing or is no text: give it one"
        );
        assert!(parse("f.yaml", "apiVersion: v1\nkind: List\nitems: []\n").unwrap().is_empty());
        // A kind of that name that has no items is a kind like any other.
        assert_eq!(parse("f.yaml", "apiVersion: g/v1\nkind: ShoppingList\nmetadata: {name: s}\n").unwrap().len(), 1);
    }

    #[test]
    fn json_is_read_too() {
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
