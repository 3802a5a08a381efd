//! Labs on a shelf: `polyctl lab` with a folder of its own and free ports.

use std::path::Path;
use std::sync::Mutex;

use anyhow::Result;

use super::Shelf;

// === impl Shelf ===

impl Shelf {
    /// Starts the lab of a file; `terms` are further flags of `polyctl lab up`.
    ///
    /// # Errors
    /// When this machine cannot hold it, or a phone is not as fast as its profile says; with what was said.
    pub fn lab(file: &Path, terms: &[&str]) -> Result<Self> {
        let data_dir = tempfile::Builder::new().prefix("polyphony-").tempdir()?;
        let file = file.to_string_lossy();
        let up = ["lab", "up", "--file", &file, "--api-port", "0", "--gateway-port", "0", "--hub-port", "0"];
        let up = up.iter().chain(terms).map(|word| (*word).to_owned()).collect();
        let shelf = Self { data_dir, up, phones: Mutex::new(None) };
        shelf.start()?;
        Ok(shelf)
    }

    pub(super) fn is_lab(&self) -> bool {
        self.up.first().is_some_and(|verb| verb == "lab")
    }

    /// Changes a phone of the lab while it runs: `set("phone-1", &["--cpu", "0.25"])`.
    ///
    /// # Errors
    /// When the lab refuses; with why.
    pub fn set(&self, phone: &str, change: &[&str]) -> Result<()> {
        let words: Vec<&str> = ["lab", "set", phone].into_iter().chain(change.iter().copied()).collect();
        self.polyctl(&words)?.ok().map(drop)
    }
}
