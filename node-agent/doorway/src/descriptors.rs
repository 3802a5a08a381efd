//! Descriptors: how many files and connections this process may have open at a time.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More are not asked for: some systems let a process have a billion, and the programs that it starts would then look through as many.
const MOST: u64 = 1 << 16;

/// Takes as many as the system lets this process have, within reason: what a shell hands on is often a small part of it.
///
/// # Errors
/// When the system refuses; the limit is as before then.
pub fn raise_descriptors() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.map_or(MOST, |maximum| maximum.min(MOST));
    match current {
        Some(current) if current < most => Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum })?),
        _ => Ok(()),
    }
}

/// As many as there may be now.
pub(crate) fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
