//! Memory: what each phone on this machine gives to segments when nobody says. Asks the kernel, and nothing else.

/// Less makes no phone: of the example model any two of them hold all.
const LEAST_MEBIBYTES: u64 = 112;
const STEP_MEBIBYTES: u64 = 16;

/// A share of what is free: half of it for all phones together, so that they have room to compute in, and others to live.
pub(super) fn default_memory(phones: u32) -> String {
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_kibibytes(&text));
    share(available, phones)
}

fn available_kibibytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// In whole steps, so that the same machine gives the same share a moment later.
fn share(available_kibibytes: Option<u64>, phones: u32) -> String {
    let share = available_kibibytes.unwrap_or(0) / 1024 / 2 / u64::from(phones.max(1));
    format!("{}Mi", (share / STEP_MEBIBYTES * STEP_MEBIBYTES).max(LEAST_MEBIBYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_share_half_of_what_is_free() {
        let free = |gibibytes: u64| Some(gibibytes << 20);
        for (available, phones, expected) in [
            (free(16), 3, "2720Mi"),
            (free(16), 1, "8192Mi"),
            (free(2), 8, "128Mi"),
            (free(1), 64, "112Mi"),
            (free(1), 0, "512Mi"),
            (None, 3, "112Mi"),
        ] {
            assert_eq!(share(available, phones), expected, "{available:?} {phones}");
        }
        let meminfo = "MemTotal:       16000000 kB\nMemFree:         1000 kB\nMemAvailable:    8388608 kB\n";
        assert_eq!(available_kibibytes(meminfo), Some(8 << 20));
        assert_eq!(available_kibibytes("MemTotal: 1 kB\n"), None);
    }
}
