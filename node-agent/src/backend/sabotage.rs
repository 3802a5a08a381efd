//! Sabotage: a device that goes wrong when a file says so, so that tests see what becomes of it. No phone has such a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use polyphony_kernels::{Around, Engine, EngineError, KnownAnswers, Recording};

/// A file with lines such as `vulkan flip`: of the backend with that name a bit of each result is flipped, or, with `hang`, no run ends. It is
/// read before each run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sabotage {
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Flip,
    Hang,
}

const POLL: Duration = Duration::from_millis(20);

// === impl Sabotage ===

impl Sabotage {
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned() }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The engine, of the backend of this name, as the file has it.
    pub(super) fn of(&self, name: &'static str, engine: Box<dyn Engine>) -> Box<dyn Engine> {
        let sabotage = self.clone();
        let run = move |engine: &mut dyn Engine, recording: &Recording| {
            while sabotage.wrong(name) == Some(Wrong::Hang) {
                std::thread::sleep(POLL);
            }
            let values = engine.run(recording)?;
            Ok::<_, EngineError>(if sabotage.wrong(name) == Some(Wrong::Flip) { flipped(values) } else { values })
        };
        Box::new(Around { engine, run })
    }

    fn wrong(&self, name: &str) -> Option<Wrong> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().find_map(|line| match line.strip_prefix(name)?.trim() {
            "flip" => Some(Wrong::Flip),
            "hang" => Some(Wrong::Hang),
            _ => None,
        })
    }
}

/// Flips the highest bit of the fraction of the value that is the largest, which changes it by a quarter or more: over ten times what a known
/// answer may be off.
fn flipped(mut values: Vec<f32>) -> Vec<f32> {
    const { assert!(0.25 >= 10.0 * KnownAnswers::TOLERANCE) };
    if let Some(value) = values.iter_mut().max_by(|a, b| a.abs().total_cmp(&b.abs())) {
        *value = f32::from_bits(value.to_bits() ^ 1 << 22);
    }
    values
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_is_for_one_backend_and_a_file_that_is_not_there_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let sabotage = Sabotage::new(&folder.path().join("wrong"));
        assert_eq!(sabotage.wrong("vulkan"), None);
        std::fs::write(sabotage.file(), "cpu hang\nvulkan flip\n").unwrap();
        assert_eq!((sabotage.wrong("vulkan"), sabotage.wrong("cpu")), (Some(Wrong::Flip), Some(Wrong::Hang)));
        assert_eq!(flipped(vec![1.0, -4.0, 2.0]), [1.0, -6.0, 2.0]);
        assert_eq!(flipped(vec![1.75]), [1.25]);
    }
}
