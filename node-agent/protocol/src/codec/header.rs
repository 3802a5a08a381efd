//! The header that every frame begins with, and the numbers of the kinds.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::HEADER_BYTES;
use crate::ids::{Epoch, PlanGeneration, RingId, RouteKey, SessionId};
use crate::version;

pub(super) const HELLO: u8 = 1;
pub(super) const ACCEPTED: u8 = 2;
pub(super) const REFUSED: u8 = 3;
pub(super) const OPEN: u8 = 4;
pub(super) const PROMPT: u8 = 5;
pub(super) const HIDDEN: u8 = 6;
pub(super) const TOKEN: u8 = 7;
pub(super) const CREDIT: u8 = 8;
pub(super) const CLOSE: u8 = 9;
pub(super) const FAILED: u8 = 10;
pub(super) const PING: u8 = 11;
pub(super) const PONG: u8 = 12;
pub(super) const TO_HUB: u8 = 13;
pub(super) const TO_AGENT: u8 = 14;
pub(super) const PAUSE: u8 = 15;
pub(super) const PAUSED: u8 = 16;
pub(super) const RESUME: u8 = 17;
pub(super) const RESUMED: u8 = 18;
pub(super) const KV_REQUEST: u8 = 19;
pub(super) const KV_ROWS: u8 = 20;
pub(super) const ACK: u8 = 21;
pub(super) const FILLER: u8 = 32;

/// Of frames that belong to no session.
pub(super) const NO_KEY: RouteKey =
    RouteKey { ring: RingId(0), generation: PlanGeneration(0), session: SessionId(0), epoch: Epoch(0) };

/// A header before it is bytes.
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) dtype: u8,
    pub(super) key: RouteKey,
    pub(super) position: u32,
    pub(super) count: u32,
}

// === impl Header ===

impl Header {
    pub(super) fn new(kind: u8, key: RouteKey) -> Self {
        Self { kind, flags: 0, dtype: 0, key, position: 0, count: 0 }
    }

    pub(super) fn write(&self, body_len: usize, out: &mut BytesMut) {
        out.reserve(HEADER_BYTES + body_len);
        // Over 4 GiB cannot pass any limit: the receiver refuses the saturated length.
        out.put_u32_le(u32::try_from(HEADER_BYTES - 4 + body_len).unwrap_or(u32::MAX));
        out.put_u8(self.kind);
        out.put_u8(version::CURRENT.minor);
        out.put_u8(self.flags);
        out.put_u8(self.dtype);
        out.put_u64_le(self.key.ring.0);
        out.put_u64_le(self.key.session.0);
        out.put_u32_le(self.key.generation.0);
        out.put_u32_le(self.key.epoch.0);
        out.put_u32_le(self.position);
        out.put_u32_le(self.count);
    }

    /// Of so many bytes as a header has, but for the length; with the minor version of who wrote it.
    pub(super) fn read(bytes: &mut Bytes) -> (Self, u8) {
        let kind = bytes.get_u8();
        let minor = bytes.get_u8();
        let flags = bytes.get_u8();
        let dtype = bytes.get_u8();
        let ring = RingId(bytes.get_u64_le());
        let session = SessionId(bytes.get_u64_le());
        let generation = PlanGeneration(bytes.get_u32_le());
        let epoch = Epoch(bytes.get_u32_le());
        let key = RouteKey { ring, generation, session, epoch };
        (Self { kind, flags, dtype, key, position: bytes.get_u32_le(), count: bytes.get_u32_le() }, minor)
    }
}
