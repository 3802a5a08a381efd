//! Checked: an engine that is asked for known answers before it serves, and now and then before a step. Once it gives a wrong one it computes
//! nothing more: what it gave since it was last asked may be wrong, what comes after would be.

use std::time::{Duration, Instant};

use polyphony_kernels::{Backend, Engine, EngineError, KnownAnswers, KvType, Recording, WeightType};

use super::Aside;
use crate::around::Around;

/// How long an answer counts: asking takes as long as some steps of the smallest models.
const EVERY: Duration = Duration::from_secs(60);
/// The same of a device of which others have told that it computes wrongly.
const EVERY_OF_SUSPECTS: Duration = Duration::from_secs(5);

/// An engine that is to be checked.
pub(super) struct Checked<F> {
    pub engine: Box<dyn Engine>,
    pub aside: Aside,
    /// Whether it is asked more often.
    pub is_suspect: bool,
    /// Sets the device aside.
    pub set_aside: F,
}

/// When an engine is asked.
struct Asking<C> {
    known: KnownAnswers,
    every: Duration,
    clock: C,
}

// === impl Checked ===

impl<F: Fn(&EngineError) + Send + 'static> Checked<F> {
    /// Asks the engine about what it is to hold, and again whenever its last answers are old.
    ///
    /// # Errors
    /// When it gives none, or wrong ones: then it is set aside.
    pub fn keep(
        self,
        backend: Backend,
        weight_types: &[WeightType],
        kv_type: KvType,
    ) -> Result<Box<dyn Engine>, EngineError> {
        let Self { mut engine, aside, is_suspect, set_aside } = self;
        let every = if is_suspect { EVERY_OF_SUSPECTS } else { EVERY };
        // It holds next to nothing yet: there is nothing that it could have no memory for.
        let known = KnownAnswers::load(engine.as_mut(), backend, weight_types, kv_type);
        let known = known.and_then(|known| known.ask(engine.as_mut()).map(|()| known)).inspect_err(|error| {
            if matches!(error, EngineError::Wrong { .. } | EngineError::Device(_)) {
                set_aside(error);
            }
        })?;
        let run = Asking { known, every, clock: Instant::now }.into_run(engine.numerics(), aside, set_aside);
        Ok(Box::new(Around { engine, run }))
    }
}

// === impl Asking ===

impl<C: Fn() -> Instant + Send> Asking<C> {
    /// A run of an engine that has just answered rightly.
    fn into_run(
        self,
        numerics: String,
        aside: Aside,
        set_aside: impl Fn(&EngineError) + Send,
    ) -> impl FnMut(&mut dyn Engine, &Recording) -> Result<Vec<f32>, EngineError> + Send {
        let Self { known, every, clock } = self;
        let mut answered = clock();
        move |engine, recording| {
            // Another engine on the same device may have failed.
            if let Some(reason) = aside.reason(&numerics) {
                return Err(EngineError::Device(format!("it is set aside: {reason}")));
            }
            if clock().duration_since(answered) >= every {
                known.ask(engine).inspect_err(|error| {
                    if matches!(error, EngineError::Wrong { .. }) {
                        set_aside(error);
                    }
                })?;
                answered = clock();
            }
            engine.run(recording)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use polyphony_kernels::Arithmetic;
    use polyphony_protocol::hub::BackendFault;

    use super::*;

    #[test]
    fn a_device_that_goes_wrong_serves_until_it_is_asked_and_never_again() {
        let backend = Backend::Cpu { threads: 1, arithmetic: Arithmetic::F32 };
        let is_wrong = Arc::new(AtomicBool::new(false));
        let spoils = is_wrong.clone();
        let run = move |engine: &mut dyn Engine, recording: &Recording| {
            let mut values = engine.run(recording)?;
            if spoils.load(Ordering::Relaxed) {
                values[0] = -2.0 * values[0] - 1.0;
            }
            Ok(values)
        };
        let mut engine = Around { engine: polyphony_kernels::open(backend, None).unwrap(), run };
        let known = KnownAnswers::load(&mut engine, backend, &[WeightType::Q8_0], KvType::F32).unwrap();
        let x = engine.alloc(1).unwrap();
        let mut step = Recording::default();
        step.readback(x, 0..1);

        let (began, seconds) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let passed = seconds.clone();
        let clock = move || began + Duration::from_secs(passed.load(Ordering::Relaxed));
        let aside = Aside::default();
        let (told, numerics) = (aside.clone(), engine.numerics());
        let set_aside = move |why: &EngineError| {
            let (backend, device, numerics) = ("cpu".to_owned(), String::new(), "cpu-f32-r1".to_owned());
            told.set(BackendFault { backend, device, numerics, reason: why.to_string() });
        };
        let asking = Asking { known, every: Duration::from_secs(60), clock };
        let mut run = asking.into_run(numerics, aside, set_aside);
        let mut at = |second: u64| {
            seconds.store(second, Ordering::Relaxed);
            run(&mut engine, &step).map_err(|error| error.to_string())
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
            assert!(again.contains("set aside") && again.contains(&why), "it is not believed again: {again}");
        }
    }
}
