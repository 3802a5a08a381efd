//! Checked: an engine that is asked for known answers before it serves, and now and then before a step, and watched for an end of each run. A device
//! that answers wrongly, is lost or hangs is set aside: what it gave since it was last asked may be wrong, what comes after would be.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyphony_kernels::{
    Backend, BufferId, Engine, EngineError, FileBytes, KnownAnswers, KvType, MatrixId, Recording, VectorId, WeightType,
};

use super::Aside;
use super::running::Running;

/// How long an answer counts: asking takes as long as some steps of the smallest models.
const EVERY: Duration = Duration::from_secs(60);
/// The same of a device of which others have told that it computes wrongly.
const EVERY_OF_SUSPECTS: Duration = Duration::from_secs(5);

/// What a device is held to.
pub(super) struct Terms {
    pub aside: Aside,
    /// Whether it is asked more often.
    pub is_suspect: bool,
    /// Whoever computes for longer hangs. None of a processor: it is slow, and no faulty one.
    pub longest_run: Option<Duration>,
    /// Sets it aside, with the reason.
    pub set_aside: Arc<dyn Fn(&str) + Send + Sync>,
}

pub(super) struct Checked {
    device: Device,
    known: KnownAnswers,
    every: Duration,
    answered: Instant,
    clock: Box<dyn Fn() -> Instant + Send>,
}

/// The engine, behind what all that is asked of it goes through.
struct Device {
    engine: Box<dyn Engine>,
    numerics: String,
    terms: Terms,
    running: Arc<Running>,
}

// === impl Checked ===

impl Checked {
    /// Asks the engine about what it is to hold, and again whenever its last answers are old.
    ///
    /// # Errors
    /// When it gives none, or wrong ones.
    pub fn keep(
        engine: Box<dyn Engine>,
        terms: Terms,
        backend: Backend,
        (weight_types, kv_type): (&[WeightType], KvType),
        clock: impl Fn() -> Instant + Send + 'static,
    ) -> Result<Self, EngineError> {
        let every = if terms.is_suspect { EVERY_OF_SUSPECTS } else { EVERY };
        let mut device = Device { numerics: engine.numerics(), engine, terms, running: Arc::default() };
        device.watch();
        let known = device.go(|engine| {
            let known = KnownAnswers::load(engine, backend, weight_types, kv_type)?;
            known.ask(engine).map(|()| known)
        })?;
        Ok(Self { device, known, every, answered: clock(), clock: Box::new(clock) })
    }
}

// === impl Device ===

impl Device {
    fn watch(&self) {
        let Some(longest) = self.terms.longest_run else { return };
        let set_aside = self.terms.set_aside.clone();
        let hangs = move || set_aside(&format!("it hangs: something has not ended for {} s", longest.as_secs_f32()));
        if let Err(error) = self.running.watch(longest, hangs) {
            tracing::warn!(%error, "the system gives no thread: nobody will see if {} hangs", self.numerics);
        }
    }

    /// Has the engine do something, within the longest time that it may take.
    fn go<T>(&mut self, what: impl FnOnce(&mut dyn Engine) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let _run = self.running.begin();
        self.go_unwatched(what)
    }

    /// The same without a bound in time. Nothing is done where the device is set aside: another engine on it may have failed.
    fn go_unwatched<T>(
        &mut self,
        what: impl FnOnce(&mut dyn Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if let Some(reason) = self.terms.aside.reason(&self.numerics) {
            return Err(EngineError::SetAside { reason });
        }
        what(self.engine.as_mut()).inspect_err(|error| {
            if matches!(error, EngineError::Wrong { .. } | EngineError::Lost(_)) {
                (self.terms.set_aside)(&error.to_string());
            }
        })
    }
}

// === impl Engine ===

impl Engine for Checked {
    fn run(&mut self, recording: &Recording) -> Result<Vec<f32>, EngineError> {
        if (self.clock)().duration_since(self.answered) >= self.every {
            self.device.go(|engine| self.known.ask(engine))?;
            self.answered = (self.clock)();
        }
        self.device.go(|engine| engine.run(recording))
    }

    fn numerics(&self) -> String {
        self.device.numerics.clone()
    }

    fn device(&self) -> String {
        self.device.engine.device()
    }

    fn load_rows(
        &mut self,
        weight_type: WeightType,
        n_rows: usize,
        n_cols: usize,
        ggml: &dyn FileBytes,
    ) -> Result<MatrixId, EngineError> {
        // They come from a disk, which may be slow.
        self.device.go_unwatched(|engine| engine.load_rows(weight_type, n_rows, n_cols, ggml))
    }

    fn load_vector(&mut self, values: &[f32]) -> Result<VectorId, EngineError> {
        self.device.go(|engine| engine.load_vector(values))
    }

    fn alloc(&mut self, len: usize) -> Result<BufferId, EngineError> {
        self.device.go(|engine| engine.alloc(len))
    }

    fn write(&mut self, buffer: BufferId, offset: usize, values: &[f32]) -> Result<(), EngineError> {
        self.device.go(|engine| engine.write(buffer, offset, values))
    }

    /// What it has computed goes to nobody, either: a KV cache of a device that is set aside stays there.
    fn read(&mut self, buffer: BufferId, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
        self.device.go(|engine| engine.read(buffer, range))
    }

    fn bytes_used(&self) -> u64 {
        self.device.engine.bytes_used()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use polyphony_kernels::{Arithmetic, Around};
    use polyphony_protocol::hub::BackendFault;

    use super::*;

    const BACKEND: Backend = Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 };

    fn terms(aside: &Aside, longest_run: Option<Duration>) -> Terms {
        let told = aside.clone();
        let set_aside = move |why: &str| {
            let (backend, device, numerics) = ("cpu".to_owned(), String::new(), "cpu-f32-r1".to_owned());
            told.set(BackendFault { backend, device, numerics, reason: why.to_owned() });
        };
        Terms { aside: aside.clone(), is_suspect: false, longest_run, set_aside: Arc::new(set_aside) }
    }

    #[test]
    fn a_device_that_goes_wrong_serves_until_it_is_asked_and_never_again() {
        let is_wrong = Arc::new(AtomicBool::new(false));
        let spoils = is_wrong.clone();
        let run = move |engine: &mut dyn Engine, recording: &Recording| {
            let mut values = engine.run(recording)?;
            if spoils.load(Ordering::Relaxed) {
                values[0] = -2.0 * values[0] - 1.0;
            }
            Ok(values)
        };
        let engine = Box::new(Around { engine: polyphony_kernels::open(BACKEND, None).unwrap(), run });
        let (began, seconds, aside) = (Instant::now(), Arc::new(AtomicU64::new(0)), Aside::default());
        let passed = seconds.clone();
        let clock = move || began + Duration::from_secs(passed.load(Ordering::Relaxed));
        let asked = (&[WeightType::Q8_0][..], KvType::F32);
        let mut engine = Checked::keep(engine, terms(&aside, None), BACKEND, asked, clock).unwrap();
        let x = engine.alloc(1).unwrap();
        let mut step = Recording::default();
        step.readback(x, 0..1);

        let mut at = |second: u64| {
            seconds.store(second, Ordering::Relaxed);
            engine.run(&step).map_err(|error| error.to_string())
        };
        assert_eq!(at(59), Ok(vec![0.0]));
        assert_eq!(at(60), Ok(vec![0.0]));
        is_wrong.store(true, Ordering::Relaxed);
        assert_eq!(at(119), Ok(vec![-1.0]), "it is not asked before each step");
        let why = at(120).unwrap_err();
        assert!(why.contains("computes wrongly"), "{why}");
        is_wrong.store(false, Ordering::Relaxed);
        for second in [121, 1_000] {
            let again = at(second).unwrap_err();
            assert!(again.contains("any more") && again.contains(&why), "it is not believed again: {again}");
        }
        assert!(engine.read(x, 0..1).is_err(), "nor is what it holds");
    }

    #[test]
    fn a_device_that_hangs_is_set_aside_while_it_does() {
        let hangs = Arc::new(AtomicBool::new(false));
        let (held, aside) = (hangs.clone(), Aside::default());
        let run = move |engine: &mut dyn Engine, recording: &Recording| {
            while held.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            engine.run(recording)
        };
        let engine = Box::new(Around { engine: polyphony_kernels::open(BACKEND, None).unwrap(), run });
        let terms = terms(&aside, Some(Duration::from_millis(400)));
        let mut engine = Checked::keep(engine, terms, BACKEND, (&[], KvType::F32), Instant::now).unwrap();
        assert_eq!(aside.list(), []);
        hangs.store(true, Ordering::Relaxed);
        let step = std::thread::spawn(move || {
            let first = engine.run(&Recording::default()).map_err(|error| error.to_string());
            (first, engine.run(&Recording::default()).map_err(|error| error.to_string()))
        });
        while aside.list().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(aside.reason("cpu-f32-r1").unwrap().contains("hangs"));
        hangs.store(false, Ordering::Relaxed);
        let (first, second) = step.join().unwrap();
        assert_eq!(first, Ok(vec![]), "it ended after all");
        assert!(second.unwrap_err().contains("hangs"), "and is not believed");
    }
}
