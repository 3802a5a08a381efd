//! Lending: engines of tests that are handed on by who has done with them, with the pipelines that they have compiled, to the next who asks for one
//! of the kind. Also a module of the agent's tests, which open hundreds as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use polyphony_kernels::{Around, Engine, EngineError, Recording};

/// Engines that nobody has now, by kind. Each has in it whatever those before have left.
pub struct Lender<K> {
    idle: Mutex<Vec<(K, Box<dyn Engine>)>>,
    /// Where the whole program holds more, none is handed on: SwiftShader takes hundreds of megabytes to compile for one.
    most_resident_bytes: u64,
}

/// What tests keep to.
pub const MOST_RESIDENT_BYTES: u64 = 3 << 30;

/// From so many bytes on an engine is not handed on.
const MOST_BYTES: u64 = 256 << 20;
/// So many wait for who asks next, of all kinds; the one that has waited longest goes.
const MOST_IDLE: usize = 16;

// === impl Lender ===

impl<K: Copy + PartialEq + Send> Lender<K> {
    pub const fn new(most_resident_bytes: u64) -> Self {
        Self { idle: Mutex::new(Vec::new()), most_resident_bytes }
    }

    /// One of this kind that somebody has let go, or else the one that `open` opens.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn lend(
        &'static self,
        kind: K,
        open: impl FnOnce() -> Result<Box<dyn Engine>, EngineError>,
    ) -> Result<Box<dyn Engine>, EngineError> {
        let engine = match self.take(kind) {
            Some(engine) => engine,
            None => open()?,
        };
        let has_failed = Arc::new(AtomicBool::new(false));
        let lent = Lent { lender: self, kind, engine: Some(engine), has_failed: has_failed.clone() };
        let run = move |engine: &mut dyn Engine, recording: &Recording| {
            let outcome = engine.run(recording);
            has_failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
            outcome
        };
        Ok(Box::new(Around { engine: lent, run }))
    }

    fn take(&self, kind: K) -> Option<Box<dyn Engine>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|(of, _)| *of == kind)?;
        Some(idle.remove(at).1)
    }

    fn give_back(&self, kind: K, engine: Box<dyn Engine>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if resident_bytes() > self.most_resident_bytes {
            idle.clear();
            return;
        }
        if idle.len() == MOST_IDLE {
            idle.remove(0);
        }
        idle.push((kind, engine));
    }
}

/// What this program has in memory now; nothing where there is no `/proc`.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    // In pages, the second of them.
    text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).map_or(0, |pages: u64| pages * 4096)
}

/// An engine that goes back when it is dropped.
struct Lent<K: Copy + PartialEq + Send + 'static> {
    lender: &'static Lender<K>,
    kind: K,
    /// Until it is dropped.
    engine: Option<Box<dyn Engine>>,
    /// Whatever came of it: a device that was lost stays so.
    has_failed: Arc<AtomicBool>,
}

const THERE: &str = "it is there until it is dropped";

impl<K: Copy + PartialEq + Send> AsRef<dyn Engine> for Lent<K> {
    fn as_ref(&self) -> &(dyn Engine + 'static) {
        self.engine.as_deref().expect(THERE)
    }
}

impl<K: Copy + PartialEq + Send> AsMut<dyn Engine> for Lent<K> {
    fn as_mut(&mut self) -> &mut (dyn Engine + 'static) {
        self.engine.as_deref_mut().expect(THERE)
    }
}

impl<K: Copy + PartialEq + Send> Drop for Lent<K> {
    fn drop(&mut self) {
        let engine = self.engine.take().expect(THERE);
        let is_sound = !std::thread::panicking() && !self.has_failed.load(Ordering::Relaxed);
        if is_sound && engine.bytes_used() < MOST_BYTES {
            self.lender.give_back(self.kind, engine);
        }
    }
}

#[cfg(test)]
mod tests {
    use polyphony_kernels::cpu::CpuEngine;

    use super::*;

    fn opened() -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(CpuEngine::new(1)?))
    }

    #[test]
    fn an_engine_is_handed_on_to_who_asks_for_its_kind() {
        static LENDER: Lender<u8> = Lender::new(u64::MAX);
        let mut first = LENDER.lend(1, opened).unwrap();
        first.alloc(1000).unwrap();
        let used = first.bytes_used();
        assert_eq!(LENDER.lend(1, opened).unwrap().bytes_used(), 0, "the first is in use");
        drop(first);
        assert_eq!(LENDER.lend(2, opened).unwrap().bytes_used(), 0, "it is of another kind");
        let both = [1, 1].map(|kind| LENDER.lend(kind, || panic!("both are idle")).unwrap().bytes_used());
        assert!(both.contains(&used), "{both:?}");
        let failed = LENDER.lend(3, || Err(EngineError::Lost("gone".into())));
        assert!(failed.is_err());
    }

    #[test]
    fn one_that_has_failed_is_handed_to_nobody_and_no_more_wait_than_are_bounded() {
        static LENDER: Lender<usize> = Lender::new(u64::MAX);
        let lost = |_: &mut dyn Engine, _: &Recording| Err(EngineError::Lost("gone".into()));
        let mut first = LENDER.lend(0, || Ok(Box::new(Around { engine: opened()?, run: lost }))).unwrap();
        assert!(first.run(&Recording::default()).is_err());
        drop(first);
        assert!(LENDER.take(0).is_none());
        for kind in 0..=MOST_IDLE {
            drop(LENDER.lend(kind, opened).unwrap());
        }
        assert!(LENDER.take(0).is_none() && LENDER.take(MOST_IDLE).is_some(), "the oldest has gone");
    }

    #[test]
    fn none_waits_where_the_program_holds_more_than_its_bound() {
        static LENDER: Lender<u8> = Lender::new(0);
        drop(LENDER.lend(1, opened).unwrap());
        assert!(LENDER.take(1).is_none());
    }
}
