//! Names of labs: they say whose they are, so that what a dead owner left behind is known and removed.

use std::sync::atomic::{AtomicU32, Ordering};

use polyphony_journal::tell;

use super::cgroup::{Group, Hierarchy};
use crate::started::start_ticks;

const PREFIX: &str = "polyphony-lab";

/// A name that no other lab of this boot has: owner's process, its start, and a count.
pub(super) fn fresh() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let started = start_ticks(pid).unwrap_or(0);
    format!("{PREFIX}.{pid}.{started}.{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Ends and removes what labs left whose owner was killed; what cannot be removed is told on the standard error.
pub(super) fn remove_leftovers(hierarchy: &Hierarchy) {
    for name in hierarchy.groups().into_iter().filter(|name| is_left(name)) {
        if let Err(error) = Group::named(hierarchy, &name).remove() {
            tell!("the lab {name} was left behind and cannot be removed: {error}");
        }
    }
}

fn is_left(name: &str) -> bool {
    owner(name).is_some_and(|(pid, started)| start_ticks(pid) != Some(started))
}

/// The process of a lab's name and when it started; none where it is no lab's name.
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
    let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some((pid, started))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let (first, second) = (fresh(), fresh());
        assert_ne!(first, second);
        assert_eq!(owner(&first).unwrap().0, std::process::id());
        assert!(!is_left(&first));
        assert!(is_left(&format!("{PREFIX}.{}.1.0", std::process::id())), "another process had that id");
        assert!(is_left(&format!("{PREFIX}.4294967295.1.0")));
        for foreign in
            ["polyphony-lab", "polyphony-lab.1.2", "polyphony-lab.a.b.c", "polyphony-lab.1.2.3.4", "lab.1.2.3"]
        {
            assert!(!is_left(foreign), "{foreign}");
        }
    }
}
