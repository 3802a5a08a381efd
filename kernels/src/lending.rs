//! Lending: engines that are handed on by who has done with them, with the pipelines that they have compiled, to the next who asks for one of the
//! kind. For tests, which open hundreds.

use std::sync::{Mutex, PoisonError};

use crate::around::Around;
use crate::engine::{Engine, EngineError};
use crate::recording::Recording;

/// Engines that nobody has now, by kind. Each has in it whatever those before have left.
#[derive(Default)]
pub struct Lender<K> {
    idle: Mutex<Vec<(K, Box<dyn Engine>)>>,
}

/// From so many bytes on an engine is not handed on.
const MOST_BYTES: u64 = 256 << 20;

// === impl Lender ===

impl<K: Copy + PartialEq + Send> Lender<K> {
    pub const fn new() -> Self {
        Self { idle: Mutex::new(Vec::new()) }
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
        let run = |engine: &mut dyn Engine, recording: &Recording| engine.run(recording);
        Ok(Box::new(Around { engine: Lent { lender: self, kind, engine: Some(engine) }, run }))
    }

    fn take(&self, kind: K) -> Option<Box<dyn Engine>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|(of, _)| *of == kind)?;
        Some(idle.swap_remove(at).1)
    }
}

/// An engine that goes back when it is dropped.
struct Lent<K: Copy + PartialEq + Send + 'static> {
    lender: &'static Lender<K>,
    kind: K,
    /// Until it is dropped.
    engine: Option<Box<dyn Engine>>,
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
        if !std::thread::panicking() && engine.bytes_used() < MOST_BYTES {
            let mut idle = self.lender.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((self.kind, engine));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cpu::CpuEngine;

    #[test]
    fn an_engine_is_handed_on_to_who_asks_for_its_kind() {
        static LENDER: Lender<u8> = Lender::new();
        let opened = || -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(CpuEngine::new(1)?)) };
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
}
