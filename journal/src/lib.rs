//! The journal: what a program says of itself, on stderr or in a file of bounded size.
//!
//! A line that cannot be written (a full disk, a closed pipe, a reader that has stopped) is lost and counted. It never ends
//! the program and never holds it up, which `println!`, `eprintln!` and the usual writers of logs all may.

mod keeping;
mod panics;
mod writer;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::Path;

use tracing_subscriber::EnvFilter;

pub use keeping::KEPT_BYTES;
use keeping::Keeping;
use writer::Journal;

/// Begins the journal of this program, by `RUST_LOG` or else by `filter`: on stderr, or in `file` together with whatever else
/// this program writes to stdout and stderr. The file is set aside as `FILE.1` when it has grown to [`KEPT_BYTES`].
///
/// A file that cannot be opened is said, and stderr is taken for it: a log is no reason not to run.
pub fn begin(filter: &str, file: Option<&Path>) {
    begin_with(filter, file, true);
}

/// The same in a file, of a part of a program that is another's, such as an app: stdout and stderr stay what they are, so that panics are
/// written to the journal besides.
pub fn begin_within(filter: &str, file: &Path) {
    begin_with(filter, Some(file), false);
    panics::keep();
}

fn begin_with(filter: &str, file: Option<&Path>, takes_stdio: bool) {
    let opened = file.map(|path| (path, Keeping::open(path.to_owned(), takes_stdio)));
    let (keeping, refused) = match opened {
        None => (None, None),
        Some((_, Ok(keeping))) => (Some(keeping), None),
        Some((path, Err(error))) => (None, Some((path, error))),
    };
    let colours = keeping.is_none() && std::io::stderr().is_terminal();
    let begun = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| filter.into()))
        .with_ansi(colours)
        .log_internal_errors(false)
        .with_writer(Journal::new(keeping))
        .try_init();
    if let Some((path, error)) = refused {
        tell(format_args!("the log file {} cannot be used, and stderr is in its place: {error}", path.display()));
    }
    if begun.is_err() {
        tell(format_args!("this program's journal has begun before; what follows goes there"));
    }
}

/// Says a line on stderr to the person who started this program. It is lost where nobody reads.
pub fn tell(line: fmt::Arguments<'_>) {
    let mut stderr = std::io::stderr().lock();
    // In one piece where it can be: others may write to the same stderr.
    let _ = stderr.write_all(format!("{line}\n").as_bytes());
}

/// As `eprintln!`, without its panic where stderr cannot be written to.
#[macro_export]
macro_rules! tell {
    ($($argument:tt)*) => { $crate::tell(::core::format_args!($($argument)*)) };
}
