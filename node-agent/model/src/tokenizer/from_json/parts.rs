//! Parts: what a `tokenizer.json` lists, kept as it is read and no further than a vocabulary goes. Judges nothing.
//!
//! A list of two bytes an entry becomes one of a hundred in memory. So entries beyond the most that are taken are counted and not kept:
//! whoever asks for them is told how many there are.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::super::flaw::{Flaw, MAX_ENTRIES, check_entries};

/// The entries of a list.
#[derive(Debug)]
pub(super) struct List<T> {
    kept: Vec<T>,
    n_found: usize,
}

/// Tokens by their texts; of equal texts the last counts.
#[derive(Debug)]
pub(super) struct Table {
    kept: HashMap<String, u32>,
    n_found: usize,
}

/// The two sides of a merge, in either of the ways in which they are written.
#[derive(Debug)]
pub(super) enum Merge {
    Joined(String),
    Apart(String, String),
}

/// A part whose form is known to those alone who read it: it has few values, as all known ones do.
#[derive(Debug)]
pub(super) struct Small {
    kept: Value,
    n_found: usize,
}

/// Values of a [`Small`] part; known ones have some hundred.
pub(super) const MAX_VALUES: usize = 1 << 14;

// === impl List ===

impl<T> List<T> {
    /// # Errors
    /// [`Flaw::TooMany`].
    pub(super) fn all(self) -> Result<Vec<T>, Flaw> {
        check_entries(self.n_found).map(|()| self.kept)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), n_found: 0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<List<T>, A::Error> {
                let mut list = List::default();
                while list.kept.len() < MAX_ENTRIES
                    && let Some(entry) = entries.next_element()?
                {
                    list.kept.push(entry);
                }
                list.n_found = list.kept.len() + rest_of(&mut entries)?;
                Ok(list)
            }
        }
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// How many entries are left, none of them kept.
fn rest_of<'de, A: SeqAccess<'de>>(entries: &mut A) -> Result<usize, A::Error> {
    let mut n_found = 0;
    while entries.next_element::<IgnoredAny>()?.is_some() {
        n_found += 1;
    }
    Ok(n_found)
}

// === impl Table ===

impl Table {
    /// # Errors
    /// [`Flaw::TooMany`].
    pub(super) fn all(self) -> Result<HashMap<String, u32>, Flaw> {
        check_entries(self.n_found).map(|()| self.kept)
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tokens by their texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Table, A::Error> {
                let mut table = Table { kept: HashMap::new(), n_found: 0 };
                while table.kept.len() < MAX_ENTRIES
                    && let Some((text, token)) = entries.next_entry()?
                {
                    table.kept.insert(text, token);
                    table.n_found += 1;
                }
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    table.n_found += 1;
                }
                Ok(table)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

// === impl Merge ===

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sides;
        impl<'de> Visitor<'de> for Sides {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two texts with a space between, or a list of both")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Merge, E> {
                Ok(Merge::Joined(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sides: A) -> Result<Merge, A::Error> {
                let (left, right) = (sides.next_element()?, sides.next_element()?);
                match (left, right, sides.next_element::<IgnoredAny>()?) {
                    (Some(left), Some(right), None) => Ok(Merge::Apart(left, right)),
                    _ => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }
        deserializer.deserialize_any(Sides)
    }
}

// === impl Small ===

impl Small {
    /// `None` where it has more than [`MAX_VALUES`].
    pub(super) fn value(&self) -> Option<&Value> {
        (self.n_found <= MAX_VALUES).then_some(&self.kept)
    }
}

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut n_found = 0;
        let kept = Counted { n_found: &mut n_found }.deserialize(deserializer)?;
        Ok(Self { kept, n_found })
    }
}

/// Reads one value, and those in it as long as there are few.
struct Counted<'n> {
    n_found: &'n mut usize,
}

// === impl Counted ===

impl Counted<'_> {
    fn within(&mut self) -> Counted<'_> {
        Counted { n_found: self.n_found }
    }
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.n_found += 1;
        if *self.n_found > MAX_VALUES {
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while *self.n_found <= MAX_VALUES
            && let Some(item) = items.next_element_seed(self.within())?
        {
            list.push(item);
        }
        *self.n_found += rest_of(&mut items)?;
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while *self.n_found <= MAX_VALUES
            && let Some(name) = fields.next_key::<String>()?
        {
            object.insert(name, fields.next_value_seed(self.within())?);
        }
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            *self.n_found += 1;
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_small_is_read_as_it_is_and_what_is_not_is_counted() {
        let text = r#"{"a": [null, true, -1, 1, 1.5, "é", {}], "b": {"c": []}}"#;
        let small: Small = serde_json::from_str(text).unwrap();
        assert_eq!(small.value(), Some(&serde_json::from_str(text).unwrap()));
        assert_eq!(small.n_found, 11);
        for many in [
            format!("[{}0]", "0,".repeat(1 << 20)),
            format!("{{\"a\": [{}0]}}", "[],".repeat(1 << 20)),
            format!("{{{}\"\": 0}}", "\"\": [0],".repeat(1 << 18)),
        ] {
            let many: Small = serde_json::from_str(&many).unwrap();
            assert!(many.value().is_none() && many.n_found > 1 << 18, "{}", many.n_found);
            let n_kept = |value: &Value| match value {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                _ => 0,
            };
            assert!(n_kept(&many.kept) <= MAX_VALUES);
        }
    }

    #[test]
    fn entries_beyond_the_most_are_counted_and_not_kept() {
        let n = MAX_ENTRIES + 5;
        let list: List<u8> = serde_json::from_str(&format!("[{}0]", "0,".repeat(n - 1))).unwrap();
        assert_eq!((list.kept.len(), list.all().unwrap_err()), (MAX_ENTRIES, Flaw::TooMany { found: n }));
        let table = (0..n).map(|idx| format!("\"{idx}\":{idx}")).collect::<Vec<_>>().join(",");
        let table: Table = serde_json::from_str(&format!("{{{table}}}")).unwrap();
        assert_eq!((table.kept.len(), table.all().unwrap_err()), (MAX_ENTRIES, Flaw::TooMany { found: n }));
    }

    #[test]
    fn a_merge_has_two_sides() {
        let read = |text: &str| serde_json::from_str::<Merge>(text);
        assert!(matches!(read(r#""a b""#), Ok(Merge::Joined(text)) if text == "a b"));
        assert!(matches!(read(r#"["a", "b"]"#), Ok(Merge::Apart(left, right)) if left == "a" && right == "b"));
        for text in ["3", "[]", r#"["a"]"#, r#"["a", "b", "c"]"#, r#"["a", 3]"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
