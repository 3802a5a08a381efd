//! A scripted agent: joins, answers pings, and reports every assigned segment as ready.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use polyphony_protocol::hub::{
    Assignment, Heartbeat, Join, SegmentPhase, SegmentReport, Speed, ToAgent, ToHub, Welcome,
};
use polyphony_protocol::{Frame, codec, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// An agent that holds whatever it is told to. Dropping it ends its link.
pub struct Agent {
    pub welcome: Welcome,
    pub assigned: watch::Receiver<Vec<Assignment>>,
    task: JoinHandle<()>,
}

pub fn join(name: &str, token: &str, mib: u64) -> Join {
    let bytes = mib << 20;
    Join {
        version: version::CURRENT,
        phone: name.into(),
        token: token.into(),
        agent_version: "0.0.0".into(),
        ring_address: "127.0.0.1:9".into(),
        capacity_bytes: bytes,
        allocatable_bytes: bytes,
        backend: "cpu".into(),
        device: "scripted".into(),
        numerics: "cpu-f32".into(),
        speeds: vec![Speed {
            backend: "cpu".into(),
            device: "scripted".into(),
            gflops: 10.0,
            gigabytes_per_second: 5.0,
        }],
        metrics_address: "127.0.0.1:8".into(),
    }
}

/// Joins; gives the reason when the hub refuses.
pub async fn start(hub: &str, join: Join) -> Result<Agent, String> {
    let mut stream = TcpStream::connect(hub).await.unwrap();
    send(&mut stream, &Frame::ToHub(ToHub::Join(join))).await;
    let mut buffer = BytesMut::new();
    let welcome = match next(&mut stream, &mut buffer).await {
        Some(Frame::ToAgent(ToAgent::Welcome(welcome))) => welcome,
        Some(Frame::ToAgent(ToAgent::Refused { reason })) => return Err(reason),
        other => panic!("neither welcome nor refusal: {other:?}"),
    };
    let (seen, assigned) = watch::channel(Vec::new());
    let task = tokio::spawn(async move {
        while let Some(frame) = next(&mut stream, &mut buffer).await {
            match frame {
                Frame::Ping { nonce } => send(&mut stream, &Frame::Pong { nonce }).await,
                Frame::ToAgent(ToAgent::Assignments { segments }) => {
                    let heartbeat =
                        Heartbeat { segments: segments.iter().map(ready).collect(), ..Heartbeat::default() };
                    send(&mut stream, &Frame::ToHub(ToHub::Heartbeat(heartbeat))).await;
                    seen.send_replace(segments);
                }
                _ => {}
            }
        }
    });
    Ok(Agent { welcome, assigned, task })
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ready(assignment: &Assignment) -> SegmentReport {
    SegmentReport {
        namespace: assignment.namespace.clone(),
        name: assignment.name.clone(),
        phase: SegmentPhase::Ready,
        bytes_loaded: 1 << 20,
        bytes_total: 1 << 20,
        seconds_per_layer: Some(0.001),
        prefill_seconds_per_layer_per_token: None,
        seconds_besides_layers: None,
        queued_rows: 0,
        sessions: 0,
        message: None,
    }
}

pub async fn send(stream: &mut TcpStream, frame: &Frame) {
    let mut bytes = BytesMut::new();
    codec::encode(frame, &mut bytes);
    // A link that has ended is noticed when reading.
    let _ = stream.write_all(&bytes).await;
}

pub async fn next(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Frame> {
    loop {
        if let Some(frame) = codec::decode(buffer, 1 << 20).unwrap() {
            return Some(frame);
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
