//! Space: whether a disk has room for what comes.

use std::path::Path;

use super::error::FetchError;

/// Left free whatever comes: the controller's own store may lie there too.
const SPARE: u64 = 64 << 20;

/// # Errors
/// When the disk of `folder` has not `needed` bytes and some to spare.
pub(super) fn check(folder: &Path, needed: u64) -> Result<(), FetchError> {
    let found = rustix::fs::statvfs(folder).map_err(|error| FetchError::disk(folder, error.into()))?;
    // What is kept for root is not ours.
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if needed > 0 && free.saturating_sub(SPARE) < needed {
        return Err(FetchError::Space { folder: folder.to_owned(), needed, free });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), 0).unwrap();
        let error = check(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains(&u64::MAX.to_string()) && error.contains("its disk has "), "{error}");
    }
}
