//! A phone of the bench: a key, a certificate, and a link that says what an agent's does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use polyphony_identity::{Audience, Clock, Credentials, DEFAULT_DOMAIN, Digest, Key, Name, Papers, Role, Whom};
use polyphony_protocol::hub::{Enrol, Heartbeat, Join, LinkReport, Speed, ToAgent, ToHub};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Bounds, Connection, LinkError, Security, Uncounted, Wire};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

const DEADLINE: Duration = Duration::from_secs(30);
/// As agents pause that were welcomed before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One of many.
pub struct Phone {
    name: String,
    wire: Wire,
}

/// What all phones have in common.
#[derive(Clone)]
pub struct Shelf {
    hub: String,
    linked: Arc<watch::Sender<usize>>,
    held: Arc<watch::Sender<bool>>,
}

// === impl Shelf ===

impl Shelf {
    pub fn new(hub: String) -> Self {
        Self { hub, linked: Arc::new(watch::channel(0).0), held: Arc::new(watch::channel(false).0) }
    }

    /// How many are linked.
    pub fn linked(&self) -> watch::Receiver<usize> {
        self.linked.subscribe()
    }

    /// Whether nobody is to dial.
    pub fn hold(&self, is_held: bool) {
        self.held.send_replace(is_held);
    }
}

// === impl Phone ===

impl Phone {
    pub async fn enrol(hub: &str, ca_hash: Digest, token: &str, name: String) -> Result<Self> {
        let key = Key::generate()?;
        let enrolled = loop {
            match ask_to_enrol(hub, ca_hash, token, &name, &key).await? {
                Frame::ToAgent(ToAgent::Enrolled(enrolled)) => break enrolled,
                // Another one was writing the token.
                Frame::ToAgent(ToAgent::Refused { reason, .. }) if reason.contains("try again") => {}
                other => bail!("{name} was not enrolled: {other:?}"),
            }
        };
        let credentials =
            Credentials::new(&key, &Papers::from_pem(&enrolled.chain, &enrolled.roots)?, Clock::system())?;
        let security = Security::mutual(&credentials, Audience::Certified)?;
        Ok(Self { name, wire: Wire::new(Bounds::default(), Arc::new(Uncounted), security) })
    }

    /// Keeps a link for ever.
    pub async fn keep_link(self, shelf: Shelf) {
        let mut held = shelf.held.subscribe();
        let mut pause = FIRST_PAUSE;
        loop {
            if held.wait_for(|held| !held).await.is_err() {
                return;
            }
            // However it ends, it is dialled again.
            if let Ok(link) = self.join(&shelf.hub).await {
                pause = FIRST_PAUSE;
                shelf.linked.send_modify(|linked| *linked += 1);
                let _ = speak(link).await;
                shelf.linked.send_modify(|linked| *linked -= 1);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn join(&self, hub: &str) -> Result<Connection, LinkError> {
        let mut link =
            self.wire.dial(hub, &Whom::Hub(Name::of_controller(Role::Hub, DEFAULT_DOMAIN)), DEADLINE).await?;
        link.writer.write(&Frame::ToHub(ToHub::Join(said_of(&self.name).into()))).await?;
        match link.reader.next_within(DEADLINE).await? {
            Frame::ToAgent(ToAgent::Welcome(_)) => Ok(link),
            other => Err(LinkError::unexpected(&other, "a welcome")),
        }
    }
}

async fn ask_to_enrol(hub: &str, ca_hash: Digest, token: &str, name: &str, key: &Key) -> Result<Frame> {
    let joining = Wire::new(Bounds::default(), Arc::new(Uncounted), Security::Joining);
    let mut link = joining.dial(hub, &Whom::Pinned(ca_hash), DEADLINE).await?;
    let enrol = Enrol { version: version::CURRENT, phone: name.into(), token: token.into(), request: key.request()? };
    link.writer.write(&Frame::ToHub(ToHub::Enrol(enrol))).await?;
    Ok(link.reader.next_within(DEADLINE).await?)
}

/// Answers pings, and says each second how it is.
async fn speak(link: Connection) -> Result<(), LinkError> {
    let Connection { mut reader, mut writer, .. } = link;
    let mut beats = tokio::time::interval(Duration::from_secs(1));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beat = Heartbeat {
        battery_percent: Some(80),
        charging: Some(true),
        temperature_celsius: Some(31.0),
        links: (0..16)
            .map(|n| LinkReport {
                peer: format!("phone-{n:04}"),
                round_trip_seconds: 0.004,
                bytes_per_second: Some(5e6),
                is_relayed: false,
            })
            .collect(),
        ..Heartbeat::default()
    };
    loop {
        tokio::select! {
            frame = reader.next() => if let Frame::Ping { nonce } = frame? {
                writer.write(&Frame::Pong { nonce }).await?;
            },
            _ = beats.tick() => writer.write(&Frame::ToHub(ToHub::Heartbeat(beat.clone()))).await?,
        }
    }
}

/// What a phone of that name says when it joins.
pub fn said_of(name: &str) -> Join {
    Join {
        version: version::CURRENT,
        phone: name.into(),
        agent_version: "0.0.0".into(),
        hardware: Default::default(),
        ring_address: "127.0.0.1:9".into(),
        capacity_bytes: 4 << 30,
        allocatable_bytes: 2 << 30,
        backend: "cpu".into(),
        device: "bench".into(),
        numerics: "cpu-int8".into(),
        speeds: vec![Speed {
            backend: "cpu".into(),
            device: "bench".into(),
            numerics: "cpu-int8".into(),
            gflops: 10.0,
            batch_gflops: 10.0,
            prefill_gflops: 0.0,
            gigabytes_per_second: 5.0,
        }],
        kv_caches: vec!["f16".into()],
        metrics_address: String::new(),
        instance: "1".into(),
    }
}
