//! The cores that are meant for work: on phones the big ones, since a step waits for its slowest thread; of cores that share one pipeline with another,
//! one.

use std::fs;
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A core is big that has at least this part of what the biggest can do: the middle cores of phones have 0.6 to 0.9, the small ones 0.2 to 0.35.
const LEAST_PART: f64 = 0.5;

/// Of those that this thread may run on; none where the system does not tell.
pub(super) fn big() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return vec![] };
    big_in(Path::new("/sys/devices/system/cpu"), |core| core < CpuSet::MAX_CPU && allowed.is_set(core))
}

/// Keeps this thread to some cores. Where the system does not let it, it runs as before.
pub(super) fn keep_to(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if !cores.is_empty() {
        let _ = sched_setaffinity(None, &set);
    }
}

/// As [`big`], of what a folder of the kernel's kind says.
fn big_in(folder: &Path, is_allowed: impl Fn(usize) -> bool) -> Vec<usize> {
    let read = |core: usize, name: &str| {
        let text = fs::read_to_string(folder.join(format!("cpu{core}")).join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let number = |core: usize, name: &str| read(core, name)?.parse::<f64>().ok();
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut cores: Vec<usize> = names
        .filter_map(|name| name.to_str()?.strip_prefix("cpu")?.parse().ok())
        .filter(|core| is_allowed(*core))
        .collect();
    cores.sort_unstable();
    // Of those that share a pipeline, the first that may be used.
    let shared = |core: usize| siblings(&read(core, "topology/thread_siblings_list").unwrap_or_default());
    let is_first = |core: &usize| !shared(*core).into_iter().any(|other| other < *core && cores.contains(&other));
    let cores: Vec<usize> = cores.iter().copied().filter(is_first).collect();
    // What the scheduler knows a core to do, of 1024; where it knows nothing, its clock.
    let capacity = |core: &usize| number(*core, "cpu_capacity").or_else(|| number(*core, "cpufreq/cpuinfo_max_freq"));
    let most = cores.iter().filter_map(capacity).fold(0.0, f64::max);
    cores.into_iter().filter(|core| capacity(core).is_none_or(|capacity| capacity >= LEAST_PART * most)).collect()
}

/// Numbers as the kernel lists them: `0,4` or `0-1`.
fn siblings(list: &str) -> Vec<usize> {
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
        for other in ["cpufreq", "cpuidle", "online"] {
            fs::create_dir(folder.path().join(other)).unwrap();
        }
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

    #[test]
    fn small_cores_of_a_phone_are_left_out() {
        // A Tensor G3: four small, four middle, one big.
        let (small, middle, big) = ([("cpu_capacity", "152")], [("cpu_capacity", "624")], [("cpu_capacity", "1024")]);
        let folder = told(&[&small, &small, &small, &small, &middle, &middle, &middle, &middle, &big]);
        assert_eq!(big_in(folder.path(), |_| true), [4, 5, 6, 7, 8]);
        assert_eq!(big_in(folder.path(), |core| core < 4), [0, 1, 2, 3], "what is left is what there is");
        let clocks: Vec<_> =
            ["1804800", "1804800", "2496000", "3187200"].map(|clock| [("cpufreq/cpuinfo_max_freq", clock)]).into();
        let folder = told(&clocks.iter().map(|clock| &clock[..]).collect::<Vec<_>>());
        assert_eq!(big_in(folder.path(), |_| true), [0, 1, 2, 3], "clocks alone say little");
    }

    #[test]
    fn of_two_that_share_a_pipeline_one_is_taken() {
        let [a, b] = ["0,2", "1,3"].map(|list| [("topology/thread_siblings_list", list)]);
        let folder = told(&[&a, &b, &a, &b]);
        assert_eq!(big_in(folder.path(), |_| true), [0, 1]);
        assert_eq!(big_in(folder.path(), |core| core >= 2), [2, 3]);
        assert_eq!(siblings("0-1,4"), [0, 1, 4]);
        assert_eq!(siblings("what,9-,-3"), [0usize; 0]);
    }

    #[test]
    fn where_the_kernel_tells_nothing_all_are_taken_or_none() {
        assert_eq!(big_in(told(&[&[], &[]]).path(), |_| true), [0, 1]);
        assert_eq!(big_in(Path::new("/nowhere"), |_| true), [0usize; 0]);
    }

    #[test]
    fn a_thread_that_is_kept_to_a_core_sees_no_other() {
        std::thread::spawn(|| {
            let last = *big().last().unwrap();
            keep_to(&[last]);
            assert_eq!(big(), [last]);
        })
        .join()
        .unwrap();
    }
}
