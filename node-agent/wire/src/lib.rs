//! The wire: connections that carry frames, dialled or let in, each read and write within a bound and a deadline, and between ends that know each other.
//!
//! One framer for the host link, rings, transfers of caches and probes. It knows no plan, no phone's name and no metrics:
//! who wants what it sends counted gives it a [`Tally`].

mod connection;
mod cryptography;
mod error;
mod lanes;
mod reader;
mod security;
mod strangers;
mod stream;
mod tally;
mod transport;
mod writer;

pub use connection::{Bounds, Caller, Connection, Peer, Wire};
pub use cryptography::take_ring;
pub use error::LinkError;
pub use lanes::{Entrance, LaneLimits, Lanes, NoEntry, lanes};
pub use reader::FrameReader;
pub use security::{Mutual, PROTOCOL, Proof, Security};
pub use strangers::{Stranger, Strangers};
pub use stream::{Meter, Metered, Stream};
pub use tally::{Tally, Uncounted};
pub use transport::{Relayed, Transport};
pub use writer::FrameWriter;
