//! When processes of this machine started: a number that another process had before is another process.

/// In clock ticks since boot (proc(5), field 22); none when it is gone.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = &stat[stat.rfind(')')? + 1..];
    (!fields.trim_start().starts_with(['Z', 'X'])).then(|| fields.split_whitespace().nth(19)?.parse().ok())?
}
