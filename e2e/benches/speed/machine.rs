//! Machine: what the report says of where it was measured. No host name, no path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use polyphony_e2e::bench::report::Machine;

/// What cargo built everything with: this bench runs in the profile of the programs that it starts.
pub const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

pub fn facts(devices: BTreeMap<String, String>) -> Machine {
    let value = |path: &str, key: &str, separator: char| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(separator));
        line.map_or_else(|| "unknown".to_owned(), |value| value.trim().trim_matches('"').to_owned())
    };
    let kilobytes = value("/proc/meminfo", "MemTotal", ':');
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        cpu: value("/proc/cpuinfo", "model name", ':'),
        cores: cores(),
        memory_bytes: kilobytes.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024,
        system: value("/etc/os-release", "PRETTY_NAME", '='),
        kernel: kernel.trim().to_owned(),
        devices,
    }
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The commit that was measured, and whether the working tree differs from it.
pub fn commit() -> (String, bool) {
    let git = |arguments: &[&str]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    (commit, git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty()))
}
