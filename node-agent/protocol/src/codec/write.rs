//! Writing: a frame becomes bytes.

use bytes::{BufMut, BytesMut};

use super::header::{
    ACCEPTED, ACK, CLOSE, CREDIT, FAILED, FILLER, HELLO, HIDDEN, Header, KV_REQUEST, KV_ROWS, NO_KEY, OPEN, PAUSE,
    PAUSED, PING, PONG, PROMPT, REFUSED, RESUME, RESUMED, TO_AGENT, TO_HUB, TOKEN,
};
use super::{ResumeBody, numbers};
use crate::frame::{Frame, Resume};

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
            header.flags = u8::from(hidden.sample) | numbers::of_hidden_kind(hidden.kind) << 1;
            header.dtype = numbers::of_dtype(hidden.dtype);
            header.position = hidden.position;
            header.count = hidden.n_tokens;
            with_bytes(header, &hidden.payload, out);
        }
        Frame::Token(token) => {
            let mut header = Header::new(TOKEN, token.key);
            header.flags = numbers::of_finish(token.finish);
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
            header.flags = numbers::of_failure(failed.code);
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

pub(super) fn with_bytes(header: Header, body: &[u8], out: &mut BytesMut) {
    header.write(body.len(), out);
    out.put_slice(body);
}

fn with_json(header: Header, body: &impl serde::Serialize, out: &mut BytesMut) {
    let json = serde_json::to_vec(body).expect("messages have string keys and no failing serializers");
    with_bytes(header, &json, out);
}
