//! The crew: threads that share the ops of a step. A step holds a hundred ops of some microseconds each, so the crew is woken once a step, and waits for
//! its next op without the system's help.
//!
//! Who comes late finds the rest of the work, or none: nobody waits for a thread that the system has set aside, but for one that is in the middle of a piece.

use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

use super::cores::Cores;

/// How often a helper looks for work before it lets others have the processor, while a step is on; some 50 µs.
const LOOKS: u32 = 1 << 11;
/// Of less work than this nothing is handed over: it takes about a microsecond, as the hand-over does.
const LEAST_SIZE: usize = 1 << 14;

/// The caller, and helpers.
pub struct Crew {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held by whose job it is.
    caller: Mutex<()>,
    /// What all were made for; none where their number was given.
    cores: Cores,
}

struct Shared {
    /// What all do, while it is open. Written by the caller alone, and only while no job is open and nobody inside one.
    job: UnsafeCell<Option<Job>>,
    /// The number of the last job: odd while it is open.
    jobs: AtomicUsize,
    /// Helpers that work on the job, or are about to see that it is over.
    inside: AtomicUsize,
    /// Whether a step is on: helpers look for jobs then, and sleep otherwise.
    is_on: AtomicBool,
    is_over: AtomicBool,
    /// Helpers wait here for the next step.
    bed: Mutex<()>,
    bell: Condvar,
    /// What a helper's part of a job ended with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A job of the caller's, who outlives it.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn() + Sync));

// SAFETY: what is behind the pointer is `Sync`, and `job` is written and read as said there.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

// === impl Crew ===

impl Crew {
    /// So many threads, the caller's included. 0 means as many as there are big cores, or fewer where a control group says so; all of them, the caller as long as a
    /// step lasts, are kept to these.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        let cores = if threads == 0 { Cores::big() } else { Cores::default() };
        let threads = match threads {
            0 => {
                let most = if cores.of.is_empty() { usize::MAX } else { cores.of.len() };
                std::thread::available_parallelism().map_or(1, usize::from).min(most)
            }
            threads => threads,
        };
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            jobs: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            is_on: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut crew = Self { shared, helpers: Vec::new(), caller: Mutex::new(()), cores };
        for index in 1..threads {
            let (shared, cores) = (crew.shared.clone(), crew.cores.clone());
            let helper = std::thread::Builder::new().name(format!("kernels-{index}"));
            crew.helpers.push(helper.spawn(move || {
                let _kept = cores.keep();
                shared.help();
            })?);
        }
        Ok(crew)
    }

    /// How many, and of which cores; a speed that was measured of others says nothing of these.
    pub fn name(&self) -> String {
        let numbers = self.cores.of.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        let cores = if numbers.is_empty() { numbers } else { format!(" of cores {numbers}") };
        format!("{} threads{cores}", self.n_threads())
    }

    /// The caller's among them.
    pub fn n_threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Does `work`, and has the helpers awake meanwhile.
    pub fn step<T>(&self, work: impl FnOnce() -> T) -> T {
        struct On<'a>(&'a Shared);
        impl Drop for On<'_> {
            fn drop(&mut self) {
                self.0.is_on.store(false, Ordering::Release);
            }
        }
        let _kept = self.cores.keep();
        if self.helpers.is_empty() {
            return work();
        }
        let _on = On(&self.shared);
        self.shared.wake(|| self.shared.is_on.store(true, Ordering::Release));
        work()
    }

    /// Does `work` with each item, on all threads, in no order; each thread has what `room` makes for it. `size` is how many multiplications or values
    /// all of it is, by the order of magnitude: where that is little, the caller does it alone.
    pub fn each<I, R>(&self, size: usize, items: I, room: impl Fn() -> R + Sync, work: impl Fn(&mut R, I::Item) + Sync)
    where
        I: Iterator + Send,
    {
        if self.helpers.is_empty() || size < LEAST_SIZE {
            let mut room = room();
            return items.for_each(|item| work(&mut room, item));
        }
        let items = Mutex::new(items);
        let next = || lock(&items).next();
        self.all(&|| {
            let Some(mut item) = next() else { return };
            let mut room = room();
            loop {
                work(&mut room, item);
                match next() {
                    Some(next) => item = next,
                    None => return,
                }
            }
        });
    }

    /// Every thread that is there does the job; it is over when this returns, for all of them.
    fn all(&self, job: &(dyn Fn() + Sync)) {
        struct Open<'a>(&'a Shared);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                self.0.jobs.fetch_add(1, Ordering::SeqCst);
                let mut looks = 0;
                while self.0.inside.load(Ordering::SeqCst) != 0 {
                    wait(&mut looks);
                }
            }
        }
        let _caller = match self.caller.try_lock() {
            Ok(caller) => caller,
            // Its job ended in a panic, and is over.
            Err(TryLockError::Poisoned(caller)) => caller.into_inner(),
            // Another caller's, or a job within a job.
            Err(TryLockError::WouldBlock) => return job(),
        };
        // Where the last caller panicked, too, nobody has asked for it.
        *lock(&self.shared.panic) = None;
        // SAFETY: the pointer is followed by those alone who are inside while the job is open, and `open` waits for them before `job` ends.
        let lasting = unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync)>(job) };
        // SAFETY: no job is open and nobody inside one, since the last has waited for all; and there is one caller at a time.
        unsafe { *self.shared.job.get() = Some(Job(lasting)) };
        let open = Open(&self.shared);
        self.shared.jobs.fetch_add(1, Ordering::SeqCst);
        job();
        drop(open);
        if let Some(panic) = lock(&self.shared.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.wake(|| self.shared.is_over.store(true, Ordering::Release));
        for helper in self.helpers.drain(..) {
            // What it panicked with was told to the caller.
            let _ = helper.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn wake(&self, change: impl FnOnce()) {
        let _bed = lock(&self.bed);
        change();
        self.bell.notify_all();
    }

    /// A helper's life.
    fn help(&self) {
        let (mut last, mut looks) = (0, 0);
        while !self.is_over.load(Ordering::Acquire) {
            let job = self.jobs.load(Ordering::SeqCst);
            if job % 2 == 1 && job != last {
                self.join(job);
                (last, looks) = (job, 0);
            } else if self.is_on.load(Ordering::Acquire) {
                wait(&mut looks);
            } else {
                self.sleep();
                looks = 0;
            }
        }
    }

    fn join(&self, job: usize) {
        struct Inside<'a>(&'a Shared);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.inside.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        let _inside = Inside(self);
        if self.jobs.load(Ordering::SeqCst) == job {
            // SAFETY: the job is open, and its caller waits for whoever is inside: before that nobody writes here, and what is pointed at lives.
            let work = unsafe { (*self.job.get()).map(|job| &*job.0) };
            let ended = catch_unwind(AssertUnwindSafe(|| work.map_or((), |work| work())));
            if let Err(panic) = ended {
                lock(&self.panic).get_or_insert(panic);
            }
        }
    }

    fn sleep(&self) {
        let mut bed = lock(&self.bed);
        while !self.is_on.load(Ordering::Acquire) && !self.is_over.load(Ordering::Acquire) {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Nothing that is locked here is left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    if *looks < LOOKS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_item_is_done_once_in_a_step_and_outside_one() {
        for threads in [1, 2, 5] {
            let crew = Crew::new(threads).unwrap();
            assert_eq!(crew.n_threads(), threads);
            for n in [0, 1, 2, 1000] {
                let mut done = vec![0u32; n];
                let doubled = |done: &mut [u32]| {
                    crew.each(
                        LEAST_SIZE,
                        done.iter_mut().enumerate(),
                        || (),
                        |(), (index, done)| *done += 2 * index as u32,
                    );
                };
                doubled(&mut done);
                crew.step(|| (0..50).for_each(|_| doubled(&mut done)));
                let expected: Vec<u32> = (0..n as u32).map(|index| 102 * index).collect();
                assert_eq!(done, expected, "{threads} threads");
            }
        }
    }

    #[test]
    fn helpers_take_part_and_each_has_a_room_of_its_own() {
        let crew = Crew::new(3).unwrap();
        let (names, rooms) = (Mutex::new(BTreeSet::new()), AtomicUsize::new(0));
        let all_are_here = std::sync::Barrier::new(3);
        crew.step(|| {
            let room = || rooms.fetch_add(1, Ordering::Relaxed);
            crew.each(LEAST_SIZE, 0..3, room, |_, _| {
                lock(&names).insert(format!("{:?}", std::thread::current().id()));
                all_are_here.wait();
            });
        });
        assert_eq!((lock(&names).len(), rooms.into_inner()), (3, 3));
    }

    #[test]
    fn a_panic_anywhere_is_the_callers_and_the_crew_goes_on() {
        let crew = Crew::new(4).unwrap();
        for at in [0, 17, 99] {
            let told = catch_unwind(AssertUnwindSafe(|| {
                crew.step(|| crew.each(LEAST_SIZE, 0..100, || (), |(), item| assert_ne!(item, at, "not this one")));
            }));
            let told = told.unwrap_err();
            let told = told.downcast_ref::<String>().unwrap();
            assert!(told.contains("not this one"), "{told}");
            // All of its threads do.
            let all_are_here = std::sync::Barrier::new(4);
            crew.step(|| crew.each(LEAST_SIZE, 0..4, || (), |(), _| _ = all_are_here.wait()));
        }
        let all_are_here = std::sync::Barrier::new(4);
        let told = catch_unwind(AssertUnwindSafe(|| {
            crew.step(|| {
                crew.each(
                    LEAST_SIZE,
                    0..4,
                    || (),
                    |(), _| {
                        all_are_here.wait();
                        panic!("all of them");
                    },
                );
            });
        }));
        told.unwrap_err();
        let n = AtomicUsize::new(0);
        crew.step(|| crew.each(LEAST_SIZE, 0..100, || (), |(), _| _ = n.fetch_add(1, Ordering::Relaxed)));
        assert_eq!(n.into_inner(), 100, "what helpers panicked with before is no longer told");
    }

    #[test]
    fn a_job_within_a_job_and_one_of_another_thread_are_done() {
        let crew = Crew::new(3).unwrap();
        let n = AtomicUsize::new(0);
        let ten = || crew.each(LEAST_SIZE, 0..10, || (), |(), _| _ = n.fetch_add(1, Ordering::Relaxed));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..200).for_each(|_| crew.each(LEAST_SIZE, 0..5, || (), |(), _| ten())));
            }
        });
        assert_eq!(n.load(Ordering::Relaxed), 2 * 200 * 5 * 10);
    }
}
