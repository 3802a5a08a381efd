//! Cryptography: which library the TLS of this process is made of.

use tokio_rustls::rustls::crypto::ring;

/// Takes ring, unless a choice was made before. Whoever builds an HTTP client calls it first: clients can do TLS wherever any crate of a
/// build asks for it, and panic then without a choice.
pub fn take_ring() {
    // Refused where there is one already, which is as good.
    let _ = ring::default_provider().install_default();
}
