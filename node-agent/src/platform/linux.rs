//! Linux: what `/proc` and `/sys` say. Android's kernel says it in the same places, to those that may read them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Battery;
use crate::last::Last;
#[cfg(not(target_os = "android"))]
use polyphony_protocol::hub::Hardware;

/// The memory that this process can have at most, in bytes: this machine's, or less where a control group says so. `None`
/// where the kernel does not tell.
pub fn memory_bytes() -> Option<u64> {
    let machine = of_memory("MemTotal:")?;
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(machine.min(group_limit(Path::new("/sys/fs/cgroup"), &group).unwrap_or(u64::MAX)))
}

/// The memory that all processes of the machine together could still take without driving others out, in bytes.
pub fn available_bytes() -> Option<u64> {
    of_memory("MemAvailable:")
}

fn of_memory(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// The least limit of a process's control group and those above it (cgroup v2, `memory.max`).
fn group_limit(root: &Path, cgroup: &str) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |group: &Path| fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok();
    Path::new(path).ancestors().filter_map(limit).min()
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
            let number = |name: &str| read(name)?.parse::<f64>().ok();
            let status = read("status");
            // Millionths; some drivers count what flows out as negative.
            let power = number("power_now").or_else(|| Some(number("current_now")? * number("voltage_now")? / 1e6));
            return Battery {
                percent: read("capacity").and_then(|text| text.parse().ok()).filter(|percent| *percent <= 100),
                is_charging: status.as_ref().map(|status| status == "Charging" || status == "Full"),
                // Tenths of a degree.
                temperature_celsius: number("temp").map(|tenths| tenths / 10.0).filter(is_a_temperature),
                discharge_watts: power
                    .filter(|_| status.as_deref() == Some("Discharging"))
                    .map(|millionths| millionths.abs() / 1e6)
                    .filter(Battery::is_a_power),
            };
        }
    }
    Battery::default()
}

/// The thermal zones that tell how warm the phone is to a hand or to its battery. Chips are at 60 to 90 whenever they work, on a phone and on a PC
/// alike, and see to themselves. A phone may have a hundred zones: which they are is looked up now and then.
#[derive(Debug)]
pub struct ShellZones {
    folder: PathBuf,
    zones: BTreeMap<PathBuf, Last<f64>>,
    listed_at: Option<Instant>,
}

/// How long a list of zones is good: drivers come late.
const LISTED_FOR: Duration = Duration::from_secs(60);

/// In the types of such zones, in lower case: of Android's devices `VIRTUAL-SKIN`, `skin-therm`, `quiet-therm` (the shell, away from the chips),
/// `battery`.
const OF_THE_SHELL: [&str; 5] = ["skin", "quiet", "shell", "case", "batt"];

/// Sensors that are not there report nonsense.
fn is_a_temperature(degrees: &f64) -> bool {
    (1.0..150.0).contains(degrees)
}

// === impl ShellZones ===

impl Default for ShellZones {
    fn default() -> Self {
        Self::of(Path::new("/sys/class/thermal"))
    }
}

impl ShellZones {
    fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), zones: BTreeMap::new(), listed_at: None }
    }

    /// The hottest of them, in degrees Celsius. One that cannot be read for a moment is as it was: another one's heat is not its heat.
    pub fn celsius(&mut self, now: Instant) -> Option<f64> {
        if self.listed_at.is_none_or(|at| now.saturating_duration_since(at) >= LISTED_FOR) {
            self.listed_at = Some(now);
            self.list();
        }
        let degrees = self.zones.iter_mut().filter_map(|(zone, last)| last.or_last(celsius_in(zone), now));
        degrees.max_by(f64::total_cmp)
    }

    /// Looks up which zones there are. Of those that are known, one whose type cannot be read just now stays.
    fn list(&mut self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let zones = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("thermal_zone"));
        let is_of_the_shell = |zone: &PathBuf| match fs::read_to_string(zone.join("type")) {
            Ok(type_) => OF_THE_SHELL.iter().any(|part| type_.to_lowercase().contains(part)),
            Err(_) => self.zones.contains_key(zone),
        };
        let zones = zones.map(|zone| zone.path()).filter(is_of_the_shell);
        let last = |zone: &PathBuf| self.zones.get(zone).copied().unwrap_or_default();
        self.zones = zones.map(|zone| (zone.clone(), last(&zone))).collect();
    }
}

fn celsius_in(zone: &Path) -> Option<f64> {
    let millidegrees = fs::read_to_string(zone.join("temp")).ok()?.trim().parse::<f64>().ok()?;
    Some(millidegrees / 1000.0).filter(is_a_temperature)
}

/// The machine by its maker's names: a board says them in its device tree, a PC in its firmware's tables.
#[cfg(not(target_os = "android"))]
pub(super) fn hardware() -> Hardware {
    hardware_in(Path::new("/"))
}

#[cfg(not(target_os = "android"))]
fn hardware_in(root: &Path) -> Hardware {
    let read = |path: &str| {
        let text = fs::read_to_string(root.join(path)).ok()?;
        Some(text.trim_matches(|end: char| end == '\0' || end.is_whitespace()).to_owned())
            .filter(|text| !text.is_empty())
    };
    let of_tables = || Some([read("sys/class/dmi/id/sys_vendor")?, read("sys/class/dmi/id/product_name")?].join(" "));
    let release = read("etc/os-release");
    let system = release.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Hardware {
        model: read("sys/firmware/devicetree/base/model").or_else(of_tables),
        // Some have the chip's name in one, and a number or the board's name in the other.
        soc: read("sys/devices/soc0/soc_id")
            .filter(|id| id.parse::<u64>().is_err())
            .or_else(|| read("sys/devices/soc0/machine")),
        system: system.map(|name| name.trim_matches('"').to_owned()),
    }
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
        write("bat/temp", "312\n");
        write("bat/current_now", "-650000\n");
        write("bat/voltage_now", "4000000\n");
        write("thermal_zone0/temp", "41500\n");
        write("thermal_zone0/type", "VIRTUAL-SKIN\n");
        write("thermal_zone1/temp", "-273000\n");
        write("thermal_zone1/type", "battery\n");
        write("thermal_zone2/temp", "38000\n");
        write("thermal_zone2/type", "quiet-therm\n");
        write("thermal_zone3/temp", "84000\n");
        write("thermal_zone3/type", "x86_pkg_temp\n");
        write("thermal_zone4/temp", "71000\n");
        let battery = Battery {
            percent: Some(73),
            is_charging: Some(false),
            temperature_celsius: Some(31.2),
            discharge_watts: Some(2.6),
        };
        assert_eq!(battery_in(folder.path()), battery);
        for (current, expected) in [("650", None), ("650000", Some(2.6)), ("650000000", None)] {
            write("bat/current_now", current);
            assert_eq!(battery_in(folder.path()).discharge_watts, expected, "{current} in another unit is nothing");
        }
        write("bat/status", "Charging\n");
        let charging = Battery { is_charging: Some(true), discharge_watts: None, ..battery };
        assert_eq!(battery_in(folder.path()), charging, "what flows in is nobody's work");
        let (mut zones, now) = (ShellZones::of(folder.path()), Instant::now());
        assert_eq!(zones.celsius(now), Some(41.5), "a chip's heat is its own affair");
        write("thermal_zone0/temp", "42500\n");
        write("thermal_zone5/temp", "55000\n");
        write("thermal_zone5/type", "skin-therm\n");
        assert_eq!(zones.celsius(now), Some(42.5), "zones are read each time");
        assert_eq!(zones.celsius(now + LISTED_FOR), Some(55.0), "and one that came late is found");
        assert_eq!(battery_in(Path::new("/nonexistent")), Battery::default());
    }

    #[test]
    fn a_zone_that_cannot_be_read_for_a_moment_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = |zone: &str, name: &str| folder.path().join(zone).join(name);
        let write = |zone: &str, name: &str, text: &str| {
            fs::create_dir_all(folder.path().join(zone)).unwrap();
            fs::write(file(zone, name), text).unwrap();
        };
        for (zone, type_, temp) in [("thermal_zone0", "skin-therm", "58000"), ("thermal_zone1", "battery", "38000")] {
            write(zone, "type", type_);
            write(zone, "temp", temp);
        }
        let (mut zones, begun) = (ShellZones::of(folder.path()), Instant::now());
        let mut at = |seconds| zones.celsius(begun + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(58.0));
        fs::remove_file(file("thermal_zone0", "temp")).unwrap();
        assert_eq!(at(1), Some(58.0), "the battery is not what was warm");
        assert_eq!(at(10), Some(38.0), "it is gone");
        write("thermal_zone0", "temp", "59000");
        // When they are listed anew.
        fs::remove_file(file("thermal_zone0", "type")).unwrap();
        assert_eq!(at(60), Some(59.0));
    }

    #[test]
    fn a_machine_has_its_makers_names_where_the_system_tells_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(hardware_in(folder.path()), Hardware::default());
        write("sys/class/dmi/id/sys_vendor", "Maker\n");
        write("sys/class/dmi/id/product_name", "Desk 3\n");
        write("etc/os-release", "ID=x\nPRETTY_NAME=\"Some Linux 12\"\n");
        let desk = Hardware { model: Some("Maker Desk 3".into()), soc: None, system: Some("Some Linux 12".into()) };
        assert_eq!(hardware_in(folder.path()), desk);
        write("sys/firmware/devicetree/base/model", "Board 4\0");
        write("sys/devices/soc0/machine", "SoC 5\n");
        write("sys/devices/soc0/soc_id", "457\n");
        let board = Hardware { model: Some("Board 4".into()), soc: Some("SoC 5".into()), ..desk };
        assert_eq!(hardware_in(folder.path()), board);
        write("sys/devices/soc0/soc_id", "SoC 6\n");
        assert_eq!(hardware_in(folder.path()), Hardware { soc: Some("SoC 6".into()), ..board });
    }
}
