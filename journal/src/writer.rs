//! The writer of the journal: whole lines, of which those are lost that cannot be written now.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

use crate::keeping::Keeping;

/// How long a line waits for a reader that has fallen behind; once it has, the next ones do not wait.
const PATIENCE: Duration = Duration::from_millis(50);
/// What a pipe takes without waiting when it says that it takes anything (POSIX's PIPE_BUF, at its least on Linux).
const PIECE_BYTES: usize = 4096;

/// Where lines go. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Mutex<State>>);

struct State {
    place: Place,
    lost: Option<Lost>,
}

enum Place {
    File(Keeping),
    /// A pipe, a terminal, or a file that somebody else keeps.
    Stream(File),
    Nowhere,
}

/// Lines that were not written since the last one that was.
struct Lost {
    n_lines: u64,
    why: String,
    /// The last one was cut off in its midst.
    cut: bool,
}

// === impl Journal ===

impl Journal {
    /// In the file, or else on stderr.
    pub(crate) fn new(keeping: Option<Keeping>) -> Self {
        let place = match keeping {
            Some(keeping) => Place::File(keeping),
            None => match io::stderr().as_fd().try_clone_to_owned() {
                Ok(stderr) => Place::Stream(stderr.into()),
                Err(_) => Place::Nowhere,
            },
        };
        Self::at(place)
    }

    fn at(place: Place) -> Self {
        Self(Arc::new(Mutex::new(State { place, lost: None })))
    }
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

impl Write for Journal {
    /// Takes a line, and says that it is written, whatever becomes of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl State ===

impl State {
    fn line(&mut self, line: &[u8]) {
        let patience = if self.lost.is_some() { Duration::ZERO } else { PATIENCE };
        if let Some(lost) = &self.lost {
            let note = lost.note();
            match self.place.put(note.as_bytes(), patience) {
                Ok(()) => self.lost = None,
                Err((error, n_written)) => return self.lose(&error, n_written),
            }
        }
        if let Err((error, n_written)) = self.place.put(line, patience) {
            self.lose(&error, n_written);
        }
    }

    fn lose(&mut self, error: &io::Error, n_written: usize) {
        let lost = self.lost.get_or_insert_with(|| Lost { n_lines: 0, why: error.to_string(), cut: false });
        lost.n_lines += 1;
        lost.cut |= n_written > 0;
    }
}

// === impl Lost ===

impl Lost {
    fn note(&self) -> String {
        let Self { n_lines, why, cut } = self;
        let (end, noun) = (if *cut { "\n" } else { "" }, if *n_lines == 1 { "line is" } else { "lines are" });
        format!("{end}… {n_lines} {noun} missing here: {why}\n")
    }
}

// === impl Place ===

impl Place {
    /// Writes all of `bytes`, or says why not and how many it wrote.
    fn put(&mut self, bytes: &[u8], patience: Duration) -> Result<(), (io::Error, usize)> {
        let (mut out, may_wait) = match self {
            Self::File(keeping) => (keeping.with_room().map_err(|error| (error, 0))?, false),
            Self::Stream(stream) => (&*stream, true),
            Self::Nowhere => return Ok(()),
        };
        let mut n_written = 0;
        while n_written < bytes.len() {
            let rest = &bytes[n_written..];
            let piece = if may_wait { &rest[..rest.len().min(PIECE_BYTES)] } else { rest };
            let written =
                if may_wait { await_room(out, patience) } else { Ok(()) }.and_then(|()| match out.write(piece) {
                    Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                    written => written,
                });
            match written {
                Ok(n_bytes) => n_written += n_bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((error, n_written)),
            }
        }
        Ok(())
    }
}

/// Waits until `out` takes a piece without waiting itself.
fn await_room(out: &File, patience: Duration) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
    let mut polled = [PollFd::new(out, PollFlags::OUT)];
    match poll(&mut polled, Some(&timeout))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "whoever reads has stopped")),
        // An error or a hang-up is told by the write.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    fn stream(file: impl Into<std::os::fd::OwnedFd>) -> Journal {
        Journal::at(Place::Stream(file.into().into()))
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_lost_and_no_more_than_they() {
        let mut journal = stream(File::options().write(true).open("/dev/full").unwrap());
        for _ in 0..3 {
            journal.write_all(b"a line\n").unwrap();
        }
        let (mut reader, writer) = io::pipe().unwrap();
        journal.0.lock().unwrap().place = Place::Stream(std::os::fd::OwnedFd::from(writer).into());
        journal.write_all(b"there is room again\n").unwrap();
        drop(journal);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (note, rest) = text.split_once('\n').unwrap();
        assert!(note.contains("3 lines are missing here") && note.contains("No space left"), "{text}");
        assert_eq!(rest, "there is room again\n");
    }

    #[test]
    fn a_closed_pipe_ends_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        stream(writer).write_all(b"a line\n").unwrap();
    }

    #[test]
    fn a_reader_that_has_stopped_holds_nothing_up() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut journal = stream(writer);
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // Far more than a pipe holds.
        for _ in 0..4096 {
            journal.write_all(&line).unwrap();
        }
        let mut held = vec![0; 64 << 10];
        reader.read_exact(&mut held[..8192]).unwrap();
        journal.write_all(b"heard\n").unwrap();
        drop(journal);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("lines are missing here: whoever reads has stopped"), "{}", rest.len());
        assert!(rest.ends_with("\nheard\n"));
    }
}
