//! Architecture: the family of a model, by the name that its file has for it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::HyperparameterError;
use crate::family::Family;

/// A family whose models can be computed. In JSON and in text it has the name in `general.architecture`.
#[derive(Clone, Copy)]
pub struct Architecture(&'static Family);

// === impl Architecture ===

impl Architecture {
    /// The name in `general.architecture`, which also begins the other keys.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// How its models compute.
    pub fn family(self) -> &'static Family {
        self.0
    }
}

impl FromStr for Architecture {
    type Err = HyperparameterError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(family) = Family::named(name) {
            return Ok(Self(family));
        }
        let supported: Vec<&str> = Family::all().iter().map(|family| family.name).collect();
        Err(HyperparameterError::Architecture { found: name.to_owned(), supported: supported.join(", ") })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Architecture {}

impl Hash for Architecture {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}
