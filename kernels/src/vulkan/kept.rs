//! Files that only save time: pipelines and tunings, each behind a checksum. One that is damaged or cannot be written is as good as none.

use std::path::Path;

/// A file's name for this device: the device's words may hold anything.
pub(super) fn file_name(kind: &str, device: &str) -> String {
    let words: Vec<&str> = device.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("{kind}-{}", words.join("-").to_lowercase())
}

/// The bytes that were written last, if they are whole.
pub(super) fn read(place: &Path) -> Option<Vec<u8>> {
    let whole = std::fs::read(place).ok()?;
    let (bytes, sum) = whole.split_last_chunk::<8>()?;
    (checksum(bytes) == u64::from_le_bytes(*sum)).then(|| bytes.to_vec())
}

/// Writes all or nothing; a file that cannot be written is made anew next time.
pub(super) fn write(place: &Path, bytes: &[u8]) {
    let mut whole = bytes.to_vec();
    whole.extend(checksum(bytes).to_le_bytes());
    // Two engines of one process may write at once.
    let part = place.with_extension(format!("part-{}-{:?}", std::process::id(), std::thread::current().id()));
    let written = place.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = written.and_then(|()| std::fs::write(&part, whole)).and_then(|()| std::fs::rename(&part, place));
    if written.is_err() {
        // Nothing to be done if this fails, too: the file was never there.
        let _ = std::fs::remove_file(&part);
    }
}

/// FNV-1a of 64 bits: against damage, not against malice.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_comes_back_and_a_damaged_one_does_not() {
        let folder = std::env::temp_dir().join(format!("polyphony-kept-{}", std::process::id()));
        let place = folder.join(file_name("tuning", "llvmpipe (LLVM 15.0.6)"));
        assert!(place.ends_with("tuning-llvmpipe-llvm-15-0-6"));
        assert_eq!(read(&place), None);
        write(&place, b"values");
        assert_eq!(read(&place).as_deref(), Some(&b"values"[..]));
        let mut bytes = std::fs::read(&place).expect("just written");
        bytes[2] ^= 1;
        std::fs::write(&place, &bytes).expect("writable");
        assert_eq!(read(&place), None);
        std::fs::write(&place, b"short").expect("writable");
        assert_eq!(read(&place), None);
        std::fs::remove_dir_all(&folder).expect("ours");
    }
}
