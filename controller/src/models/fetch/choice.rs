//! Choice: which files of a repository are the model that a source names. Pure.

use std::collections::BTreeMap;

use polyphony_api::model_source::{HubSource, Pick, is_path_within};

use super::error::FetchError;
use super::listing::Listed;

/// What is taken where several quantisations are there and none is named, as llama.cpp does.
const USUAL: &str = "Q4_K_M";
/// Files of a safetensors model beside its weights; those that have to be there come first.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
const BESIDE: [&str; 5] = [
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "model.safetensors.index.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub files: Vec<Listed>,
    /// The file that names the model; `None` for the folder.
    pub entry: Option<String>,
    /// What is told of a choice that nobody made.
    pub note: Option<String>,
}

/// A GGUF file, or all parts of one.
struct Candidate<'a> {
    /// The path without number of part and ending.
    name: &'a str,
    /// By number.
    parts: BTreeMap<usize, &'a Listed>,
    n_parts: usize,
}

/// The files that `source` means.
///
/// # Errors
/// None or several, with what there is.
pub(super) fn choose(source: &HubSource, listed: &[Listed]) -> Result<Chosen, FetchError> {
    let candidates = candidates(listed);
    let repository = || source.repository();
    let names = |of: &[&Candidate<'_>]| of.iter().map(|one| one.first().to_owned()).collect::<Vec<_>>();
    let all: Vec<&Candidate<'_>> = candidates.iter().collect();
    let of_quantisation = |word: &str| -> Vec<&Candidate<'_>> {
        candidates.iter().filter(|candidate| says(candidate.name, word)).collect()
    };
    match &source.pick {
        Pick::Quantisation(word) => match of_quantisation(word)[..] {
            [only] => only.chosen(source, None),
            [] => Err(FetchError::NoSuchQuantisation {
                repository: repository(),
                quantisation: word.clone(),
                found: names(&all),
            }),
            ref several => Err(FetchError::Ambiguous {
                repository: repository(),
                quantisation: word.clone(),
                found: names(several),
            }),
        },
        Pick::File(file) => {
            let is_it = |candidate: &&Candidate<'_>| candidate.parts.values().any(|part| part.path == *file);
            match candidates.iter().find(is_it) {
                Some(candidate) => candidate.chosen(source, None),
                None if !file.ends_with(".gguf") && listed.iter().any(|one| one.path == *file) => {
                    folder(source, listed)
                }
                None => {
                    Err(FetchError::EntryNotFound { repository: repository(), file: file.clone(), found: names(&all) })
                }
            }
        }
        Pick::Usual => match &all[..] {
            [] => folder(source, listed),
            [only] => only.chosen(source, None),
            several => {
                let (taken, why) = match of_quantisation(USUAL)[..] {
                    [usual] => (usual, format!("{USUAL} is taken where none is named")),
                    _ => (several[0], format!("the first is taken where none is named and there is no one of {USUAL}")),
                };
                let note = format!("of {} GGUF files {}: {why}", several.len(), taken.first());
                taken.chosen(source, Some(note))
            }
        },
    }
}

/// GGUF files by their paths, the parts of one together. What only helps others to read or to quantise is none.
fn candidates(listed: &[Listed]) -> Vec<Candidate<'_>> {
    let mut found: BTreeMap<(&str, usize), Candidate<'_>> = BTreeMap::new();
    for one in listed {
        let file = one.path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let Some(stem) =
            one.path.get(..one.path.len().saturating_sub(".gguf".len())).filter(|_| file.ends_with(".gguf"))
        else {
            continue;
        };
        if file.starts_with("mmproj") || file.contains("imatrix") {
            continue;
        }
        let (name, number, n_parts) = part(stem).unwrap_or((stem, 1, 1));
        let candidate =
            found.entry((name, n_parts)).or_insert_with(|| Candidate { name, parts: BTreeMap::new(), n_parts });
        candidate.parts.insert(number, one);
    }
    found.into_values().collect()
}

/// `NAME-00001-of-00003`, as `gguf-split` writes it.
pub(super) fn part(stem: &str) -> Option<(&str, usize, usize)> {
    let number = |text: &str| text.parse::<usize>().ok().filter(|_| text.len() == 5);
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, idx) = rest.rsplit_once('-')?;
    let (idx, count) = (number(idx)?, number(count)?);
    (1..=count).contains(&idx).then_some((name, idx, count))
}

/// Whether a name carries a quantisation as a word of its own: `Q4_K` is not in `Q4_K_M`, nor `F16` in `BF16`.
fn says(name: &str, quantisation: &str) -> bool {
    let (name, word) = (name.to_ascii_uppercase(), quantisation.to_ascii_uppercase());
    let is_before = |c: char| !c.is_alphanumeric();
    let is_after = |c: char| !c.is_alphanumeric() && c != '_';
    name.match_indices(&word).any(|(at, _)| {
        name[..at].chars().next_back().is_none_or(is_before)
            && name[at + word.len()..].chars().next().is_none_or(is_after)
    })
}

/// The folder of a model in safetensors.
fn folder(source: &HubSource, listed: &[Listed]) -> Result<Chosen, FetchError> {
    let find = |name: &str| listed.iter().find(|one| one.path == name).cloned();
    let lacking = |lacks: String| FetchError::NoModel { repository: source.repository(), lacks };
    let mut files = Vec::new();
    for name in NEEDED {
        files.push(find(name).ok_or_else(|| lacking(format!("it has no GGUF file, and no {name} for safetensors")))?);
    }
    match find(WEIGHTS) {
        Some(weights) => files.push(weights),
        None => {
            find(INDEX).ok_or_else(|| lacking(format!("it has no GGUF file, and neither {WEIGHTS} nor {INDEX}")))?;
            let is_shard = |one: &&Listed| {
                one.path.strip_suffix(".safetensors").and_then(part).is_some_and(|(name, ..)| name == "model")
            };
            files.extend(listed.iter().filter(is_shard).cloned());
        }
    }
    files.extend(BESIDE.iter().filter_map(|name| find(name)));
    Ok(Chosen { files, entry: None, note: None })
}

// === impl Candidate ===

impl Candidate<'_> {
    /// The path of its first part.
    fn first(&self) -> &str {
        self.parts.values().next().map_or(self.name, |part| &part.path)
    }

    fn chosen(&self, source: &HubSource, note: Option<String>) -> Result<Chosen, FetchError> {
        let lacks = |lacks: String| FetchError::NoModel { repository: source.repository(), lacks };
        if let Some(missing) = (1..=self.n_parts).find(|number| !self.parts.contains_key(number)) {
            return Err(lacks(format!("part {missing} of {} of {} is missing", self.n_parts, self.name)));
        }
        if let Some(part) = self.parts.values().find(|part| !is_path_within(&part.path)) {
            return Err(lacks(format!("{:?} is no path of a file", part.path)));
        }
        let files: Vec<Listed> = self.parts.values().map(|part| (*part).clone()).collect();
        Ok(Chosen { entry: Some(self.first().to_owned()), files, note })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_api::ModelSource;

    use super::*;

    fn listed(paths: &[&str]) -> Vec<Listed> {
        paths.iter().map(|path| Listed { path: (*path).to_owned(), n_bytes: 1, digest: None }).collect()
    }

    fn choose_of(text: &str, paths: &[&str]) -> Result<(Vec<String>, Option<String>), String> {
        let ModelSource::Hub(source) = ModelSource::parse(text).unwrap() else { panic!("{text}") };
        let chosen = choose(&source, &listed(paths)).map_err(|error| error.to_string())?;
        Ok((chosen.files.into_iter().map(|file| file.path).collect(), chosen.entry))
    }

    const GGUFS: [&str; 8] = [
        "README.md",
        "m-Q4_0.gguf",
        "m-Q4_K_M.gguf",
        "m-UD-Q4_K_XL.gguf",
        "m-BF16/m-BF16-00001-of-00002.gguf",
        "m-BF16/m-BF16-00002-of-00002.gguf",
        "mmproj-F16.gguf",
        "m.imatrix.gguf",
    ];

    #[test]
    fn a_quantisation_is_a_word_of_a_files_name() {
        for (word, file) in [("Q4_K_M", "m-Q4_K_M.gguf"), ("q4_0", "m-Q4_0.gguf"), ("Q4_K_XL", "m-UD-Q4_K_XL.gguf")] {
            let chosen = choose_of(&format!("hf://o/n:{word}"), &GGUFS).unwrap();
            assert_eq!(chosen, (vec![file.to_owned()], Some(file.to_owned())), "{word}");
        }
        let (files, entry) = choose_of("hf://o/n:BF16", &GGUFS).unwrap();
        assert_eq!((files.len(), entry.as_deref()), (2, Some(GGUFS[4])));
        // Neither a part of another word, nor what is no model.
        for word in ["Q4_K", "F16", "Q8_0", "4"] {
            let error = choose_of(&format!("hf://o/n:{word}"), &GGUFS).unwrap_err();
            assert!(
                error.contains(&format!("no GGUF file of {word:?}; there are ")) && error.contains("m-Q4_0.gguf"),
                "{error}"
            );
            assert!(!error.contains("mmproj"), "{error}");
        }
        let error = choose_of("hf://o/n:Q4_0", &["a-Q4_0.gguf", "b_q4_0.gguf"]).unwrap_err();
        assert!(error.contains("several models of \"Q4_0\"; there are a-Q4_0.gguf, b_q4_0.gguf"), "{error}");
    }

    #[test]
    fn what_is_usual_is_the_only_file_else_q4_k_m_else_the_first() {
        for (paths, expected) in [
            (&["m-Q8_0.gguf", "config.json", "tokenizer.json", "model.safetensors"][..], "m-Q8_0.gguf"),
            (&["a-Q2_K.gguf", "m-q4_k_m.gguf"], "m-q4_k_m.gguf"),
            (&["b-Q8_0.gguf", "a-Q2_K.gguf"], "a-Q2_K.gguf"),
        ] {
            assert_eq!(choose_of("hf://o/n", paths).unwrap().1.as_deref(), Some(expected));
        }
        let ModelSource::Hub(source) = ModelSource::parse("hf://o/n").unwrap() else { panic!() };
        let note = choose(&source, &listed(&GGUFS)).unwrap().note.unwrap();
        assert_eq!(note, "of 4 GGUF files m-Q4_K_M.gguf: Q4_K_M is taken where none is named");
    }

    #[test]
    fn a_named_file_stands_for_all_its_parts() {
        let (files, _) = choose_of(&format!("hf://o/n:{}", GGUFS[5]), &GGUFS).unwrap();
        assert_eq!(files, [GGUFS[4], GGUFS[5]]);
        let error = choose_of("hf://o/n:x.gguf", &GGUFS).unwrap_err();
        assert!(error.contains("no file \"x.gguf\"; there are "), "{error}");
        let error = choose_of("hf://o/n", &["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"]).unwrap_err();
        assert!(error.contains("part 2 of 3 of m is missing"), "{error}");
    }

    #[test]
    fn a_repository_without_gguf_is_a_folder_of_safetensors() {
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let mut paths = vec!["config.json", "tokenizer.json", "pytorch_model.bin", "model.safetensors.index.json"];
        paths.extend(shards);
        let (files, entry) = choose_of("hf://o/n", &paths).unwrap();
        assert_eq!(entry, None);
        assert_eq!(files, ["config.json", "tokenizer.json", shards[0], shards[1], "model.safetensors.index.json"]);
        assert!(choose_of("hf://o/n:config.json", &paths).is_ok());
        let error = choose_of("hf://o/n", &["config.json", "pytorch_model.bin"]).unwrap_err();
        assert!(error.contains("no tokenizer.json for safetensors"), "{error}");
        let error = choose_of("hf://o/n", &["config.json", "tokenizer.json"]).unwrap_err();
        assert!(error.contains("neither model.safetensors nor"), "{error}");
    }

    #[test]
    fn a_path_that_leads_out_of_the_folder_is_none() {
        let error = choose_of("hf://o/n", &["../../m.gguf"]).unwrap_err();
        assert!(error.contains("no path of a file"), "{error}");
    }
}
