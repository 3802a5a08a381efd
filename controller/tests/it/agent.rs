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
    /// Seconds that it says a layer takes.
    pace: watch::Sender<f64>,
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
        numerics: "cpu-int8".into(),
        speeds: vec![Speed {
            backend: "cpu".into(),
            device: "scripted".into(),
            numerics: "cpu-int8".into(),
            gflops: 10.0,
            batch_gflops: 10.0,
            gigabytes_per_second: 5.0,
        }],
        kv_caches: ["f32", "f16", "q8"].map(str::to_owned).into(),
        metrics_address: "127.0.0.1:8".into(),
        instance: String::new(),
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
    let (pace, mut told_pace) = watch::channel(0.001);
    let task = tokio::spawn(async move {
        let mut held: Vec<Assignment> = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = next(&mut stream, &mut buffer) => frame,
                Ok(()) = told_pace.changed() => Some(Frame::Accepted),
            };
            match frame {
                None => return,
                Some(Frame::Ping { nonce }) => {
                    send(&mut stream, &Frame::Pong { nonce }).await;
                    continue;
                }
                Some(Frame::ToAgent(ToAgent::Assignments { segments })) => held = segments,
                // Its own pace has changed.
                Some(Frame::Accepted) => {}
                Some(_) => continue,
            }
            let pace = *told_pace.borrow();
            let segments = held.iter().map(|one| ready(one, pace)).collect();
            send(&mut stream, &Frame::ToHub(ToHub::Heartbeat(Heartbeat { segments, ..Heartbeat::default() }))).await;
            seen.send_replace(held.clone());
        }
    });
    Ok(Agent { welcome, assigned, pace, task })
}

impl Agent {
    /// From now on a layer takes this long.
    pub fn slow_down_to(&self, seconds_per_layer: f64) {
        self.pace.send_replace(seconds_per_layer);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ready(assignment: &Assignment, seconds_per_layer: f64) -> SegmentReport {
    SegmentReport {
        namespace: assignment.namespace.clone(),
        name: assignment.name.clone(),
        phase: SegmentPhase::Ready,
        bytes_loaded: 1 << 20,
        bytes_total: 1 << 20,
        seconds_per_layer: Some(seconds_per_layer),
        prefill_seconds_per_layer_per_token: None,
        seconds_besides_layers: None,
        layers_timed: 0,
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
