//! Processor time from `/proc`, in steps of 10 ms: of some processes with their threads, of this one, of the machine.

/// The kernel counts user time for programs in hundredths of a second (`USER_HZ`), whatever it counts by inside.
const TICKS_A_SECOND: f64 = 100.0;

/// Seconds of user and system time at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Of the processes that are measured.
    pub measured: f64,
    /// Of this one.
    pub own: f64,
    /// Of all processors of the machine.
    pub machine: f64,
}

// === impl Spent ===

impl Spent {
    /// What the processes `pids` have spent until now. One that has gone counts as nothing.
    pub fn by(pids: &[u32]) -> Self {
        let measured = pids.iter().map(|pid| process(&pid.to_string())).sum();
        Self { measured, own: process("self"), machine: machine() }
    }

    /// What was spent since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            measured: self.measured - earlier.measured,
            own: self.own - earlier.own,
            machine: self.machine - earlier.machine,
        }
    }

    /// What others took of the time that `cores` processors had in `seconds`, from 0 to 1.
    pub fn other_load(&self, seconds: f64, cores: usize) -> f64 {
        ((self.machine - self.measured - self.own) / (seconds * cores as f64)).clamp(0.0, 1.0)
    }
}

fn process(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in brackets: fields 14 and 15 of all are user and system time.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS_A_SECOND
}

fn machine() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, then idle and waiting for disks, then interrupts and what other guests took. Guests of this
    // machine are in `user` already.
    let busy: u64 = fields.iter().enumerate().filter(|(idx, _)| matches!(idx, 0..=2 | 5..=7)).map(|(_, n)| n).sum();
    busy as f64 / TICKS_A_SECOND
}
