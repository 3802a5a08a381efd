//! Naming: which files a path stands for. A path names a GGUF file, any part of one that was split, a pattern that all parts have, or the
//! folder of a model. Looks at names alone and reads no file.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::FilesError;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// One file in GGUF.
    Gguf(PathBuf),
    /// All parts of a file in GGUF, by number, whether they are there or not.
    Parts(Vec<PathBuf>),
    /// A folder with `config.json` and safetensors.
    Folder(PathBuf),
}

/// More parts than any known model has.
pub(super) const MAX_FILES: usize = 4096;
/// Files of a folder that are a model's, beside its tensors'.
pub(super) const CONFIG: &str = "config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const CHAT_TEMPLATE: &str = "chat_template.jinja";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// How names of files with tensors end.
const SAFETENSORS: &str = ".safetensors";
const GGUF: &str = ".gguf";
/// Names of a folder's models that a refusal lists.
const MAX_LISTED: usize = 8;

/// The folder that the files of the model at `path` lie in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Every file whose change is a change of the model at `path`; those of a split file whether they are there or not.
///
/// # Errors
/// When a folder cannot be read or nothing there fits.
pub(super) fn files_of(path: &Path) -> Result<Vec<PathBuf>, FilesError> {
    Ok(match named(path)? {
        Named::Gguf(file) => vec![file],
        Named::Parts(parts) => parts,
        Named::Folder(folder) => {
            let beside = [CONFIG, GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE, INDEX];
            let mut files: Vec<PathBuf> = beside.iter().map(|name| folder.join(name)).collect();
            files.extend(names_in(&folder, |name| name.ends_with(SAFETENSORS))?.into_iter().map(|it| folder.join(it)));
            files
        }
    })
}

/// # Errors
/// A folder that cannot be read, a pattern that fits no file or those of several models, a folder that holds no model or several.
pub(super) fn named(path: &Path) -> Result<Named, FilesError> {
    if path.is_dir() {
        return in_folder(path);
    }
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let folder = folder_of(path);
    if name.contains(['*', '?']) && !path.exists() {
        let found = names_in(&folder, |found| fits(name, found))?;
        return of_names(&folder, &found).map_err(|reason| reason.of(path));
    }
    // A file of a folder stands for it: on its own it is no model.
    if name == CONFIG && path.exists() {
        return in_folder(&folder);
    }
    if [CONFIG, INDEX].contains(&name) || name.ends_with(SAFETENSORS) {
        return Ok(Named::Folder(folder));
    }
    Ok(match PartName::of(name) {
        Some(part) => Named::Parts(part.all().map(|name| folder.join(name)).collect()),
        None => Named::Gguf(path.to_owned()),
    })
}

fn in_folder(folder: &Path) -> Result<Named, FilesError> {
    let is_shown = |name: &str| !name.starts_with('.');
    let found = names_in(folder, |name| is_shown(name) && name.ends_with(GGUF))?;
    if folder.join(CONFIG).exists() {
        let has_tensors = folder.join(INDEX).exists()
            || !names_in(folder, |name| is_shown(name) && name.ends_with(SAFETENSORS))?.is_empty();
        // A configuration beside GGUF files is what they were made of. Alone it is a folder that lacks its tensors, and says so.
        if has_tensors || found.is_empty() {
            return Ok(Named::Folder(folder.to_owned()));
        }
    }
    of_names(folder, &found).map_err(|reason| reason.of(folder))
}

/// Why names are not those of one model.
enum NotOne {
    Nothing,
    /// The first names, and how many more there are; of a split file that of one part.
    Several(Vec<String>, usize),
}

// === impl NotOne ===

impl NotOne {
    fn of(self, path: &Path) -> FilesError {
        let path = path.to_owned();
        match self {
            Self::Nothing => FilesError::Nothing { path },
            Self::Several(names, n_more) => FilesError::Several { path, names, n_more },
        }
    }
}

/// What names of one folder stand for, of which all have to be of one model.
fn of_names(folder: &Path, found: &BTreeSet<String>) -> Result<Named, NotOne> {
    let mut known = HashSet::new();
    let mut models: Vec<&String> =
        found.iter().filter(|name| PartName::of(name).is_none_or(|part| known.insert(part.whole()))).collect();
    let first = *models.first().ok_or(NotOne::Nothing)?;
    if models.len() > 1 {
        let n_more = models.len().saturating_sub(MAX_LISTED);
        models.truncate(MAX_LISTED);
        return Err(NotOne::Several(models.into_iter().cloned().collect(), n_more));
    }
    let part = PartName::of(first);
    Ok(match part {
        Some(part) => Named::Parts(part.all().map(|name| folder.join(name)).collect()),
        None => Named::Gguf(folder.join(first)),
    })
}

fn names_in(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<BTreeSet<String>, FilesError> {
    let at = |source: io::Error| FilesError::Io { path: folder.to_owned(), source };
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let Ok(name) = entry.map_err(at)?.file_name().into_string() else { continue };
        if is_wanted(&name) {
            found.insert(name);
            if found.len() > MAX_FILES {
                return Err(FilesError::TooMany { path: folder.to_owned(), limit: MAX_FILES });
            }
        }
    }
    Ok(found)
}

/// The name of a part as `gguf-split` makes it: `NAME-00001-of-00003.gguf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartName<'a> {
    stem: &'a str,
    /// From 1.
    pub(super) number: usize,
    pub(super) count: usize,
}

// === impl PartName ===

impl<'a> PartName<'a> {
    /// `None` where the name is not one of a part, or one that no part can have.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let parse = |text: &str| {
            let is_number = text.len() == 5 && text.bytes().all(|c| c.is_ascii_digit());
            text.parse::<usize>().ok().filter(|_| is_number)
        };
        let (number, count) = (parse(number)?, parse(count)?);
        (number >= 1 && number <= count && count <= MAX_FILES).then_some(Self { stem, number, count })
    }

    /// What all parts of one file have in common.
    fn whole(self) -> (&'a str, usize) {
        (self.stem, self.count)
    }

    /// The names of all parts.
    fn all(self) -> impl Iterator<Item = String> {
        (1..=self.count).map(move |number| format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count))
    }
}

/// Whether `name` fits a pattern of `*` (any text) and `?` (any character).
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how much of the name it has taken.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_fit_as_a_shell_has_them() {
        for (pattern, name, expected) in [
            ("*-of-*.gguf", "m-00001-of-00002.gguf", true),
            ("*-of-*.gguf", "m.gguf", false),
            ("m?.gguf", "m1.gguf", true),
            ("m?.gguf", "m.gguf", false),
            ("**a*", "ba", true),
            ("*a*b", "aab", true),
            ("*a*b", "aabc", false),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_parts_name_has_five_digits_twice() {
        let part = PartName::of("a-of-b-00002-of-00003.gguf").unwrap();
        assert_eq!((part.stem, part.number, part.count), ("a-of-b", 2, 3));
        for name in
            ["m.gguf", "m-1-of-2.gguf", "m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-00001-of-99999.gguf"]
        {
            assert_eq!(PartName::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_part_a_pattern_and_a_folder_stand_for_all_parts() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", ".hidden.gguf", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let at = |name: &str| folder.path().join(name);
        let parts = Named::Parts(vec![at("m-00001-of-00002.gguf"), at("m-00002-of-00002.gguf")]);
        for path in ["m-00002-of-00002.gguf", "*-of-*.gguf", "m-*.gguf", ""] {
            assert_eq!(named(&at(path)).unwrap(), parts, "{path}");
        }
        assert!(matches!(named(&at("x*.gguf")), Err(FilesError::Nothing { .. })));
        std::fs::write(at("other.gguf"), "").unwrap();
        for path in ["*.gguf", ""] {
            assert!(matches!(named(&at(path)), Err(FilesError::Several { .. })), "{path}");
        }
        assert_eq!(named(&at("other.gguf")).unwrap(), Named::Gguf(at("other.gguf")));
        std::fs::write(at(CONFIG), "").unwrap();
        std::fs::write(at("model-00001-of-00002.safetensors"), "").unwrap();
        for path in ["", CONFIG, "model-00001-of-00002.safetensors"] {
            let Named::Folder(found) = named(&at(path)).unwrap() else { panic!("{path}") };
            assert_eq!(found.canonicalize().unwrap(), folder.path().canonicalize().unwrap());
        }
    }

    #[test]
    fn a_configuration_beside_gguf_files_makes_no_folder_of_safetensors() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str| std::fs::write(at(name), "").unwrap();
        write(CONFIG);
        write(TOKENIZER);
        for path in ["", CONFIG] {
            assert!(matches!(named(&at(path)).unwrap(), Named::Folder(_)), "nothing else is there");
        }
        write("m.gguf");
        write(".half.safetensors");
        for path in ["", CONFIG] {
            assert_eq!(named(&at(path)).unwrap(), Named::Gguf(at("m.gguf")), "{path}");
        }
        std::fs::remove_file(at("m.gguf")).unwrap();
        write("n-00002-of-00002.gguf");
        let parts = Named::Parts(vec![at("n-00001-of-00002.gguf"), at("n-00002-of-00002.gguf")]);
        assert_eq!(named(&at("")).unwrap(), parts);
        write("n-00001-of-00002.gguf");
        assert_eq!(named(&at("")).unwrap(), parts);
        (0..9).for_each(|idx| write(&format!("m{idx}.gguf")));
        let error = named(&at("")).unwrap_err().to_string();
        assert!(error.contains("\"m0.gguf\", \"m1.gguf\"") && error.contains("and 2 more"), "{error}");
        assert!(!error.contains("00002"), "parts are one model: {error}");
        write(INDEX);
        assert!(matches!(named(&at("")).unwrap(), Named::Folder(_)));
    }
}
