//! Launches: how an installed program is run, whatever kind of device it runs on.

use std::collections::BTreeMap;

/// How an installed program is run, in the device's folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launch {
    /// The name that it was installed under.
    pub program: String,
    pub arguments: Vec<String>,
    /// Added to the environment that the device gives to programs.
    pub environment: BTreeMap<String, String>,
}

// === impl Launch ===

impl Launch {
    pub fn of<T: Into<String>>(program: &str, arguments: impl IntoIterator<Item = T>) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
        }
    }

    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.insert(variable.to_owned(), value.to_owned());
        self
    }
}
