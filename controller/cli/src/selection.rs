//! Selections: what the words of a command line pick out, as kubectl reads `TYPE[,TYPE] [NAME …]` and `TYPE/NAME …`.

use crate::discovery::{Catalogue, Resource, UnknownKind};

/// Objects of one kind: all of them, or those named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub resource: Resource,
    /// Empty means all.
    pub names: Vec<String>,
}

/// Why words pick out nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error(transparent)]
    UnknownKind(#[from] UnknownKind),
    #[error(
        "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'polyctl {verb} resource/<resource_name>' instead of 'polyctl {verb} resource resource/<resource_name>')"
    )]
    MixedForms { verb: &'static str },
    #[error("arguments in resource/name form must have a single resource and name, but {word:?} has not")]
    BadPair { word: String },
    #[error("you must specify the type of resource to {verb}, such as `polyctl {verb} phones`")]
    NoKind { verb: &'static str },
}

/// Reads the words after `verb`.
///
/// # Errors
/// [`SelectionError`] in kubectl's words.
pub fn select(verb: &'static str, words: &[String], catalogue: &Catalogue) -> Result<Vec<Selection>, SelectionError> {
    if words.iter().any(|word| word.contains('/')) {
        return select_pairs(verb, words, catalogue);
    }
    let Some((kinds, names)) = words.split_first() else {
        return Err(SelectionError::NoKind { verb });
    };
    let mut selections: Vec<Selection> = Vec::new();
    for word in kinds.split(',').filter(|word| !word.is_empty()) {
        let resources = match catalogue.find(word) {
            Ok(resource) => vec![resource],
            Err(unknown) => {
                let resources = catalogue.category(&word.to_lowercase());
                if resources.is_empty() {
                    return Err(unknown.into());
                }
                resources
            }
        };
        for resource in resources {
            if !selections.iter().any(|selection| selection.resource == *resource) {
                selections.push(Selection { resource: resource.clone(), names: names.to_vec() });
            }
        }
    }
    if selections.is_empty() { Err(SelectionError::NoKind { verb }) } else { Ok(selections) }
}

fn select_pairs(verb: &'static str, words: &[String], catalogue: &Catalogue) -> Result<Vec<Selection>, SelectionError> {
    let mut selections: Vec<Selection> = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            return Err(SelectionError::MixedForms { verb });
        };
        if kind.is_empty() || name.is_empty() || name.contains('/') || kind.contains(',') {
            return Err(SelectionError::BadPair { word: word.clone() });
        }
        let resource = catalogue.find(kind)?;
        match selections.last_mut() {
            Some(last) if last.resource == *resource => last.names.push(name.to_owned()),
            _ => selections.push(Selection { resource: resource.clone(), names: vec![name.to_owned()] }),
        }
    }
    Ok(selections)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::discovery::tests::catalogue;

    fn read(line: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        let selections = select("get", &words, &catalogue()).map_err(|error| error.to_string())?;
        Ok(selections.into_iter().map(|selection| (selection.resource.plural, selection.names)).collect())
    }

    #[test]
    fn words_are_read_as_kubectl_reads_them() {
        type Selected<'a> = (&'a str, &'a [&'a str]);
        let table: [(&str, &[Selected]); 7] = [
            ("phones", &[("phones", &[])]),
            ("ph a b", &[("phones", &["a", "b"])]),
            ("models,phones,model", &[("models", &[]), ("phones", &[])]),
            ("model,phone x", &[("models", &["x"]), ("phones", &["x"])]),
            ("phone/a phones/b mdl/c", &[("phones", &["a", "b"]), ("models", &["c"])]),
            ("all", &[("inferencedeployments", &[]), ("models", &[]), ("phones", &[]), ("segmentplacements", &[])]),
            (
                "phones,all",
                &[("phones", &[]), ("inferencedeployments", &[]), ("models", &[]), ("segmentplacements", &[])],
            ),
        ];
        for (line, expected) in table {
            let expected: Vec<(String, Vec<String>)> = expected
                .iter()
                .map(|(kind, names)| ((*kind).to_owned(), names.iter().map(ToString::to_string).collect()))
                .collect();
            assert_eq!(read(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn words_that_cannot_be_meant_are_refused() {
        for (line, expected) in [
            ("", "you must specify the type of resource to get"),
            (",", "you must specify the type of resource to get"),
            ("phone phone/a", "there is no need to specify a resource type as a separate argument"),
            ("phone/", "must have a single resource and name"),
            ("phone/a/b", "must have a single resource and name"),
            ("phne/a", "the server doesn't have a resource type \"phne\"\nDid you mean \"phone\"?"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(expected), "{line:?}: {error}");
        }
    }
}
