//! The store: files on a device under the digests of what they hold, so that nothing is pushed that is there.
//!
//! A file comes to its name only whole: it is pushed beside the store and then renamed, and its size is looked at before it is used again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use crate::client::Adb;
use crate::script::quoted;
use crate::verdict::AdbError;

/// Follows the store's name in those of files that are on their way; what a crashed run left of them goes with the next look.
const COMING: &str = ".coming-";

/// A file that is to be on the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub from: PathBuf,
    pub n_bytes: u64,
}

/// The store of one device.
pub struct Store<'a> {
    pub adb: &'a Adb,
    pub serial: &'a str,
    /// Its folder on the device.
    pub folder: String,
}

/// What is there, by digest, and what room is left.
#[derive(Debug, Default, PartialEq)]
struct Stock {
    sizes: BTreeMap<String, u64>,
    free_bytes: u64,
}

// === impl Wanted ===

impl Wanted {
    /// # Errors
    /// When it cannot be read.
    pub fn of(from: &Path) -> io::Result<Self> {
        // Opened, since one may see a file and not be allowed to read it.
        let metadata = File::open(from)?.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        Ok(Self { from: from.to_owned(), n_bytes: metadata.len() })
    }

    fn digest(&self) -> io::Result<String> {
        let mut hasher = Sha256::new();
        io::copy(&mut File::open(&self.from)?, &mut hasher)?;
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

// === impl Store ===

impl Store<'_> {
    /// Brings what is not there yet; where each lies then, in the same order, and how many bytes were pushed.
    ///
    /// # Errors
    /// [`AdbError::NoRoom`] before anything is pushed, where it can be foreseen; and the verdict on a push that fails, of which nothing is left.
    pub fn bring(&self, wanted: &[Wanted]) -> Result<(Vec<String>, u64), AdbError> {
        let stock = self.stock()?;
        let total: u64 = wanted.iter().map(|one| one.n_bytes).sum();
        // Before all of it is read, to no avail.
        if total > stock.free_bytes + stock.sizes.values().sum::<u64>() {
            return Err(no_room(total, stock.free_bytes));
        }
        let unreadable = |one: &Wanted, error: io::Error| AdbError::Refused {
            what: format!("read {}", one.from.display()),
            said: error.to_string(),
        };
        let digests = wanted.iter().map(|one| one.digest().map_err(|error| unreadable(one, error)));
        let digests = digests.collect::<Result<Vec<_>, _>>()?;
        let mut missing: BTreeMap<&str, &Wanted> = BTreeMap::new();
        for (one, digest) in wanted.iter().zip(&digests) {
            if stock.sizes.get(digest) != Some(&one.n_bytes) {
                missing.insert(digest, one);
            }
        }
        let n_bytes = missing.values().map(|one| one.n_bytes).sum();
        if n_bytes > stock.free_bytes {
            return Err(no_room(n_bytes, stock.free_bytes));
        }
        for (digest, one) in missing {
            self.push(one, digest)?;
        }
        Ok((digests.iter().map(|digest| format!("{}/{digest}", self.folder)).collect(), n_bytes))
    }

    fn stock(&self) -> Result<Stock, AdbError> {
        let folder = quoted(&self.folder);
        // A store that holds nothing has no file for the pattern.
        let script = format!(
            "rm -f {folder}{COMING}*; stat -f -c 'free %a %S' {folder} && cd {folder} && {{ stat -c 'file %s %n' * 2>/dev/null; true; }}"
        );
        Ok(parse_stock(&self.adb.ask(self.serial, "look at what is there", &script, None)?))
    }

    fn push(&self, one: &Wanted, digest: &str) -> Result<(), AdbError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // A name of its own: the device still removes what came of a push that was given up when the next one is on its way.
        let turn = COUNT.fetch_add(1, Ordering::Relaxed);
        let coming = format!("{}{COMING}{}-{turn}", self.folder, std::process::id());
        let from = one.from.to_string_lossy();
        let deadline = self.adb.patience.of_push(one.n_bytes);
        let pushed = self.adb.call(self.serial, &["push", &from, &coming], deadline);
        let (coming, place) = (quoted(&coming), quoted(&format!("{}/{digest}", self.folder)));
        let arrived = pushed.and_then(|_| {
            // What was read here a moment ago may have been written anew by a build.
            let script =
                format!("[ $(stat -c %s {coming}) = {} ] && chmod 755 {coming} && mv {coming} {place}", one.n_bytes);
            self.adb.ask(self.serial, "keep what was pushed", &script, None)
        });
        arrived.map(drop).map_err(|error| {
            // Best effort: a device that is gone is emptied when it is taken the next time.
            let _ = self.adb.ask(self.serial, "remove what was pushed in part", &format!("rm -f {coming}"), None);
            match error {
                AdbError::Silent { deadline, .. } => AdbError::TooSlow { n_bytes: one.n_bytes, deadline },
                AdbError::NoRoom { .. } => AdbError::NoRoom { what: format!("{} bytes", one.n_bytes) },
                error => error,
            }
        })
    }
}

fn no_room(n_bytes: u64, free_bytes: u64) -> AdbError {
    AdbError::NoRoom { what: format!("{n_bytes} bytes, with {free_bytes} free") }
}

fn parse_stock(said: &str) -> Stock {
    let mut stock = Stock::default();
    for line in said.lines() {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["free", blocks, size] => {
                let product = blocks.parse::<u64>().ok().zip(size.parse::<u64>().ok());
                stock.free_bytes = product.map_or(0, |(blocks, size)| blocks.saturating_mul(size));
            }
            ["file", size, digest] => {
                if let Ok(size) = size.parse() {
                    stock.sizes.insert((*digest).to_owned(), size);
                }
            }
            _ => {}
        }
    }
    stock
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stock_is_read_and_an_empty_one_as_well() {
        let stock = parse_stock("free 10 4096\nfile 3 abc\nfile x def\n");
        assert_eq!(stock, Stock { sizes: [("abc".to_owned(), 3)].into(), free_bytes: 40_960 });
        assert_eq!(parse_stock("free 0 4096\n"), Stock::default());
    }

    #[test]
    fn what_is_wanted_is_known_by_what_it_holds() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("one");
        std::fs::write(&path, "abc").unwrap();
        let wanted = Wanted::of(&path).unwrap();
        assert_eq!(wanted.n_bytes, 3);
        assert_eq!(wanted.digest().unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Wanted::of(here.path()).is_err() && Wanted::of(&here.path().join("two")).is_err());
    }
}
