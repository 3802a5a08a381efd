//! Limits of one port, with the defaults.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Connections of a port that is worth having at all.
const FEWEST_CONNECTIONS: usize = 16;

/// How many may come to a port, and how long each may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. Beyond, who has said nothing for longest makes room; where all are being answered, the next one waits.
    pub connections: usize,
    /// From a connection's acceptance to its first byte, and to the end of its TLS handshake.
    pub enter_within: Duration,
    /// From then, or from a request's first byte, to the end of the request's head.
    pub head_within: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// From one part of a request's body to the next.
    pub body_pause: Duration,
    /// A whole body has this long, and a second more for each [`body_bytes_per_second`](Self::body_bytes_per_second) that came.
    pub body_within: Duration,
    pub body_bytes_per_second: u64,
    /// How long a client may leave what is written to it unread.
    pub unread_within: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            enter_within: Duration::from_secs(5),
            head_within: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            body_pause: Duration::from_secs(10),
            body_within: Duration::from_secs(30),
            body_bytes_per_second: 64 << 10,
            unread_within: Duration::from_secs(150),
            head_bytes: 64 << 10,
        }
    }
}

// === impl Limits ===

impl Limits {
    /// The defaults, with at most one `part`th of the descriptors that this process may have, so that one port cannot take those of
    /// all others.
    pub fn part_of_descriptors(part: usize) -> Self {
        let defaults = Self::default();
        let share =
            getrlimit(Resource::Nofile).current.map_or(usize::MAX, |all| usize::try_from(all).unwrap_or(usize::MAX));
        let share = share / part.max(1);
        Self { connections: defaults.connections.min(share).max(FEWEST_CONNECTIONS), ..defaults }
    }
}
