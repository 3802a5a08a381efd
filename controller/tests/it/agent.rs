//! A scripted agent: enrols with a token, joins, answers pings, and reports every assigned segment as ready.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use polyphony_identity::{Audience, Clock, Credentials, Digest, Key, Name, Papers, Role, Whom};
use polyphony_protocol::hub::{
    Assignment, Enrol, Heartbeat, Join, SegmentPhase, SegmentReport, Speed, ToAgent, ToHub, Welcome,
};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Bounds, Connection, Security, Uncounted, Wire};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(30);

/// An agent that holds whatever it is told to. Dropping it ends its link.
pub struct Agent {
    pub welcome: Welcome,
    pub assigned: watch::Receiver<Vec<Assignment>>,
    /// Seconds that it says a layer takes.
    pace: watch::Sender<f64>,
    task: JoinHandle<()>,
}

/// A device that was taken in.
#[derive(Clone)]
pub struct Device {
    hub: String,
    pub credentials: Credentials,
    pub key: Arc<Key>,
}

pub fn join(name: &str, mib: u64) -> Join {
    let bytes = mib << 20;
    Join {
        version: version::CURRENT,
        phone: name.into(),
        agent_version: "0.0.0".into(),
        hardware: Default::default(),
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
            prefill_gflops: 0.0,
            gigabytes_per_second: 5.0,
        }],
        kv_caches: ["f32", "f16", "q8"].map(str::to_owned).into(),
        metrics_address: "127.0.0.1:8".into(),
        instance: String::new(),
    }
}

// === impl Device ===

impl Device {
    /// Shows a token to a hub of that root; gives the reason when the hub refuses.
    pub async fn enrol(hub: &str, ca_hash: Digest, token: &str, name: &str) -> Result<Self, String> {
        Self::enrol_with(Key::generate().unwrap(), hub, ca_hash, token, name).await
    }

    pub async fn enrol_with(key: Key, hub: &str, ca_hash: Digest, token: &str, name: &str) -> Result<Self, String> {
        let enrol = Enrol {
            version: version::CURRENT,
            phone: name.into(),
            token: token.into(),
            request: key.request().unwrap(),
        };
        match Self::ask_to_enrol(hub, ca_hash, enrol).await {
            ToAgent::Enrolled(enrolled) => {
                let papers = Papers::from_pem(&enrolled.chain, &enrolled.roots).unwrap();
                let credentials = Credentials::new(&key, &papers, Clock::system()).unwrap();
                Ok(Self { hub: hub.into(), credentials, key: Arc::new(key) })
            }
            ToAgent::Refused { reason, .. } => Err(reason),
            other => panic!("neither papers nor refusal: {other:?}"),
        }
    }

    pub async fn ask_to_enrol(hub: &str, ca_hash: Digest, enrol: Enrol) -> ToAgent {
        let wire = Wire::new(Bounds::default(), Arc::new(Uncounted), Security::Joining);
        let mut link = wire.dial(hub, &Whom::Pinned(ca_hash), DEADLINE).await.unwrap();
        link.writer.write(&Frame::ToHub(ToHub::Enrol(enrol))).await.unwrap();
        match link.reader.next_within(DEADLINE).await.unwrap() {
            Frame::ToAgent(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// The same at another address.
    pub fn at(self, hub: &str) -> Self {
        Self { hub: hub.to_owned(), ..self }
    }

    /// A connection to the hub.
    pub async fn dial(&self) -> Connection {
        let security = Security::mutual(&self.credentials, Audience::Certified).unwrap();
        let wire = Wire::new(Bounds::default(), Arc::new(Uncounted), security);
        let hub = Whom::Hub(self.credentials.named(|domain| Name::of_controller(Role::Hub, domain)));
        wire.dial(&self.hub, &hub, DEADLINE).await.unwrap()
    }

    /// What the hub answers to a join.
    pub async fn ask(&self, join: Join) -> (Connection, ToAgent) {
        let mut link = self.dial().await;
        link.writer.write(&Frame::ToHub(ToHub::Join(join.into()))).await.unwrap();
        match link.reader.next_within(DEADLINE).await.unwrap() {
            Frame::ToAgent(answer) => (link, answer),
            other => panic!("neither welcome nor refusal: {other:?}"),
        }
    }

    /// Joins; gives the reason when the hub refuses.
    pub async fn start(&self, join: Join) -> Result<Agent, String> {
        let (link, answer) = self.ask(join).await;
        let Connection { mut reader, mut writer, .. } = link;
        let welcome = match answer {
            ToAgent::Welcome(welcome) => welcome,
            ToAgent::Refused { reason, .. } => return Err(reason),
            other => panic!("neither welcome nor refusal: {other:?}"),
        };
        let (seen, assigned) = watch::channel(Vec::new());
        let (pace, mut told_pace) = watch::channel(0.001);
        let task = tokio::spawn(async move {
            let mut held: Vec<Assignment> = Vec::new();
            loop {
                let frame = tokio::select! {
                    frame = reader.next() => frame.ok(),
                    Ok(()) = told_pace.changed() => Some(Frame::Accepted),
                };
                match frame {
                    None => return,
                    Some(Frame::Ping { nonce }) => {
                        // A link that has ended is noticed when reading.
                        let _ = writer.write(&Frame::Pong { nonce }).await;
                        continue;
                    }
                    Some(Frame::ToAgent(ToAgent::TellMetrics { id })) => {
                        let text = "polyphony_scripted 1\n".to_owned();
                        let _ = writer.write(&Frame::ToHub(ToHub::Metrics { id, text })).await;
                        continue;
                    }
                    Some(Frame::ToAgent(ToAgent::Assignments { segments })) => held = segments,
                    // Its own pace has changed.
                    Some(Frame::Accepted) => {}
                    Some(_) => continue,
                }
                let pace = *told_pace.borrow();
                let segments = held.iter().map(|one| ready(one, pace)).collect();
                let heartbeat = Heartbeat { segments, ..Heartbeat::default() };
                let _ = writer.write(&Frame::ToHub(ToHub::Heartbeat(heartbeat))).await;
                seen.send_replace(held.clone());
            }
        });
        Ok(Agent { welcome, assigned, pace, task })
    }
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
