//! What is compared: a model, a number of threads, and what is asked of both.

use std::fmt;
use std::path::PathBuf;

use crate::cache_dir;

#[derive(Clone, Copy)]
pub struct Case {
    pub model: &'static str,
    /// In the cache's models.
    pub file: &'static str,
    pub what: What,
    pub on: On,
}

/// What both compute on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum On {
    Cpu {
        threads: usize,
    },
    /// Vulkan, by the driver made of software: the same device for both.
    Lavapipe,
}

#[derive(Clone, Copy)]
pub enum What {
    /// Tokens after so many of a prompt.
    Decode { after: u32, n: u32 },
    /// Reading a prompt, up to the first token.
    Prefill { n: u32 },
    /// The same as the first, of so many sessions together; all of their tokens count.
    Together { sessions: u32, after: u32, n: u32 },
}

// === impl Case ===

impl Case {
    pub fn row(&self) -> String {
        let on = match self.on {
            On::Cpu { threads: 1 } => "1 thread".to_owned(),
            On::Cpu { threads } => format!("{threads} threads"),
            On::Lavapipe => "lavapipe".to_owned(),
        };
        format!("{}, {}, {on}", self.model, self.what)
    }

    /// How many times as fast as llama.cpp ours is to be.
    pub fn goal(&self) -> f64 {
        match (self.on, self.what) {
            (On::Cpu { .. }, _) => 1.0,
            (On::Lavapipe, What::Prefill { .. }) => 30.0,
            (On::Lavapipe, _) => 20.0,
        }
    }

    /// Pairs of runs. A prompt takes llama.cpp most of a minute on lavapipe.
    pub fn rounds(&self, rounds: usize) -> usize {
        if self.on == On::Lavapipe { rounds.min(3) } else { rounds }
    }

    pub fn path(&self) -> PathBuf {
        cache_dir().join("models").join(self.file)
    }
}

// === impl What ===

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Decode { after, .. } if *after < 100 => write!(f, "decode"),
            What::Decode { after, .. } => write!(f, "decode at {after}"),
            What::Prefill { n } => write!(f, "prefill of {n}"),
            What::Together { sessions, .. } => write!(f, "decode of {sessions} sessions"),
        }
    }
}
