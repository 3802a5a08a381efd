//! Claims: a file on a device says which run of which machine has it, so that what a crashed run left is known and removed.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::started::start_ticks;

/// The farms of this process that live.
static LIVING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// One farm of one process, as it is written on its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// What the machine is called that it runs on.
    machine: String,
    /// The boot of that.
    boot: String,
    pid: u32,
    started: u64,
    /// Which farm of that process.
    farm: u32,
    /// Where its number is that process's: containers of one machine have numbers of their own.
    numbers: String,
}

/// Who still has a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Of this machine.
    Process(u32),
    /// Who knows: that machine is not asked.
    Machine(String),
}

// === impl Claim ===

impl Claim {
    /// A new farm's. It holds until [`Claim::end`].
    pub(super) fn fresh() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let farm = COUNT.fetch_add(1, Ordering::Relaxed);
        living().insert(farm);
        let started = start_ticks(pid).unwrap_or(0);
        Self { machine: machine(), boot: boot(), pid, started, farm, numbers: numbers() }
    }

    pub(super) fn end(&self) {
        living().remove(&self.farm);
    }

    pub(super) fn line(&self) -> String {
        format!("{} {} {} {} {} {}", self.machine, self.boot, self.pid, self.started, self.farm, self.numbers)
    }

    /// None where it is no claim: what a claim lies beside then is anybody's who has left it.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let [machine, boot, pid, started, farm, numbers] =
            line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            machine: machine.to_owned(),
            boot: boot.to_owned(),
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
            farm: farm.parse().ok()?,
            numbers: numbers.to_owned(),
        })
    }

    /// Who still has the device; none where the claim was left behind.
    ///
    /// One of an earlier boot of this machine is, and so is one of another machine on a device with a cable to this one. What is reached over a network
    /// (`is_of_network`) may be in use there, and so may what another container of this machine has, whose processes are not seen here.
    pub(super) fn holder(&self, is_of_network: bool) -> Option<Holder> {
        if self.boot != boot() {
            return (is_of_network && self.machine != machine()).then(|| Holder::Machine(self.machine.clone()));
        }
        if self.numbers != numbers() {
            return Some(Holder::Machine(self.machine.clone()));
        }
        let is_ours = self.pid == std::process::id();
        let lives = start_ticks(self.pid) == Some(self.started) && (!is_ours || living().contains(&self.farm));
        lives.then_some(Holder::Process(self.pid))
    }
}

fn living() -> MutexGuard<'static, BTreeSet<u32>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A word, whatever the machine is called.
fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // A word, whatever the kernel says.
    format!("boot-{}", id.trim())
}

/// The namespace of this process's numbers, in a word.
fn numbers() -> String {
    let link =
        fs::read_link("/proc/self/ns/pid").unwrap_or_default().to_string_lossy().replace(char::is_whitespace, "");
    if link.is_empty() { "pid".to_owned() } else { link }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_claim_holds_as_long_as_its_farm_and_its_process() {
        let claim = Claim::fresh();
        assert_eq!(Claim::parse(&claim.line()).unwrap(), claim);
        let of_an_earlier_process = Claim { started: 1, ..claim.clone() };
        let of_an_earlier_boot = Claim { boot: "boot-0".into(), ..claim.clone() };
        let of_nobody = Claim { pid: u32::MAX, ..claim.clone() };
        for is_of_network in [false, true] {
            assert_eq!(claim.holder(is_of_network), Some(Holder::Process(std::process::id())));
            for left in [&of_an_earlier_process, &of_an_earlier_boot, &of_nobody] {
                assert_eq!(left.holder(is_of_network), None, "{left:?}");
            }
        }
        let of_another_container = Claim { machine: "box".into(), numbers: "pid:[1]".into(), ..claim.clone() };
        for is_of_network in [false, true] {
            assert_eq!(of_another_container.holder(is_of_network), Some(Holder::Machine("box".into())));
        }
        let of_another_machine = Claim { machine: "attic".into(), ..of_an_earlier_boot };
        assert_eq!(of_another_machine.holder(true), Some(Holder::Machine("attic".into())));
        assert_eq!(of_another_machine.holder(false), None, "its cable is this machine's");
        claim.end();
        assert_eq!(claim.holder(false), None);
        for garbled in ["", "here boot-1 2 3 4", "here boot-1 2 x 4 pid", "here boot-1 2 3 4 pid 5"] {
            assert_eq!(Claim::parse(garbled), None, "{garbled:?}");
        }
    }
}
