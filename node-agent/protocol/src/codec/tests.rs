//! Every kind there and back, the bytes that a wire holds us to, and bytes that nobody should send.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::header::{FILLER, HIDDEN, Header, KV_ROWS};
use super::write::with_bytes;
use super::*;
use crate::activation::ActivationType;
use crate::frame::{
    Failed, FailureCode, Finish, Frame, Hello, Hidden, HiddenKind, KvRequest, KvRows, MAX_FRAME_BYTES, Prompt, Resume,
    Token,
};
use crate::hub::LayerSpan;
use crate::ids::{RingId, RouteKey, SessionId};
use crate::session::{History, Sampling};
use crate::version;

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

/// Every frame carries it.
const MINOR: u8 = version::CURRENT.minor;

#[test]
fn the_bytes_of_a_hidden_frame_are_these() {
    let mut buffer = BytesMut::new();
    encode(&frames()[5], &mut buffer);
    let expected = [
        40, 0, 0, 0, 6, MINOR, 1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0,
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
            40, 0, 0, 0, 6, MINOR, flags, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 7,
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
    (expected[0], expected[4], expected[5], expected[40], expected[41]) = (38, FILLER, MINOR, 7, 8);
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
        let length = [36 + body.len() as u8, 0, 0, 0, kind, MINOR, 0, 0];
        assert_eq!(&buffer[..], [&length, &key[..], &position_and_count, body].concat());
    }
}

#[test]
fn the_bytes_of_an_acknowledgement_and_of_a_failure_by_numbers_that_are_none_are_these() {
    let key = [2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0];
    type Row = (usize, [u8; 8], [u8; 8], &'static [u8]);
    let table: [Row; 2] = [
        (21, [36, 0, 0, 0, 21, MINOR, 0, 0], [96, 0, 0, 0, 0, 0, 0, 0], &[]),
        (22, [39, 0, 0, 0, 10, MINOR, 7, 0], [0; 8], b"NaN"),
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
