//! Traffic: frames and bytes that this phone has sent, by kind, on ring links and the host link together.

use polyphony_protocol::Frame;
use polyphony_wire::Tally;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::register;

/// The counters of all kinds. Clones count into the same.
#[derive(Clone)]
pub struct Traffic {
    hidden: Sent,
    token: Sent,
    kv: Sent,
    control: Sent,
}

#[derive(Clone)]
struct Sent {
    frames: IntCounter,
    bytes: IntCounter,
}

// === impl Traffic ===

impl Traffic {
    pub(super) fn new(registry: &Registry) -> Self {
        let frames = Opts::new(
            "polyphony_sent_frames_total",
            "Frames sent over ring links and the host link: hidden states, tokens, rows of KV caches as kv, and everything else as control.",
        );
        let bytes = Opts::new(
            "polyphony_sent_bytes_total",
            "Bytes of the frames sent over ring links and the host link, their headers included, TCP's not.",
        );
        let frames = register(registry, IntCounterVec::new(frames, &["kind"]));
        let bytes = register(registry, IntCounterVec::new(bytes, &["kind"]));
        let sent =
            |kind: &str| Sent { frames: frames.with_label_values(&[kind]), bytes: bytes.with_label_values(&[kind]) };
        Self { hidden: sent("hidden"), token: sent("token"), kv: sent("kv"), control: sent("control") }
    }
}

impl Tally for Traffic {
    fn sent(&self, frame: &Frame, n_bytes: usize) {
        let sent = match frame {
            Frame::Hidden(_) => &self.hidden,
            Frame::Token(_) => &self.token,
            Frame::KvRows(_) => &self.kv,
            _ => &self.control,
        };
        sent.frames.inc();
        sent.bytes.inc_by(n_bytes as u64);
    }
}
