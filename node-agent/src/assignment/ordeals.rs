//! Ordeals: loads that this agent may not live through, marked on its disk while they last. An agent that dies in a load has
//! failed that load: the next run says so, once for each death, before it tries again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What is known of the loads of each manifest, by its digest. Kept as `loads.json` in the agent's data folder.
pub struct Ordeals {
    path: PathBuf,
    marks: Mutex<BTreeMap<String, Mark>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    /// What the smallest load needed that was under way.
    needed_bytes: u64,
    n_loading: u32,
    n_deaths: u32,
    /// A death that was not told yet.
    is_due: bool,
}

/// A load under way. Dropped, the agent has lived through it.
pub struct Ordeal<'a> {
    ordeals: &'a Ordeals,
    digest: String,
}

/// Manifests remembered; the file stays small whatever comes.
const MAX_MARKS: usize = 16;

// === impl Ordeals ===

impl Ordeals {
    /// Reads what the last run left. What is no file of ours is passed over: it is no reason not to run.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("loads.json");
        let mut marks: BTreeMap<String, Mark> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => BTreeMap::new(),
        };
        for mark in marks.values_mut().filter(|mark| mark.n_loading > 0) {
            mark.n_loading = 0;
            mark.n_deaths = mark.n_deaths.saturating_add(1);
            mark.is_due = true;
        }
        while marks.len() > MAX_MARKS {
            marks.pop_first();
        }
        let ordeals = Self { path, marks: Mutex::new(marks) };
        ordeals.save(&ordeals.lock());
        ordeals
    }

    /// How often this agent died in a load of that manifest that needed no more than this one; told once a death.
    pub fn deaths(&self, digest: &str, needed_bytes: u64) -> Option<u32> {
        let mut marks = self.lock();
        let mark = marks.get_mut(digest).filter(|mark| mark.is_due && mark.needed_bytes <= needed_bytes)?;
        mark.is_due = false;
        let n_deaths = mark.n_deaths;
        self.save(&marks);
        Some(n_deaths)
    }

    /// A load begins.
    pub fn begin(&self, digest: &str, needed_bytes: u64) -> Ordeal<'_> {
        let mut marks = self.lock();
        let mark = marks.entry(digest.to_owned()).or_default();
        mark.needed_bytes = if mark.n_loading == 0 { needed_bytes } else { mark.needed_bytes.min(needed_bytes) };
        mark.n_loading += 1;
        self.save(&marks);
        Ordeal { ordeals: self, digest: digest.to_owned() }
    }

    /// The agent ends in order: what it breaks off now it has not died of.
    pub fn end(&self) {
        let mut marks = self.lock();
        marks.retain(|_, mark| mark.n_deaths > 0);
        marks.values_mut().for_each(|mark| mark.n_loading = 0);
        self.save(&marks);
    }

    fn lived(&self, digest: &str) {
        let mut marks = self.lock();
        if let Some(mark) = marks.get_mut(digest) {
            mark.n_loading = mark.n_loading.saturating_sub(1);
            if mark.n_loading == 0 {
                marks.remove(digest);
            }
        }
        self.save(&marks);
    }

    fn save(&self, marks: &BTreeMap<String, Mark>) {
        if let Err(error) = self.write(marks) {
            tracing::warn!(path = %self.path.display(), %error, "should a load end this agent, it will not be known");
        }
    }

    fn write(&self, marks: &BTreeMap<String, Mark>) -> io::Result<()> {
        if marks.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let part = self.path.with_extension("part");
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| file.write_all(&serde_json::to_vec(marks)?))
            .and_then(|()| fs::rename(&part, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ordeal<'_> {
    fn drop(&mut self) {
        self.ordeals.lived(&self.digest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Begins a load and dies in it.
    fn die(folder: &Path, needed_bytes: u64) {
        std::mem::forget(Ordeals::open(folder).begin("a", needed_bytes));
    }

    #[test]
    fn a_death_in_a_load_is_told_once_by_the_next_run_and_forgotten_when_a_load_is_lived_through() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Ordeals::open(folder.path()).deaths("a", 100), None);
        die(folder.path(), 100);
        let ordeals = Ordeals::open(folder.path());
        assert_eq!(ordeals.deaths("a", 99), None, "a smaller load may go well");
        assert_eq!(ordeals.deaths("b", 100), None);
        assert_eq!((ordeals.deaths("a", 100), ordeals.deaths("a", 100)), (Some(1), None));
        die(folder.path(), 100);
        assert_eq!(Ordeals::open(folder.path()).deaths("a", 100), Some(2));
        drop(Ordeals::open(folder.path()).begin("a", 100));
        assert!(!folder.path().join("loads.json").exists());
    }

    #[test]
    fn an_agent_that_ends_in_order_has_not_died() {
        let folder = tempfile::tempdir().unwrap();
        let ordeals = Ordeals::open(folder.path());
        let _breaks_off = std::mem::ManuallyDrop::new(ordeals.begin("a", 100));
        ordeals.end();
        assert_eq!(Ordeals::open(folder.path()).deaths("a", 100), None);
    }

    #[test]
    fn a_garbled_file_is_no_reason_not_to_run() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("loads.json"), "{").unwrap();
        assert_eq!(Ordeals::open(folder.path()).deaths("a", 1), None);
    }
}
