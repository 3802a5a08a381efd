//! Log files: what a process of `up` wrote, in `DATA_DIR/logs/NAME.log` and, before that, in `NAME.log.1`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use polyphony_journal::KEPT_BYTES;

/// How far back the last lines are looked for.
const TAIL_BYTES: u64 = 256 << 10;

/// The log of one process.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
}

// === impl LogFile ===

impl LogFile {
    pub fn new(data_dir: &Path, name: &str) -> Self {
        Self { path: data_dir.join("logs").join(format!("{name}.log")) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file to append to, and its length now. A long one is set aside; a process that keeps its own log does so as it runs.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_for_run(&self) -> io::Result<(File, u64)> {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() > KEPT_BYTES) {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// The last `n_lines` lines that were written at or after byte `start`, or since the file began anew.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_lines(&self, n_lines: usize, start: u64) -> io::Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let start = if length < start { 0 } else { start };
        let from = start.max(length.saturating_sub(TAIL_BYTES)).min(length);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(length - from).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if from > start && !lines.is_empty() {
            // Cut through the middle of a line.
            lines.remove(0);
        }
        Ok(lines.split_off(lines.len().saturating_sub(n_lines)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_lines_are_those_of_this_run() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        let log = LogFile::new(folder.path(), "phone-1");
        log.open_for_run().unwrap().0.write_all(b"one\ntwo\n").unwrap();
        let (mut file, start) = log.open_for_run().unwrap();
        file.write_all(b"three\nfour\nfive\n").unwrap();
        assert_eq!(log.last_lines(2, start).unwrap(), ["four", "five"]);
        assert_eq!(log.last_lines(9, start).unwrap(), ["three", "four", "five"]);
        assert_eq!(log.last_lines(9, 0).unwrap().len(), 5);
        file.write_all(&vec![b'x'; TAIL_BYTES as usize]).unwrap();
        file.write_all(b"\nlast\n").unwrap();
        assert_eq!(log.last_lines(9, 0).unwrap(), ["last"]);
        fs::rename(log.path(), log.path().with_extension("log.1")).unwrap();
        fs::write(log.path(), "since\n").unwrap();
        assert_eq!(log.last_lines(9, start).unwrap(), ["since"], "the log was set aside meanwhile");
    }
}
