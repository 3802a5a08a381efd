//! Names that Java and Rust have to call alike, since no compiler sees both.

use std::collections::BTreeSet;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::super::{State, Status};
use crate::told::{Network, Told};

type Names = BTreeSet<String>;

/// Asks a type what its fields or variants are called, and gives it nothing.
struct Ask<'a>(&'a mut Names);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("it has no names"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(fields.iter().map(ToString::to_string));
        Err(Self::Error::custom("asked"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(variants.iter().map(ToString::to_string));
        Err(Self::Error::custom("asked"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

fn names_of<T: for<'de> Deserialize<'de>>() -> Names {
    let mut names = Names::new();
    let _ = T::deserialize(Ask(&mut names));
    assert!(!names.is_empty(), "{}", std::any::type_name::<T>());
    names
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("android").join(path)).unwrap()
}

/// A file of the app's.
fn java(class: &str) -> String {
    read(&format!("app/src/ai/polyphony/{class}.java"))
}

/// All files of the app's, by the names of their classes.
fn all_java() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("android/app/src/ai/polyphony");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let class = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    files.map(|path| (class(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

/// What stands in a text between `before` and the next `after`, each time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
}

/// The quoted ones of some pieces.
fn quoted(pieces: Vec<&str>) -> Names {
    let inside = |piece: &str| Some(piece.split_once('"')?.1.strip_suffix('"')?.to_owned());
    pieces.into_iter().filter_map(inside).collect()
}

fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    words.fold(first, |name, word| name + &capital(word))
}

#[test]
fn java_tells_what_rust_reads() {
    let told: Names = all_java()
        .iter()
        .flat_map(|(_, text)| {
            let mut puts = between(text, "report.put(", ",");
            puts.extend(between(text, "put(report, ", ","));
            quoted(puts.into_iter().filter(|name| name.starts_with('"')).collect())
        })
        .collect();
    assert_eq!(told, names_of::<Told>());
}

#[test]
fn java_names_networks_as_rust_does() {
    let text = java("Network");
    let (_, kinds) = text.split_once("String kind(").unwrap();
    let mut named = quoted(between(kinds, "return ", ";"));
    // What it has no name for it does not tell.
    assert!(named.remove(""));
    let mut known = names_of::<Network>();
    assert!(known.remove("other"));
    assert_eq!(named, known);
}

#[test]
fn java_reads_what_rust_says_of_the_agent() {
    let text = java("Status");
    let reads = between(&text, "said.", ")").into_iter().filter_map(|call| Some(call.split_once('(')?.1));
    let reads = reads.map(|arguments| arguments.split(',').next().unwrap_or_default());
    assert_eq!(quoted(reads.collect()), names_of::<Status>());
    let states: Vec<(&str, String)> = between(&text, "static final String ", ";")
        .into_iter()
        .map(|constant| constant.split_once(" = ").unwrap())
        .map(|(name, value)| (name, value.trim_matches('"').to_owned()))
        .collect();
    assert_eq!(states.iter().map(|(_, state)| state.clone()).collect::<Names>(), names_of::<State>());
    // And has a word of people's for each.
    let words = java("Words");
    let said: BTreeSet<&str> = between(&words, "case Status.", ":").into_iter().collect();
    assert_eq!(states.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), said);
}

#[test]
fn java_calls_what_the_library_has() {
    let agent = java("Agent");
    let declared: Vec<&str> = between(&agent, "static native ", "(");
    let declared: Names = declared.into_iter().filter_map(|it| Some(it.split_once(' ')?.1.to_owned())).collect();
    let library = read("library/src/lib.rs");
    let exported = between(&library, "pub extern \"system\" fn ", "<").into_iter().map(camel_case).collect::<Names>();
    assert_eq!(declared, exported);
}

#[test]
fn what_takes_its_time_is_called_on_the_agent_s_own_thread_alone() {
    for (class, text) in all_java().iter().filter(|(class, _)| class != "AgentThread") {
        for call in ["Agent.start(", "Agent.stop(", "Agent.tell("] {
            assert!(!text.contains(call), "{class} calls {call}…), which holds up its thread");
        }
    }
}
