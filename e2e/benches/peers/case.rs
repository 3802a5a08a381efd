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
    pub threads: usize,
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
        format!("{}, {}, {} thread{}", self.model, self.what, self.threads, if self.threads == 1 { "" } else { "s" })
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
