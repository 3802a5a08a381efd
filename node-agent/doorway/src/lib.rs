//! HTTP on a listener, with bounds on connections, headers, bodies and time. Knows no route and no kind of ours.
//!
//! Whoever says nothing is shown out: after a deadline, or at once where a port is full and somebody else waits. Who is being answered
//! stays, however long that takes.

mod awaited;
mod body;
mod descriptors;
mod doorway;
mod guard;
mod hall;
mod limits;
mod stream;
mod tls;
mod visit;

pub use body::{BodyLate, is_late};
pub use descriptors::raise_descriptors;
pub use doorway::Doorway;
pub use guard::{Hosts, Origins, Refused, bare, only_from_here};
pub use limits::Limits;
pub use tls::Certificates;
