//! `logs`: what the controller, a phone, or the phones of a deployment wrote on this machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::connection::ClusterFlags;
use crate::failure::Failure;
use crate::processes::log_file::LogFile;
use crate::progress::{loading, placements_path};
use crate::verbs::completion;

const POLL: Duration = Duration::from_millis(200);
/// Lines of each log when several are shown, as in kubectl.
const TAIL_OF_SEVERAL: i64 = 10;
/// What is read of a growing file at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// Show logs: `logs phone-1`, `logs controller -f`, `logs smollm2 --tail 20` (the phones of a deployment).
#[derive(Debug, Args)]
pub struct Logs {
    /// A phone, `controller`, or a deployment; phone/NAME and infer/NAME say which is meant
    #[arg(value_name = "PHONE|controller|DEPLOYMENT", add = completion::logged())]
    subject: String,
    /// Show new lines until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines [default: all; 10 of each phone of a deployment]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    tail: Option<i64>,
    /// Show the log's name before each line
    #[arg(long)]
    prefix: bool,
}

// === impl Logs ===

impl Logs {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = cluster.data_dir_of_cluster()?;
        let names = self.names(&cluster, &data_dir).await?;
        let several = names.len() > 1;
        let tail = self.tail.unwrap_or(if several { TAIL_OF_SEVERAL } else { -1 });
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let mut readers = Vec::new();
        for name in &names {
            let prefix = if several || self.prefix { format!("[{name:width$}] ") } else { String::new() };
            let mut reader = Reader::open(&LogFile::new(&data_dir, name), prefix, tail)?;
            reader.show_new(!self.follow)?;
            readers.push(reader);
        }
        if !self.follow {
            return Ok(ExitCode::SUCCESS);
        }
        loop {
            for reader in &mut readers {
                reader.show_new(false)?;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The logs that are meant: of a process that has one, else of the phones that hold a deployment.
    async fn names(&self, cluster: &ClusterFlags, data_dir: &Path) -> anyhow::Result<Vec<String>> {
        let (kind, name) =
            self.subject.split_once('/').map_or((None, self.subject.as_str()), |(kind, name)| (Some(kind), name));
        let is_phone = kind.is_none_or(|kind| matches!(kind, "phone" | "phones" | "ph"));
        let known = log_names(data_dir);
        if is_phone && known.contains(name) {
            return Ok(vec![name.to_owned()]);
        }
        if kind.is_some() && is_phone {
            return Err(no_log(name, data_dir, &known).into());
        }
        let connection = match cluster.connect().await {
            Ok(connection) => connection,
            Err(_) if kind.is_none() => return Err(no_log(name, data_dir, &known).into()),
            Err(error) => return Err(error.into()),
        };
        let placements = connection.server.list(&placements_path(&connection.namespace, name)).await?;
        let current: BTreeSet<String> = loading(&placements).into_iter().map(|segment| segment.placement).collect();
        let mut phones: Vec<String> = Vec::new();
        for placement in &placements {
            let phone = placement["spec"]["phone"].as_str().unwrap_or_default();
            let is_current = placement["metadata"]["name"].as_str().is_some_and(|name| current.contains(name));
            if is_current && known.contains(phone) && !phones.iter().any(|known| known == phone) {
                phones.push(phone.to_owned());
            }
        }
        phones.sort();
        if phones.is_empty() { Err(no_log(name, data_dir, &known).into()) } else { Ok(phones) }
    }
}

fn log_names(data_dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(data_dir.join("logs")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_owned())).collect()
}

fn no_log(name: &str, data_dir: &Path, known: &BTreeSet<String>) -> Failure {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let folder = data_dir.join("logs");
    let there = if known.is_empty() {
        "is empty: does the control plane run with another --data-dir?".to_owned()
    } else {
        format!("has {}", known.join(", "))
    };
    Failure::Request(format!(
        "{name:?} has no log on this machine and is no deployment with phones here: {} {there}",
        folder.display()
    ))
}

/// One log while it is shown.
struct Reader {
    path: PathBuf,
    file: File,
    prefix: String,
    /// A line that has no end yet.
    partial: Vec<u8>,
}

// === impl Reader ===

impl Reader {
    /// Stands before the last `tail` lines; a negative `tail` means all.
    fn open(log: &LogFile, prefix: String, tail: i64) -> io::Result<Self> {
        let mut file = File::open(log.path())?;
        if let Ok(tail) = u64::try_from(tail) {
            let start = start_of_last_lines(&mut file, tail)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Self { path: log.path().to_owned(), file, prefix, partial: Vec::new() })
    }

    /// Prints the lines that are complete by now; with `to_end` also one that is not.
    fn show_new(&mut self, to_end: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        loop {
            let n_bytes = (&mut self.file).take(CHUNK_BYTES).read_to_end(&mut self.partial)?;
            while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                out.write_all(self.prefix.as_bytes())?;
                out.write_all(&line)?;
            }
            if n_bytes == 0 && self.moved_on()? {
                continue;
            }
            if n_bytes == 0 || self.partial.len() as u64 > CHUNK_BYTES {
                break;
            }
        }
        if !self.partial.is_empty() && (to_end || self.partial.len() as u64 > CHUNK_BYTES) {
            out.write_all(self.prefix.as_bytes())?;
            out.write_all(&self.partial)?;
            writeln!(out)?;
            self.partial.clear();
        }
        out.flush()
    }

    /// Goes on with the file that has taken the place of one that was set aside; says whether there is one.
    fn moved_on(&mut self) -> io::Result<bool> {
        // Between the two there may be none for an instant.
        let Ok(now) = std::fs::metadata(&self.path) else { return Ok(false) };
        let ours = self.file.metadata()?;
        if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) {
            return Ok(false);
        }
        self.file = File::open(&self.path)?;
        Ok(true)
    }
}

/// Where the last `n_lines` lines begin, read backwards.
fn start_of_last_lines(file: &mut File, n_lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let (mut position, mut n_found) = (length, 0);
    while position > 0 {
        let start = position.saturating_sub(64 << 10);
        let mut chunk = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        (&mut *file).take(position - start).read_to_end(&mut chunk)?;
        for (idx, byte) in chunk.iter().enumerate().rev() {
            let at = start + idx as u64;
            // The break that ends the file ends its last line; it begins none.
            if *byte == b'\n' && at + 1 < length {
                n_found += 1;
            }
            if *byte == b'\n' && n_found == n_lines {
                return Ok(at + 1);
            }
        }
        position = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_lines_begin_where_they_should() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for (text, n_lines, start) in [
            ("a\nb\nc\n", 1, 4),
            ("a\nb\nc\n", 2, 2),
            ("a\nb\nc\n", 9, 0),
            ("a\nb\nc", 1, 4),
            ("", 3, 0),
            ("a\nb\n", 0, 4),
            ("\n\n", 1, 1),
        ] {
            std::fs::write(&path, text).unwrap();
            let mut file = File::open(&path).unwrap();
            assert_eq!(start_of_last_lines(&mut file, n_lines).unwrap(), start, "{text:?} {n_lines}");
        }
        let long = "x".repeat(200 << 10) + "\nlast\n";
        std::fs::write(&path, &long).unwrap();
        assert_eq!(start_of_last_lines(&mut File::open(&path).unwrap(), 1).unwrap(), long.len() as u64 - 5);
    }

    #[test]
    fn a_log_that_is_set_aside_is_followed_into_the_next() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let log = LogFile::new(folder.path(), "phone-1");
        std::fs::write(log.path(), "one\n").unwrap();
        let mut reader = Reader::open(&log, String::new(), 0).unwrap();
        assert!(!reader.moved_on().unwrap());
        std::fs::rename(log.path(), folder.path().join("logs/phone-1.log.1")).unwrap();
        assert!(!reader.moved_on().unwrap(), "there is no other yet");
        std::fs::write(log.path(), "two\n").unwrap();
        assert!(reader.moved_on().unwrap());
        let mut text = String::new();
        reader.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "two\n");
    }

    #[test]
    fn a_missing_log_names_those_there_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        for name in ["controller.log", "phone-1.log", "phone-1.log.1"] {
            std::fs::write(folder.path().join("logs").join(name), "").unwrap();
        }
        let known = log_names(folder.path());
        let text = no_log("phone-9", folder.path(), &known).to_string();
        assert!(text.ends_with("has controller, phone-1"), "{text}");
    }
}
