//! Reading: bytes become a frame, or are refused.

use bytes::{Buf, Bytes, BytesMut};

use super::header::{
    ACCEPTED, ACK, CLOSE, CREDIT, FAILED, FILLER, HELLO, HIDDEN, Header, KV_REQUEST, KV_ROWS, OPEN, PAUSE, PAUSED,
    PING, PONG, PROMPT, REFUSED, RESUME, RESUMED, TO_AGENT, TO_HUB, TOKEN,
};
use super::{FrameError, ResumeBody, numbers};
use crate::frame::{Failed, Frame, HEADER_BYTES, Hidden, KvRows, Prompt, Resume, Token};
use crate::version;

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
            dtype: numbers::dtype(kind, header.dtype)?,
            kind: numbers::hidden_kind(kind, header.flags >> 1)?,
            sample: header.flags & 1 == 1,
            payload: body,
        }),
        TOKEN => {
            let n_top = body.len().saturating_sub(4) / 8;
            sized(4 + n_top * 8, body.len())?;
            let logprob = body.get_f32_le();
            let top = (0..n_top).map(|_| (body.get_u32_le(), body.get_f32_le())).collect();
            let finish = numbers::finish(kind, header.flags)?;
            Frame::Token(Token { key, position: header.position, token: header.count, finish, logprob, top })
        }
        ACK => Frame::Ack { key, position: header.position },
        CREDIT => Frame::Credit { key, steps: header.count },
        CLOSE => Frame::Close { key },
        FAILED => {
            Frame::Failed(Failed { key, code: numbers::failure(kind, header.flags)?, message: text(kind, &body)? })
        }
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
