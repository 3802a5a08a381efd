//! The cores that are meant for work: on phones the big ones, since a step waits for its slowest thread; of cores that share one pipeline with another,
//! one.

use std::fs;
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A core is big that has at least this part of what the biggest can do: the middle cores of phones have 0.6 to 0.9, the small ones 0.15 to 0.35.
const LEAST_PART: f64 = 0.5;

/// Some cores by number, and whether threads are to be kept to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cores {
    pub of: Vec<usize>,
    /// Not where these are all, nor where somebody has already left this thread only some: Android does so in the background, and gives back what it took.
    pub are_kept: bool,
}

/// A thread as long as it is kept to some cores.
pub(super) struct Kept(CpuSet);

// === impl Cores ===

impl Cores {
    /// The big ones of those that this thread may run on; none where the system does not tell.
    pub fn big() -> Self {
        let Ok(allowed) = sched_getaffinity(None) else { return Self::default() };
        Self::big_in(Path::new("/sys/devices/system/cpu"), |core| core < CpuSet::MAX_CPU && allowed.is_set(core))
    }

    /// Keeps this thread to them until what is given back is dropped, where that is to be and the system lets it.
    pub fn keep(&self) -> Option<Kept> {
        let before = self.are_kept.then(|| sched_getaffinity(None).ok())??;
        let mut set = CpuSet::new();
        self.of.iter().for_each(|core| set.set(*core));
        sched_setaffinity(None, &set).ok()?;
        Some(Kept(before))
    }

    /// As [`Cores::big`], of what a folder of the kernel's kind says.
    fn big_in(folder: &Path, is_allowed: impl Fn(usize) -> bool) -> Self {
        let read = |core: usize, name: &str| {
            let text = fs::read_to_string(folder.join(format!("cpu{core}")).join(name)).ok()?;
            Some(text.trim().to_owned())
        };
        let number = |core: usize, name: &str| read(core, name)?.parse::<f64>().ok();
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut all: Vec<usize> = names.filter_map(|name| name.to_str()?.strip_prefix("cpu")?.parse().ok()).collect();
        all.sort_unstable();
        let online = fs::read_to_string(folder.join("online")).map_or_else(|_| all.clone(), |list| listed(&list));
        let is_whole = online.into_iter().all(&is_allowed);
        all.retain(|core| is_allowed(*core));
        // Of those that share a pipeline, the first that may be used.
        let shared = |core: usize| listed(&read(core, "topology/thread_siblings_list").unwrap_or_default());
        let is_first = |core: &usize| !shared(*core).into_iter().any(|other| other < *core && all.contains(&other));
        let first: Vec<usize> = all.iter().copied().filter(is_first).collect();
        // What the scheduler knows a core to do, of 1024; where it knows nothing, its clock.
        let capacity =
            |core: &usize| number(*core, "cpu_capacity").or_else(|| number(*core, "cpufreq/cpuinfo_max_freq"));
        let most = first.iter().filter_map(capacity).fold(0.0, f64::max);
        let is_big = |core: &usize| capacity(core).is_none_or(|capacity| capacity >= LEAST_PART * most);
        let of: Vec<usize> = first.into_iter().filter(is_big).collect();
        let are_kept = is_whole && of.len() < all.len();
        Self { of, are_kept }
    }
}

// === impl Kept ===

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Numbers as the kernel lists them: `0,4` or `0-1`.
fn listed(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().take(CpuSet::MAX_CPU).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Cores by what the kernel says of each: a file's name below its folder, and its text.
    fn told(cores: &[&[(&str, &str)]]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for other in ["cpufreq", "cpuidle"] {
            fs::create_dir(folder.path().join(other)).unwrap();
        }
        fs::write(folder.path().join("online"), format!("0-{}\n", cores.len() - 1)).unwrap();
        for (core, files) in cores.iter().enumerate() {
            fs::create_dir(folder.path().join(format!("cpu{core}"))).unwrap();
            for (name, text) in *files {
                let file = folder.path().join(format!("cpu{core}")).join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{text}\n")).unwrap();
            }
        }
        folder
    }

    fn big_in(folder: &tempfile::TempDir, is_allowed: impl Fn(usize) -> bool) -> (Vec<usize>, bool) {
        let found = Cores::big_in(folder.path(), is_allowed);
        (found.of, found.are_kept)
    }

    #[test]
    fn small_cores_of_a_phone_are_left_out() {
        // A Tensor G3: four small, four middle, one big.
        let (small, middle, big) = ([("cpu_capacity", "152")], [("cpu_capacity", "624")], [("cpu_capacity", "1024")]);
        let folder = told(&[&small, &small, &small, &small, &middle, &middle, &middle, &middle, &big]);
        assert_eq!(big_in(&folder, |_| true), (vec![4, 5, 6, 7, 8], true));
        assert_eq!(big_in(&folder, |core| core < 4), (vec![0, 1, 2, 3], false), "in the background, for now");
        assert_eq!(big_in(&folder, |core| core > 2), (vec![4, 5, 6, 7, 8], false), "somebody else sees to it");
        let clocks = ["1804800", "1804800", "2496000", "3187200"].map(|clock| [("cpufreq/cpuinfo_max_freq", clock)]);
        let folder = told(&clocks.iter().map(|clock| &clock[..]).collect::<Vec<_>>());
        assert_eq!(big_in(&folder, |_| true), (vec![0, 1, 2, 3], false), "clocks alone say little");
    }

    #[test]
    fn of_two_that_share_a_pipeline_one_is_taken() {
        let [a, b] = ["0,2", "1,3"].map(|list| [("topology/thread_siblings_list", list)]);
        let folder = told(&[&a, &b, &a, &b]);
        assert_eq!(big_in(&folder, |_| true), (vec![0, 1], true));
        assert_eq!(big_in(&folder, |core| core >= 2), (vec![2, 3], false));
        assert_eq!(listed("0-1,4"), [0, 1, 4]);
        assert_eq!(listed("what,9-,-3"), [0usize; 0]);
    }

    #[test]
    fn where_the_kernel_tells_nothing_all_are_taken_or_none() {
        assert_eq!(big_in(&told(&[&[], &[]]), |_| true), (vec![0, 1], false));
        assert_eq!(Cores::big_in(Path::new("/nowhere"), |_| true), Cores::default());
    }

    #[test]
    fn a_thread_is_kept_as_long_as_it_is_said_to_be() {
        std::thread::spawn(|| {
            let before = Cores::big();
            let last = Cores { of: vec![*before.of.last().unwrap()], are_kept: true };
            let kept = last.keep();
            assert!(kept.is_some());
            assert_eq!(Cores::big().of, last.of);
            drop(kept);
            assert_eq!(Cores::big(), before);
            assert!(Cores { are_kept: false, ..last }.keep().is_none());
        })
        .join()
        .unwrap();
    }
}
