//! Control groups: the share of the processors and the memory that a device's programs have together.
//!
//! Version 1 where its `cpu` and `memory` hierarchies are mounted, else version 2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::Shape;

/// The least that the kernel takes of a quota and of a period. The shorter, the evener a short burst is slowed: with the usual
/// period of 100 ms a burst of a few milliseconds is not slowed at all.
const LEAST_MICROSECONDS: f64 = 1000.0;
/// Smaller shares would need longer periods than this, over which a step of a model is not slowed evenly any more.
const LONGEST_PERIOD_MICROSECONDS: f64 = 10_000.0;
/// What a group may use over its share. An agent keeps to the share itself, to the microsecond (node-agent/src/cpu_share.rs), and what
/// else a device does comes out of this; with none, a step that needs but a little more than the quota waits for a whole period.
const HEADROOM: f64 = 1.5;
/// The smallest share that a device can have.
pub(super) const LEAST_CORES: f64 = LEAST_MICROSECONDS / LONGEST_PERIOD_MICROSECONDS;
/// How long processes may take to be gone once they were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hierarchy {
    One { cpu: PathBuf, memory: PathBuf },
    Two { root: PathBuf },
}

/// A group of processes, in every hierarchy that it needs.
#[derive(Debug)]
pub(super) struct Group {
    hierarchy: Hierarchy,
    /// Relative to the hierarchies' roots: `LAB` or `LAB/DEVICE`.
    path: PathBuf,
}

// === impl Hierarchy ===

impl Hierarchy {
    /// What is mounted below a folder, which is `/sys/fs/cgroup`.
    ///
    /// # Errors
    /// When neither version has both processors and memory.
    pub(super) fn find(mount: &Path) -> io::Result<Self> {
        let (cpu, memory) = (mount.join("cpu"), mount.join("memory"));
        if cpu.join("cgroup.procs").exists() && memory.join("cgroup.procs").exists() {
            return Ok(Self::One { cpu, memory });
        }
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
        if has("cpu") && has("memory") {
            return Ok(Self::Two { root: mount.to_owned() });
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no control groups for cpu and memory are mounted"))
    }

    fn roots(&self) -> Vec<&Path> {
        match self {
            Self::One { cpu, memory } => vec![cpu, memory],
            Self::Two { root } => vec![root],
        }
    }

    /// The groups right below the roots, by name.
    pub(super) fn groups(&self) -> Vec<String> {
        let entries = self.roots().into_iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

// === impl Group ===

impl Group {
    /// A group right below the roots, which holds no process itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new(hierarchy: &Hierarchy, name: &str) -> io::Result<Self> {
        let group = Self { hierarchy: hierarchy.clone(), path: PathBuf::from(name) };
        group.folders().iter().try_for_each(fs::create_dir_all)?;
        if let Hierarchy::Two { root } = hierarchy {
            // What a group's children may be given has to be given to the group, and its parents, first.
            for folder in [root.clone(), root.join(&group.path)] {
                fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory")?;
            }
        }
        Ok(group)
    }

    /// A group that exists.
    pub(super) fn named(hierarchy: &Hierarchy, name: &str) -> Self {
        Self { hierarchy: hierarchy.clone(), path: PathBuf::from(name) }
    }

    /// A group inside this one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn inner(&self, name: &str) -> io::Result<Self> {
        let group = Self { hierarchy: self.hierarchy.clone(), path: self.path.join(name) };
        group.folders().iter().try_for_each(fs::create_dir_all)?;
        Ok(group)
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.hierarchy.roots().into_iter().map(|root| root.join(&self.path)).collect()
    }

    /// Limits what is in the group, now and later.
    ///
    /// # Errors
    /// When the kernel refuses, as it does a memory limit below what is in use.
    pub(super) fn limit(&self, shape: &Shape) -> io::Result<()> {
        let limit = shape.cpu_cores.map(quota_and_period_microseconds);
        let bytes = shape.memory_bytes;
        match &self.hierarchy {
            Hierarchy::One { cpu, memory } => {
                let (cpu, memory) = (cpu.join(&self.path), memory.join(&self.path));
                if let Some((_, period)) = limit {
                    // The quota first: a share that falls must not be refused for what it was in between.
                    set(&cpu, "cpu.cfs_quota_us", "-1")?;
                    set(&cpu, "cpu.cfs_period_us", &period.to_string())?;
                }
                let quota = limit.map_or("-1".to_owned(), |(quota, _)| quota.to_string());
                set(&cpu, "cpu.cfs_quota_us", &quota)?;
                set(&memory, "memory.limit_in_bytes", &bytes.map_or("-1".to_owned(), |bytes| bytes.to_string()))
            }
            Hierarchy::Two { root } => {
                let folder = root.join(&self.path);
                let max = limit.map_or("max 100000".to_owned(), |(quota, period)| format!("{quota} {period}"));
                set(&folder, "cpu.max", &max)?;
                set(&folder, "memory.max", &bytes.map_or("max".to_owned(), |bytes| bytes.to_string()))
            }
        }
    }

    /// Takes a process in.
    ///
    /// # Errors
    /// When it is gone already.
    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        self.folders().iter().try_for_each(|folder| set(folder, "cgroup.procs", &pid.to_string()))
    }

    /// The processes in this group and in those inside it.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for folder in self.folders() {
            let inner = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
            for folder in inner.filter(|path| path.is_dir()).chain([folder.clone()]) {
                let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            }
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills what is in the group, and removes it with those inside it.
    ///
    /// # Errors
    /// When something does not die, or the kernel keeps the group.
    pub(super) fn remove(&self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            for pid in self.pids() {
                if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    // It may have ended in between.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let removed: io::Result<()> = self.folders().iter().try_for_each(|folder| remove_tree(folder));
            match removed {
                Err(_) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
                done => return done,
            }
        }
    }
}

/// Groups are removed as empty folders are: their files are the kernel's.
fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        remove_tree(&path)?;
    }
    fs::remove_dir(folder)
}

fn set(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{} to {}: {error}", value, path.display())))
}

/// A quota and its period, which are `cores` and the headroom: the shortest that the kernel takes.
fn quota_and_period_microseconds(cores: f64) -> (u64, u64) {
    let most = cores * HEADROOM;
    let period = (LEAST_MICROSECONDS / most).round().clamp(LEAST_MICROSECONDS, LONGEST_PERIOD_MICROSECONDS);
    ((most * period).round().max(LEAST_MICROSECONDS) as u64, period as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_share_and_its_headroom_are_the_quota_of_a_short_period() {
        let table = [(1.0, 1500, 1000), (0.8, 1200, 1000), (0.5, 1000, 1333), (0.25, 1000, 2667), (0.1, 1000, 6667)];
        for (cores, quota, period) in table {
            assert_eq!(quota_and_period_microseconds(cores), (quota, period), "{cores}");
        }
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_second_version_is_told_in_its_own_words() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let hierarchy = Hierarchy::find(mount.path()).unwrap();
        assert_eq!(hierarchy, Hierarchy::Two { root: mount.path().to_owned() });
        let lab = Group::new(&hierarchy, "lab").unwrap();
        assert_eq!(read(mount.path().join("cgroup.subtree_control")), "+cpu +memory");
        let phone = lab.inner("phone-1").unwrap();
        phone.limit(&Shape { cpu_cores: Some(0.25), memory_bytes: Some(1 << 20), ..Shape::default() }).unwrap();
        let file = |name: &str| read(mount.path().join("lab/phone-1").join(name));
        assert_eq!((file("cpu.max"), file("memory.max")), ("1000 2667".to_owned(), "1048576".to_owned()));
        phone.limit(&Shape::default()).unwrap();
        assert_eq!((file("cpu.max"), file("memory.max")), ("max 100000".to_owned(), "max".to_owned()));
        phone.add(42).unwrap();
        assert_eq!(lab.pids(), [42]);
        assert_eq!(hierarchy.groups(), ["lab"]);
    }

    #[test]
    fn the_first_version_is_told_in_its_own_words() {
        let mount = tempfile::tempdir().unwrap();
        for (folder, file) in [("cpu", "cgroup.procs"), ("memory", "cgroup.procs")] {
            fs::create_dir(mount.path().join(folder)).unwrap();
            fs::write(mount.path().join(folder).join(file), "").unwrap();
        }
        let lab = Group::new(&Hierarchy::find(mount.path()).unwrap(), "lab").unwrap();
        let phone = lab.inner("phone-1").unwrap();
        phone.limit(&Shape { cpu_cores: Some(0.4), memory_bytes: Some(4096), ..Shape::default() }).unwrap();
        let file = |name: &str| read(mount.path().join(name));
        assert_eq!(file("cpu/lab/phone-1/cpu.cfs_period_us"), "1667");
        assert_eq!(file("cpu/lab/phone-1/cpu.cfs_quota_us"), "1000");
        assert_eq!(file("memory/lab/phone-1/memory.limit_in_bytes"), "4096");
        phone.limit(&Shape::default()).unwrap();
        assert_eq!(file("cpu/lab/phone-1/cpu.cfs_quota_us"), "-1");
        assert!(Hierarchy::find(&mount.path().join("cpu")).is_err());
    }
}
