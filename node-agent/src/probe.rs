//! Probes: what the system says of memory, battery and temperature. A value that cannot be read is absent, never made up.

use std::fs;
use std::path::Path;

/// The memory that this process can have at most, in bytes: this machine's, or less where a control group says so. `None`
/// where the kernel does not tell.
pub fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let machine = line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(machine.min(group_limit(Path::new("/sys/fs/cgroup"), &group).unwrap_or(u64::MAX)))
}

/// The least limit of a process's control group and those above it (cgroup v2, `memory.max`).
fn group_limit(root: &Path, cgroup: &str) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |group: &Path| fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok();
    Path::new(path).ancestors().filter_map(limit).min()
}

/// Charge and state of the battery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Battery {
    pub percent: Option<u8>,
    pub is_charging: Option<bool>,
}

/// The battery, as Linux and Android show it.
pub fn battery() -> Battery {
    battery_in(Path::new("/sys/class/power_supply"))
}

fn battery_in(folder: &Path) -> Battery {
    let supplies = fs::read_dir(folder).into_iter().flatten().flatten();
    for supply in supplies {
        let read = |name: &str| fs::read_to_string(supply.path().join(name)).ok().map(|text| text.trim().to_owned());
        if read("type").as_deref() == Some("Battery") {
            let percent = read("capacity").and_then(|text| text.parse().ok()).filter(|percent| *percent <= 100);
            let is_charging = read("status").map(|status| status == "Charging" || status == "Full");
            return Battery { percent, is_charging };
        }
    }
    Battery::default()
}

/// The hottest zone in degrees Celsius.
pub fn temperature_celsius() -> Option<f64> {
    temperature_in(Path::new("/sys/class/thermal"))
}

fn temperature_in(folder: &Path) -> Option<f64> {
    let zones = fs::read_dir(folder).into_iter().flatten().flatten();
    let degrees = zones
        .filter(|zone| zone.file_name().to_string_lossy().starts_with("thermal_zone"))
        .filter_map(|zone| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<f64>().ok())
        .map(|millidegrees| millidegrees / 1000.0)
        // Zones without a sensor report nonsense.
        .filter(|degrees| (1.0..150.0).contains(degrees));
    degrees.max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_control_group_counts_with_all_that_it_lies_in() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            fs::create_dir_all(folder.path().join(path)).unwrap();
            fs::write(folder.path().join(path).join("memory.max"), text).unwrap();
        };
        write("lab/phone-1", "max\n");
        write("lab", "4096\n");
        assert_eq!(group_limit(folder.path(), "0::/lab/phone-1\n"), Some(4096));
        write("lab/phone-1", "1024\n");
        assert_eq!(group_limit(folder.path(), "1:cpu:/x\n0::/lab/phone-1\n"), Some(1024));
        assert_eq!(group_limit(folder.path(), "0::/\n"), None);
        assert_eq!(group_limit(folder.path(), ""), None);
    }

    #[test]
    fn battery_and_heat_are_read_as_linux_shows_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("usb/type", "USB\n");
        write("bat/type", "Battery\n");
        write("bat/capacity", "73\n");
        write("bat/status", "Discharging\n");
        write("thermal_zone0/temp", "41500\n");
        write("thermal_zone1/temp", "-273000\n");
        write("thermal_zone2/temp", "38000\n");
        assert_eq!(battery_in(folder.path()), Battery { percent: Some(73), is_charging: Some(false) });
        assert_eq!(temperature_in(folder.path()), Some(41.5));
        assert_eq!(battery_in(Path::new("/nonexistent")), Battery::default());
    }
}
