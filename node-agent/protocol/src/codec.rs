//! Frames as bytes. Every length is checked before it is believed; nothing a peer can send makes this panic.
//!
//! ```text
//!  0 u32 length of what follows    16 u64 session
//!  4 u8  kind                      24 u32 generation
//!  5 u8  minor version             28 u32 epoch
//!  6 u8  flags                     32 u32 position
//!  7 u8  activation type           36 u32 count (tokens, rows, steps)
//!  8 u64 ring                      40 …   body
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::activation::ActivationType;
use crate::frame::{
    Failed, FailureCode, Finish, Frame, HEADER_BYTES, Hidden, HiddenKind, KvRows, Prompt, Resume, Token,
};
use crate::ids::{Epoch, PlanGeneration, RingId, RouteKey, SessionId};
use crate::session::SessionOptions;
use crate::version;

/// Why bytes are not a frame. The connection that sent them is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {len} bytes is over the limit of {limit}")]
    TooLarge { len: u64, limit: u64 },
    #[error("frame of {len} bytes is shorter than its header of {HEADER_BYTES}")]
    TooShort { len: u64 },
    #[error("frame kind {0} is unknown: the sender may be newer than this program")]
    UnknownKind(u8),
    #[error(
        "frame speaks protocol minor version {theirs}, this program {ours}: they may differ by one, update the older"
    )]
    Version { theirs: u8, ours: u8 },
    #[error("frame of kind {kind} holds {actual} body bytes, {expected} expected")]
    BodySize { kind: u8, actual: usize, expected: usize },
    #[error("frame of kind {kind} has an unknown value {value} in its {field}")]
    UnknownValue { kind: u8, field: &'static str, value: u8 },
    #[error("body of frame kind {kind} is not valid JSON: {source}")]
    Json { kind: u8, source: serde_json::Error },
    #[error("text in frame kind {kind} is not UTF-8")]
    Text { kind: u8 },
}

const HELLO: u8 = 1;
const ACCEPTED: u8 = 2;
const REFUSED: u8 = 3;
const OPEN: u8 = 4;
const PROMPT: u8 = 5;
const HIDDEN: u8 = 6;
const TOKEN: u8 = 7;
const CREDIT: u8 = 8;
const CLOSE: u8 = 9;
const FAILED: u8 = 10;
const PING: u8 = 11;
const PONG: u8 = 12;
const TO_HUB: u8 = 13;
const TO_AGENT: u8 = 14;
const PAUSE: u8 = 15;
const PAUSED: u8 = 16;
const RESUME: u8 = 17;
const RESUMED: u8 = 18;
const KV_REQUEST: u8 = 19;
const KV_ROWS: u8 = 20;
const ACK: u8 = 21;
const FILLER: u8 = 32;

const NO_KEY: RouteKey =
    RouteKey { ring: RingId(0), generation: PlanGeneration(0), session: SessionId(0), epoch: Epoch(0) };

/// A header before it is bytes.
struct Header {
    kind: u8,
    flags: u8,
    dtype: u8,
    key: RouteKey,
    position: u32,
    count: u32,
}

impl Header {
    fn new(kind: u8, key: RouteKey) -> Self {
        Self { kind, flags: 0, dtype: 0, key, position: 0, count: 0 }
    }

    fn write(&self, body_len: usize, out: &mut BytesMut) {
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

    fn read(bytes: &mut Bytes) -> (Self, u8) {
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

/// What of a resume its header has no room for.
#[derive(serde::Serialize, serde::Deserialize)]
struct ResumeBody {
    options: SessionOptions,
    from: PlanGeneration,
    from_epoch: Epoch,
}

/// Appends a frame to `out`.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Hello(hello) => with_json(Header::new(HELLO, NO_KEY), hello, out),
        Frame::Accepted => Header::new(ACCEPTED, NO_KEY).write(0, out),
        Frame::Refused(why) => with_bytes(Header::new(REFUSED, NO_KEY), why.as_bytes(), out),
        Frame::Open { key, options } => with_json(Header::new(OPEN, *key), options, out),
        Frame::Prompt(prompt) => {
            let mut header = Header::new(PROMPT, prompt.key);
            header.position = prompt.position;
            header.count = prompt.credit;
            header.write(prompt.tokens.len() * 4, out);
            prompt.tokens.iter().for_each(|token| out.put_u32_le(*token));
        }
        Frame::Hidden(hidden) => {
            let mut header = Header::new(HIDDEN, hidden.key);
            header.flags = u8::from(hidden.sample) | hidden_kind_number(hidden.kind) << 1;
            header.dtype = dtype_number(hidden.dtype);
            header.position = hidden.position;
            header.count = hidden.n_tokens;
            with_bytes(header, &hidden.payload, out);
        }
        Frame::Token(token) => {
            let mut header = Header::new(TOKEN, token.key);
            header.flags = match token.finish {
                None => 0,
                Some(Finish::Stop) => 1,
                Some(Finish::Length) => 2,
            };
            header.position = token.position;
            header.count = token.token;
            header.write(4 + token.top.len() * 8, out);
            out.put_f32_le(token.logprob);
            for (id, logprob) in &token.top {
                out.put_u32_le(*id);
                out.put_f32_le(*logprob);
            }
        }
        Frame::Ack { key, position } => Header { position: *position, ..Header::new(ACK, *key) }.write(0, out),
        Frame::Credit { key, steps } => {
            let mut header = Header::new(CREDIT, *key);
            header.count = *steps;
            header.write(0, out);
        }
        Frame::Close { key } => Header::new(CLOSE, *key).write(0, out),
        Frame::Failed(failed) => {
            let mut header = Header::new(FAILED, failed.key);
            header.flags = failure_number(failed.code);
            with_bytes(header, failed.message.as_bytes(), out);
        }
        Frame::Pause { key } => Header::new(PAUSE, *key).write(0, out),
        Frame::Paused { key, position } => Header { position: *position, ..Header::new(PAUSED, *key) }.write(0, out),
        Frame::Resume(resume) => {
            let header = Header { position: resume.position, ..Header::new(RESUME, resume.key) };
            let Resume { options, from, from_epoch, .. } = resume;
            with_json(header, &ResumeBody { options: options.clone(), from: *from, from_epoch: *from_epoch }, out);
        }
        Frame::Resumed { key, stage, position } => {
            Header { position: *position, count: *stage, ..Header::new(RESUMED, *key) }.write(0, out);
        }
        Frame::KvRequest(request) => with_json(Header::new(KV_REQUEST, request.key), request, out),
        Frame::KvRows(rows) => {
            let header = Header { position: rows.position, count: rows.n_positions, ..Header::new(KV_ROWS, rows.key) };
            header.write(4 + rows.values.len(), out);
            out.put_u32_le(rows.layer);
            out.put_slice(&rows.values);
        }
        Frame::Ping { nonce } => with_bytes(Header::new(PING, NO_KEY), &nonce.to_le_bytes(), out),
        Frame::Pong { nonce } => with_bytes(Header::new(PONG, NO_KEY), &nonce.to_le_bytes(), out),
        Frame::Filler(bytes) => with_bytes(Header::new(FILLER, NO_KEY), bytes, out),
        Frame::ToHub(message) => with_json(Header::new(TO_HUB, NO_KEY), message, out),
        Frame::ToAgent(message) => with_json(Header::new(TO_AGENT, NO_KEY), message, out),
    }
}

fn with_bytes(header: Header, body: &[u8], out: &mut BytesMut) {
    header.write(body.len(), out);
    out.put_slice(body);
}

fn with_json(header: Header, body: &impl serde::Serialize, out: &mut BytesMut) {
    let json = serde_json::to_vec(body).expect("messages have string keys and no failing serializers");
    with_bytes(header, &json, out);
}

/// Takes the next whole frame off the front of `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// [`FrameError`] when the bytes cannot be a frame of at most `limit` bytes; the stream has no next frame then.
pub fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some(length) = buffer.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) else {
        return Ok(None);
    };
    let len = length as u64 + 4;
    if len > limit as u64 {
        return Err(FrameError::TooLarge { len, limit: limit as u64 });
    }
    if length < HEADER_BYTES - 4 {
        return Err(FrameError::TooShort { len });
    }
    if buffer.len() < length + 4 {
        buffer.reserve(length + 4 - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    let mut body = buffer.split_to(length).freeze();
    let (header, minor) = Header::read(&mut body);
    let theirs = version::ProtocolVersion { major: version::CURRENT.major, minor };
    if !introduces(header.kind) && !version::CURRENT.speaks_with(theirs) {
        return Err(FrameError::Version { theirs: minor, ours: version::CURRENT.minor });
    }
    frame_of(header, body).map(Some)
}

fn frame_of(header: Header, mut body: Bytes) -> Result<Frame, FrameError> {
    let kind = header.kind;
    let key = header.key;
    let sized = |expected: usize, actual: usize| {
        if actual == expected { Ok(()) } else { Err(FrameError::BodySize { kind, actual, expected }) }
    };
    Ok(match kind {
        HELLO => Frame::Hello(json(kind, &body)?),
        ACCEPTED => Frame::Accepted,
        REFUSED => Frame::Refused(text(kind, &body)?),
        OPEN => Frame::Open { key, options: json(kind, &body)? },
        PROMPT => {
            sized(body.len() / 4 * 4, body.len())?;
            let tokens = body.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
            Frame::Prompt(Prompt { key, position: header.position, tokens, credit: header.count })
        }
        HIDDEN => Frame::Hidden(Hidden {
            key,
            position: header.position,
            n_tokens: header.count,
            dtype: match header.dtype {
                0 => ActivationType::F32,
                1 => ActivationType::F16,
                2 => ActivationType::Q8,
                value => return Err(FrameError::UnknownValue { kind, field: "activation type", value }),
            },
            kind: hidden_kind_of(kind, header.flags >> 1)?,
            sample: header.flags & 1 == 1,
            payload: body,
        }),
        TOKEN => {
            let n_top = body.len().saturating_sub(4) / 8;
            sized(4 + n_top * 8, body.len())?;
            let logprob = body.get_f32_le();
            let top = (0..n_top).map(|_| (body.get_u32_le(), body.get_f32_le())).collect();
            let finish = match header.flags {
                0 => None,
                1 => Some(Finish::Stop),
                2 => Some(Finish::Length),
                value => return Err(FrameError::UnknownValue { kind, field: "finish flag", value }),
            };
            Frame::Token(Token { key, position: header.position, token: header.count, finish, logprob, top })
        }
        ACK => Frame::Ack { key, position: header.position },
        CREDIT => Frame::Credit { key, steps: header.count },
        CLOSE => Frame::Close { key },
        FAILED => Frame::Failed(Failed { key, code: failure_of(kind, header.flags)?, message: text(kind, &body)? }),
        PAUSE => Frame::Pause { key },
        PAUSED => Frame::Paused { key, position: header.position },
        RESUME => {
            let ResumeBody { options, from, from_epoch } = json(kind, &body)?;
            Frame::Resume(Resume { key, position: header.position, options, from, from_epoch })
        }
        RESUMED => Frame::Resumed { key, stage: header.count, position: header.position },
        KV_REQUEST => Frame::KvRequest(json(kind, &body)?),
        KV_ROWS => {
            // A layer, then keys and as many values.
            let expected = 4 + body.len().saturating_sub(4) / 8 * 8;
            sized(expected, body.len())?;
            let layer = body.get_u32_le();
            let (position, n_positions) = (header.position, header.count);
            Frame::KvRows(KvRows { key, layer, position, n_positions, values: body })
        }
        PING | PONG => {
            sized(8, body.len())?;
            let nonce = body.get_u64_le();
            if kind == PING { Frame::Ping { nonce } } else { Frame::Pong { nonce } }
        }
        FILLER => Frame::Filler(body),
        TO_HUB => Frame::ToHub(json(kind, &body)?),
        TO_AGENT => Frame::ToAgent(json(kind, &body)?),
        unknown => return Err(FrameError::UnknownKind(unknown)),
    })
}

/// Whether frames of a kind say themselves which protocol their sender speaks, or answer one that does. They are read of every
/// version, so that whoever speaks another hears of it by name rather than find the link closed.
fn introduces(kind: u8) -> bool {
    matches!(kind, HELLO | REFUSED | KV_REQUEST | TO_HUB | TO_AGENT)
}

fn json<T: serde::de::DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(|source| FrameError::Json { kind, source })
}

fn text(kind: u8, body: &[u8]) -> Result<String, FrameError> {
    std::str::from_utf8(body).map(str::to_owned).map_err(|_| FrameError::Text { kind })
}

fn dtype_number(dtype: ActivationType) -> u8 {
    match dtype {
        ActivationType::F32 => 0,
        ActivationType::F16 => 1,
        ActivationType::Q8 => 2,
    }
}

/// After the bit that says whether to sample.
fn hidden_kind_number(of: HiddenKind) -> u8 {
    match of {
        HiddenKind::Decoding => 0,
        HiddenKind::Encoding => 1,
        HiddenKind::Encoded => 2,
    }
}

fn hidden_kind_of(kind: u8, value: u8) -> Result<HiddenKind, FrameError> {
    Ok(match value {
        0 => HiddenKind::Decoding,
        1 => HiddenKind::Encoding,
        2 => HiddenKind::Encoded,
        value => return Err(FrameError::UnknownValue { kind, field: "kind of hidden states", value }),
    })
}

const FAILURES: [FailureCode; 8] = [
    FailureCode::StaleGeneration,
    FailureCode::PeerGone,
    FailureCode::PeerSlow,
    FailureCode::Busy,
    FailureCode::Compute,
    FailureCode::BadFrame,
    FailureCode::HandOver,
    FailureCode::NonFinite,
];

fn failure_number(code: FailureCode) -> u8 {
    FAILURES.iter().position(|known| *known == code).expect("every code is in the table") as u8
}

fn failure_of(kind: u8, value: u8) -> Result<FailureCode, FrameError> {
    FAILURES.get(usize::from(value)).copied().ok_or(FrameError::UnknownValue { kind, field: "failure code", value })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frame::{Hello, KvRequest, MAX_FRAME_BYTES};
    use crate::hub::LayerSpan;
    use crate::session::{History, Sampling};
    use proptest::prelude::*;

    fn key() -> RouteKey {
        RouteKey { ring: RingId(0x0102), generation: PlanGeneration(3), session: SessionId(4), epoch: Epoch(5) }
    }

    fn of_encoder(kind: HiddenKind) -> Frame {
        let (dtype, payload) = (ActivationType::F32, Bytes::from_static(&[1, 2, 3, 4]));
        Frame::Hidden(Hidden { key: key(), position: 7, n_tokens: 1, dtype, kind, sample: false, payload })
    }

    fn frames() -> Vec<Frame> {
        let penalized = Sampling { repetition_penalty: 1.5, logit_bias: [(3, -1.0)].into(), ..Sampling::default() };
        vec![
            Frame::Hello(Hello {
                version: version::CURRENT,
                ring: RingId(9),
                generation: PlanGeneration(1),
                phone: "phone-1".into(),
                from_stage: 0,
                to_stage: 1,
                ring_secret: "s".into(),
            }),
            Frame::Accepted,
            Frame::Refused("no".into()),
            Frame::Open {
                key: key(),
                options: SessionOptions {
                    sampling: penalized.clone(),
                    end_position: 9,
                    end_tokens: vec![2],
                    top_logprobs: 3,
                    logprobs: true,
                    n_prompt: 2,
                    history: History::new(&penalized, &[1, 70_000], &[4, 4]),
                },
            },
            Frame::Prompt(Prompt { key: key(), position: 0, tokens: vec![1, 2, 70_000], credit: 8 }),
            Frame::Hidden(Hidden {
                key: key(),
                position: 7,
                n_tokens: 1,
                dtype: ActivationType::F16,
                kind: HiddenKind::Decoding,
                sample: true,
                payload: Bytes::from_static(&[1, 2, 3, 4]),
            }),
            Frame::Token(Token {
                key: key(),
                position: 8,
                token: 42,
                finish: Some(Finish::Stop),
                logprob: -0.5,
                top: vec![(42, -0.5), (7, -1.5)],
            }),
            Frame::Credit { key: key(), steps: 4 },
            Frame::Close { key: key() },
            Frame::Failed(Failed { key: key(), code: FailureCode::PeerGone, message: "phone-2 is gone".into() }),
            Frame::Ping { nonce: 1 },
            Frame::Pong { nonce: 2 },
            Frame::Pause { key: key() },
            Frame::Paused { key: key(), position: 70 },
            Frame::Resume(Resume {
                key: key(),
                position: 70,
                options: SessionOptions {
                    sampling: penalized.clone(),
                    end_position: 90,
                    end_tokens: vec![2],
                    top_logprobs: 0,
                    logprobs: false,
                    n_prompt: 1,
                    history: History::new(&penalized, &[1], &[4]),
                },
                from: PlanGeneration(2),
                from_epoch: Epoch(4),
            }),
            Frame::Resumed { key: key(), stage: 2, position: 70 },
            Frame::KvRequest(KvRequest {
                version: version::CURRENT,
                phone: "phone-1".into(),
                key: key(),
                ring_secret: "s".into(),
                layers: LayerSpan { from: 3, to: 5 },
                n_positions: 70,
            }),
            Frame::KvRows(KvRows {
                key: key(),
                layer: 3,
                position: 64,
                n_positions: 1,
                values: Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8]),
            }),
            Frame::Filler(Bytes::from_static(&[7, 8])),
            of_encoder(HiddenKind::Encoding),
            of_encoder(HiddenKind::Encoded),
            Frame::Ack { key: key(), position: 96 },
            Frame::Failed(Failed { key: key(), code: FailureCode::NonFinite, message: "NaN".into() }),
        ]
    }

    #[test]
    fn every_kind_is_read_back_as_it_was_written() {
        let mut buffer = BytesMut::new();
        frames().iter().for_each(|frame| encode(frame, &mut buffer));
        for frame in frames() {
            assert_eq!(decode(&mut buffer, MAX_FRAME_BYTES).unwrap(), Some(frame));
        }
        assert!(decode(&mut buffer, MAX_FRAME_BYTES).unwrap().is_none());
    }

    #[test]
    fn the_bytes_of_a_hidden_frame_are_these() {
        let mut buffer = BytesMut::new();
        encode(&frames()[5], &mut buffer);
        let expected = [
            40, 0, 0, 0, 6, 0, 1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0,
            0, 1, 0, 0, 0, 1, 2, 3, 4,
        ];
        assert_eq!(&buffer[..], expected);
    }

    #[test]
    fn the_bytes_of_an_encoders_hidden_frames_are_these() {
        for (kind, flags) in [(HiddenKind::Encoding, 2), (HiddenKind::Encoded, 4)] {
            let mut buffer = BytesMut::new();
            encode(&of_encoder(kind), &mut buffer);
            let expected = [
                40, 0, 0, 0, 6, 0, flags, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 7,
                0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4,
            ];
            assert_eq!(&buffer[..], expected, "{kind:?}");
        }
    }

    #[test]
    fn hidden_states_of_an_unknown_kind_are_refused() {
        let mut buffer = BytesMut::new();
        encode(&of_encoder(HiddenKind::Encoded), &mut buffer);
        buffer[6] = 6;
        assert!(matches!(decode(&mut buffer, 1024), Err(FrameError::UnknownValue { kind: HIDDEN, value: 3, .. })));
    }

    #[test]
    fn the_bytes_of_a_filler_are_these() {
        let mut bytes = BytesMut::new();
        encode(&Frame::Filler(Bytes::from_static(&[7, 8])), &mut bytes);
        let mut expected = [0; 42];
        (expected[0], expected[4], expected[40], expected[41]) = (38, FILLER, 7, 8);
        assert_eq!(bytes[..], expected);
    }

    #[test]
    fn the_bytes_of_a_hand_over_are_these() {
        let key = [2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0];
        let table: [(usize, u8, [u8; 8], &[u8]); 4] = [
            (12, 15, [0; 8], &[]),
            (13, 16, [70, 0, 0, 0, 0, 0, 0, 0], &[]),
            (15, 18, [70, 0, 0, 0, 2, 0, 0, 0], &[]),
            (17, 20, [64, 0, 0, 0, 1, 0, 0, 0], &[3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ];
        for (index, kind, position_and_count, body) in table {
            let mut buffer = BytesMut::new();
            encode(&frames()[index], &mut buffer);
            let length = [36 + body.len() as u8, 0, 0, 0, kind, 0, 0, 0];
            assert_eq!(&buffer[..], [&length, &key[..], &position_and_count, body].concat());
        }
    }

    #[test]
    fn the_bytes_of_an_acknowledgement_and_of_a_failure_by_numbers_that_are_none_are_these() {
        let key = [2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0];
        type Row = (usize, [u8; 8], [u8; 8], &'static [u8]);
        let table: [Row; 2] = [
            (21, [36, 0, 0, 0, 21, 0, 0, 0], [96, 0, 0, 0, 0, 0, 0, 0], &[]),
            (22, [39, 0, 0, 0, 10, 0, 7, 0], [0; 8], b"NaN"),
        ];
        for (index, head, position_and_count, body) in table {
            let mut buffer = BytesMut::new();
            encode(&frames()[index], &mut buffer);
            assert_eq!(&buffer[..], [&head, &key[..], &position_and_count, body].concat());
        }
    }

    #[test]
    fn rows_of_a_cache_without_a_layer_or_with_half_a_value_are_refused() {
        for n_bytes in [0, 3, 11, 13] {
            let mut buffer = BytesMut::new();
            with_bytes(Header::new(KV_ROWS, key()), &vec![0; n_bytes], &mut buffer);
            assert!(matches!(decode(&mut buffer, 1024), Err(FrameError::BodySize { kind: KV_ROWS, .. })), "{n_bytes}");
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(decode(&mut buffer, 1024), Err(FrameError::TooLarge { limit: 1024, .. })));
    }

    #[test]
    fn a_frame_of_a_far_version_is_refused() {
        let mut buffer = BytesMut::new();
        encode(&Frame::Accepted, &mut buffer);
        buffer[5] = 9;
        assert!(matches!(decode(&mut buffer, 1024), Err(FrameError::Version { theirs: 9, .. })));
    }

    #[test]
    fn who_speaks_another_protocol_is_still_heard_saying_so() {
        let refused = Frame::Refused("update".into());
        let mut buffer = BytesMut::new();
        encode(&refused, &mut buffer);
        buffer[5] = 9;
        assert_eq!(decode(&mut buffer, 1024).unwrap(), Some(refused));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..24, len in 30u8..120) {
            let mut raw = BytesMut::from(&bytes[..]);
            let _ = decode(&mut raw, 1 << 20);
            let mut framed = BytesMut::from(&[len, 0, 0, 0, kind, 0][..]);
            framed.extend_from_slice(&bytes);
            let _ = decode(&mut framed, 1 << 20);
        }

        #[test]
        fn a_split_stream_gives_the_same_frames(cut in 0usize..2000) {
            let mut whole = BytesMut::new();
            frames().iter().for_each(|frame| encode(frame, &mut whole));
            let cut = cut.min(whole.len());
            let mut buffer = BytesMut::from(&whole[..cut]);
            let mut got = Vec::new();
            while let Some(frame) = decode(&mut buffer, 1 << 20).unwrap() {
                got.push(frame);
            }
            buffer.extend_from_slice(&whole[cut..]);
            while let Some(frame) = decode(&mut buffer, 1 << 20).unwrap() {
                got.push(frame);
            }
            prop_assert_eq!(got, frames());
        }
    }
}
