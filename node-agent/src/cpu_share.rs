//! CPU share: a lab's phone computes as slowly as its share of the processor says, in bursts of any length.
//!
//! The kernel keeps a control group's share only over several of its ticks: a step of a few milliseconds is over before it
//! is slowed. What the kernel did not take is waited for here, after each run of the engine. Real phones have none to keep.
//!
//! Phones of a lab share cores, and where two threads of one core work at once, either gets less done in its processor time; on
//! real phones nothing of the kind happens. So a step costs the median of what the last equal steps cost: no single disturbance
//! counts, and yet several short steps take as long together as one that does the same work. The least of them would flatter whoever
//! cuts work small.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use polyphony_kernels::{Around, Engine, Op, Recording};
use rustix::time::{ClockId, clock_gettime};

/// The share of one core that this phone is, in a file that may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuShare {
    file: PathBuf,
}

/// Why a file gives no share.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("--cpu-share-file {} cannot be read: {source}", .file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("--cpu-share-file {} holds {found:?}: write a share of one core, such as 0.25", .file.display())]
    NoShare { file: PathBuf, found: String },
}

/// The processor time of the last steps of each size.
#[derive(Debug, Default)]
struct Costs(HashMap<Size, VecDeque<Duration>>);

/// Steps of one size cost the same but for what disturbs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Size {
    n_ops: usize,
    /// Of all matrix products together.
    n_rows: usize,
    n_read_back: usize,
}

/// Steps of a size that are compared: a second or two of decoding, over which a machine's own speed stays what it is.
const COMPARED: usize = 16;
/// Sizes that are told apart; a segment has a few.
const MOST_SIZES: usize = 64;

// === impl CpuShare ===

impl CpuShare {
    /// # Errors
    /// When the file does not hold a share above 0 and at most 1.
    pub fn open(file: &Path) -> Result<Self, ShareError> {
        let share = Self { file: file.to_owned() };
        let text =
            std::fs::read_to_string(file).map_err(|source| ShareError::Unreadable { file: file.to_owned(), source })?;
        match parse_share(&text) {
            Some(_) => Ok(share),
            None => Err(ShareError::NoShare { file: file.to_owned(), found: text.trim().to_owned() }),
        }
    }

    /// The share now; a whole core where the file has gone or is just being written.
    pub fn now(&self) -> f64 {
        std::fs::read_to_string(&self.file).ok().and_then(|text| parse_share(&text)).unwrap_or(1.0)
    }

    /// The engine at this share. It counts the processor time of the thread that runs it: of a CPU backend with one thread.
    pub fn keep(self, engine: Box<dyn Engine>) -> Box<dyn Engine> {
        let mut costs = Costs::default();
        let run = move |engine: &mut dyn Engine, recording: &Recording| {
            let (began, before) = (Instant::now(), thread_time());
            let outcome = engine.run(recording);
            let cost = costs.of(Size::of(recording), thread_time().saturating_sub(before));
            std::thread::sleep(rest(cost, began.elapsed(), self.now()));
            outcome
        };
        Box::new(Around { engine, run })
    }
}

fn parse_share(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 1.0)
}

/// What is left to wait so that work that costs `processor_time`, which has taken `elapsed`, takes as long as on a core of `share`.
fn rest(processor_time: Duration, elapsed: Duration, share: f64) -> Duration {
    processor_time.div_f64(share).saturating_sub(elapsed)
}

/// The time that this thread has had of a processor.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

// === impl Costs ===

impl Costs {
    /// What a step costs that took so much: the median of the last ones of its size, its own among them.
    fn of(&mut self, size: Size, processor_time: Duration) -> Duration {
        if self.0.len() >= MOST_SIZES && !self.0.contains_key(&size) {
            self.0.clear();
        }
        let last = self.0.entry(size).or_default();
        if last.len() == COMPARED {
            last.pop_front();
        }
        last.push_back(processor_time);
        let mut sorted: Vec<Duration> = last.iter().copied().collect();
        sorted.sort_unstable();
        (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2
    }
}

// === impl Size ===

impl Size {
    fn of(recording: &Recording) -> Self {
        let rows = recording.ops.iter().map(|op| match op {
            Op::Matmul(op) => op.n_rows,
            Op::GateUp(op) => op.n_rows,
            _ => 0,
        });
        Self {
            n_ops: recording.ops.len(),
            n_rows: rows.sum(),
            n_read_back: recording.readbacks.iter().map(|readback| readback.range.len()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_the_kernel_did_not_slow_is_waited_for() {
        for (processor_time, elapsed, share, expected) in [
            (2 * MS, 2 * MS, 0.25, 6 * MS),
            // The kernel has slowed it already, in part, in full, and by more.
            (2 * MS, 5 * MS, 0.25, 3 * MS),
            (2 * MS, 8 * MS, 0.25, Duration::ZERO),
            (2 * MS, 9 * MS, 0.25, Duration::ZERO),
            (2 * MS, 2 * MS, 1.0, Duration::ZERO),
        ] {
            assert_eq!(rest(processor_time, elapsed, share), expected, "{processor_time:?} in {elapsed:?} of {share}");
        }
    }

    #[test]
    fn a_step_costs_the_median_of_the_last_equal_ones() {
        let (small, large) =
            (Size { n_ops: 9, n_rows: 7, n_read_back: 1 }, Size { n_ops: 9, n_rows: 28, n_read_back: 1 });
        let mut costs = Costs::default();
        assert_eq!(costs.of(small, 3 * MS), 3 * MS);
        assert_eq!(costs.of(small, 2 * MS), 5 * MS / 2);
        // Another thread on the same core made it long; that is no cost of the phone's.
        assert_eq!(costs.of(small, 40 * MS), 3 * MS);
        assert_eq!(costs.of(large, 8 * MS), 8 * MS);
        // What was long ago does not count: a machine may have become slower.
        let costs: Vec<Duration> = (0..COMPARED).map(|_| costs.of(small, 5 * MS)).collect();
        assert_eq!((costs[0], costs[COMPARED - 1]), (4 * MS, 5 * MS));
        // Nor are sizes kept without end.
        let mut costs = Costs::default();
        for n_ops in 0..1000 {
            costs.of(Size { n_ops, ..small }, MS);
        }
        assert!(costs.0.len() <= MOST_SIZES);
    }

    /// Three stages do what one phone does alone, each in 10 to 16 ms as it happens.
    #[test]
    fn work_that_is_cut_in_three_is_charged_as_much_as_work_that_is_not() {
        let size = Size { n_ops: 9, n_rows: 7, n_read_back: 1 };
        let (mut whole, mut parts) = (Costs::default(), [0; 3].map(|_| Costs::default()));
        let mut state = 1_u32;
        let mut time = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) % (1 << 31);
            Duration::from_micros(u64::from(10_000 + (state >> 16) % 6_000))
        };
        let (mut alone, mut cut) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..1000 {
            let times = [0; 3].map(|_| time());
            alone += whole.of(size, times.iter().sum());
            cut += parts.iter_mut().zip(times).map(|(costs, time)| costs.of(size, time)).sum::<Duration>();
        }
        let ratio = cut.div_duration_f64(alone);
        // By the least of the last ones it would be 0.93.
        assert!((0.98..1.02).contains(&ratio), "{cut:?} in three parts, {alone:?} in one");
    }

    #[test]
    fn a_share_is_read_anew_and_a_bad_one_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("share");
        assert!(CpuShare::open(&file).unwrap_err().to_string().contains("--cpu-share-file"));
        for bad in ["", "0", "-1", "1.5", "slow", "NaN"] {
            std::fs::write(&file, bad).unwrap();
            assert!(CpuShare::open(&file).unwrap_err().to_string().contains("such as 0.25"), "{bad}");
        }
        std::fs::write(&file, "0.5\n").unwrap();
        let share = CpuShare::open(&file).unwrap();
        assert_eq!(share.now(), 0.5);
        std::fs::write(&file, "0.25").unwrap();
        assert_eq!(share.now(), 0.25);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(share.now(), 1.0);
    }

    #[test]
    fn the_time_of_a_thread_is_its_own() {
        let before = thread_time();
        std::thread::sleep(20 * MS);
        // Sleeping costs it next to nothing.
        assert!(thread_time() - before < 10 * MS);
    }
}
