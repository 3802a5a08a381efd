//! Model files, opened: regular files alone, and never waiting for what may not come.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens the file at `path` to read it. What is found out is found out of the file that was opened, whatever becomes of its name.
///
/// # Errors
/// What keeps it from being opened; [`io::ErrorKind::InvalidInput`] for a folder, a pipe, a socket or a device. Opening a pipe without
/// a writer would wait for one, so this does not wait.
pub fn open(path: &Path) -> io::Result<File> {
    let not_blocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(not_blocking).open(path)?;
    let kind = file.metadata()?.file_type();
    let what = match kind {
        _ if kind.is_file() => return Ok(file),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file; name the file itself")))
}

/// Whether an error says that something else than a file was named.
pub fn is_no_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}
