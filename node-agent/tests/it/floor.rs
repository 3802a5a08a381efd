//! A floor of agents that one test drives: it gives them plans, plays the gateway, and moves sessions from plan to plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use polyphony_protocol::frame::{Failed, Prompt, Resume};
use polyphony_protocol::hub::{
    Assignment, BackendFault, Followed, Holds, LayerSpan, Owner, Peer, SegmentPhase, Successor, ToHub, Way,
};
use polyphony_protocol::session::{History, Sampling, SessionOptions};
use polyphony_protocol::{ActivationType, Epoch, Frame, PlanGeneration, RingId, RouteKey, SessionId};
use polyphony_wire::{FrameReader, Metered};
use tokio::io::ReadHalf;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use crate::hub::{Hub, Joined, PATIENCE, Writer};

pub const CONTEXT_LENGTH: u32 = 96;
pub const MAX_SESSIONS: u32 = 3;
pub const RING: RingId = RingId(1);

/// One stage of a plan: phone, first layer, one past the last, and what stands by.
pub type Cut = (usize, u32, u32, Option<(u32, u32)>);

pub struct Floor {
    pub hub: Hub,
    pub phones: Vec<Phone>,
    heard: mpsc::UnboundedReceiver<(usize, Frame)>,
    hear: mpsc::UnboundedSender<(usize, Frame)>,
    pub plans: BTreeMap<u32, Vec<Assignment>>,
    phases: BTreeMap<(usize, String), SegmentPhase>,
    pub sessions: BTreeMap<u64, Session>,
    last_session: u64,
    paused: HashMap<RouteKey, u32>,
    resumed: HashMap<RouteKey, Vec<(u32, u32)>>,
    pub failures: Vec<Failed>,
    /// Backends that the phones told of that they have set aside; and why segments failed after that.
    pub faults: Vec<BackendFault>,
    pub failed_segments: Vec<String>,
    /// In what plans keep keys and values, as their class says it.
    pub kept: &'static str,
    /// Of whom no plan is told that they go on with its sessions.
    pub outsiders: Vec<String>,
}

pub struct Phone {
    pub name: String,
    pub ring_address: String,
    numerics: String,
    pub metrics_address: String,
    writer: Writer,
}

/// A session as a gateway knows it.
pub struct Session {
    pub key: RouteKey,
    pub tokens: Vec<u32>,
    n_prompt: usize,
    options: SessionOptions,
    pub is_over: bool,
}

/// The phones of plans that follow a generation.
fn successors(
    plans: &BTreeMap<u32, Vec<Assignment>>,
    generation: PlanGeneration,
    outsiders: &[String],
) -> Vec<Successor> {
    let follows = |stage: &&Assignment| stage.follows.as_ref().is_some_and(|before| before.generation == generation);
    let peers = plans.values().flatten().filter(follows).flat_map(|stage| &stage.peers);
    let told = peers.filter(|peer| !outsiders.contains(&peer.phone));
    let successor = |peer: &Peer| Successor {
        phone: peer.phone.clone(),
        key: peer.key.clone(),
        layers: peer.layers.unwrap_or_default(),
    };
    let all: BTreeSet<_> = told.map(successor).collect();
    all.into_iter().collect()
}

// === impl Floor ===

impl Floor {
    pub async fn open(model: &Path, n_phones: usize) -> Self {
        let hub = Hub::open(model).await;
        let mut phones = Vec::new();
        for index in 0..n_phones {
            phones.push(hub.join(&format!("phone-{index}")).await);
        }
        Self::of(hub, phones)
    }

    /// Of agents that have joined already.
    pub fn of(hub: Hub, phones: Vec<Joined>) -> Self {
        let (hear, heard) = mpsc::unbounded_channel();
        let mut floor = Self {
            hub,
            phones: Vec::new(),
            heard,
            hear,
            plans: BTreeMap::new(),
            phases: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last_session: 100,
            paused: HashMap::new(),
            resumed: HashMap::new(),
            failures: Vec::new(),
            faults: Vec::new(),
            failed_segments: Vec::new(),
            kept: "kv-f16",
            outsiders: Vec::new(),
        };
        for (index, Joined { join, reader, writer }) in phones.into_iter().enumerate() {
            floor.listen_to(index, reader);
            floor.phones.push(Phone {
                name: join.phone,
                ring_address: join.ring_address,
                numerics: join.numerics,
                metrics_address: join.metrics_address,
                writer,
            });
        }
        floor
    }

    fn listen_to(&self, index: usize, mut reader: FrameReader<Metered<ReadHalf<TlsStream<TcpStream>>>>) {
        let hear = self.hear.clone();
        tokio::spawn(async move {
            while let Ok(frame) = reader.next().await {
                if hear.send((index, frame)).is_err() {
                    break;
                }
            }
        });
    }

    /// The host dies, and comes back as one that knows the plans and no session.
    pub async fn restart_host(&mut self) {
        self.lose_host().await;
        for _ in 0..self.phones.len() {
            let joined = self.hub.rejoin().await;
            self.take_back(joined);
        }
        self.assign().await;
    }

    /// The host dies, and with it what it knew of sessions.
    pub async fn lose_host(&mut self) {
        for phone in &mut self.phones {
            phone.writer.shut_down().await;
        }
        self.sessions.clear();
        self.phases.clear();
    }

    /// An agent has come back to a host that was away.
    pub fn take_back(&mut self, joined: Joined) {
        let Joined { join, reader, writer } = joined;
        let index = self.phones.iter().position(|phone| phone.name == join.phone).unwrap();
        self.listen_to(index, reader);
        self.phones[index].writer = writer;
    }

    /// Lays a plan on the phones and waits until it is ready; the first cut has the embedding, the last the head.
    pub async fn plan(&mut self, generation: u32, cuts: &[Cut], follows: Option<u32>) {
        let follows = follows.map(|before| self.followed(before));
        self.plan_after(generation, cuts, follows).await;
    }

    pub async fn plan_after(&mut self, generation: u32, cuts: &[Cut], follows: Option<Followed>) {
        let peers: Vec<_> = (0..)
            .zip(cuts)
            .map(|(stage, cut)| Peer {
                stage,
                phone: self.phones[cut.0].name.clone(),
                ways: vec![Way::direct(self.phones[cut.0].ring_address.clone())],
                key: self.hub.key_of(&self.phones[cut.0].name),
                layers: Some(LayerSpan { from: cut.1, to: cut.2 }),
            })
            .collect();
        let last = cuts.len() as u32 - 1;
        let stages = (0..).zip(cuts).map(|(stage, &(phone, from, to, standby))| Assignment {
            namespace: "default".into(),
            name: format!("g{generation}-{stage}"),
            ring: RING,
            generation: PlanGeneration(generation),
            plan_digest: String::new(),
            stage,
            holds: Holds { embedding: stage == 0, from, to, head: stage == last },
            peers: peers.clone(),
            manifest_digest: self.hub.model.digest.clone(),
            context_length: CONTEXT_LENGTH,
            max_sessions: MAX_SESSIONS,
            session_groups: 0,
            activation_type: ActivationType::F16,
            numerics_class: format!("{}/f16/{}", self.phones[phone].numerics, self.kept),
            standby: standby.map(|(from, to)| LayerSpan { from, to }),
            follows: follows.clone(),
            successors: Vec::new(),
            encoder: None,
        });
        let stages: Vec<_> = stages.collect();
        self.plans.insert(generation, stages);
        self.assign().await;
        let names: Vec<_> = (0..).zip(cuts).map(|(stage, cut)| (cut.0, format!("g{generation}-{stage}"))).collect();
        self.until("the plan is ready", |floor| {
            names.iter().all(|name| floor.phases.get(name) == Some(&SegmentPhase::Ready))
        })
        .await;
    }

    pub fn followed(&self, generation: u32) -> Followed {
        let stages = &self.plans[&generation];
        let owners = stages.iter().map(|stage| {
            let peer = &stage.peers[stage.stage as usize];
            let layers = LayerSpan { from: stage.holds.from, to: stage.holds.to };
            Owner { phone: peer.phone.clone(), ways: peer.ways.clone(), key: peer.key.clone(), layers }
        });
        Followed { generation: PlanGeneration(generation), owners: owners.collect() }
    }

    pub async fn drop_plan(&mut self, generation: u32) {
        self.plans.remove(&generation);
        self.assign().await;
    }

    async fn assign(&mut self) {
        for phone in &mut self.phones {
            let stages = self.plans.values().flatten();
            let mine = stages.filter(|stage| stage.peers[stage.stage as usize].phone == phone.name);
            let told = |stage: &Assignment| Assignment {
                successors: successors(&self.plans, stage.generation, &self.outsiders),
                ..stage.clone()
            };
            phone.writer.assign(mine.map(told).collect()).await;
        }
    }

    /// Sends a frame to the head of the plan that its key names.
    pub async fn tell_head(&mut self, key: RouteKey, frame: Frame) {
        let head = self.plans[&key.generation.0][0].peers[0].phone.clone();
        let phone = self.phones.iter_mut().find(|phone| phone.name == head).unwrap();
        phone.writer.send(frame).await;
    }

    /// A number that no session before had.
    pub fn next_session(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }

    pub async fn start(&mut self, session: u64, generation: u32, prompt: &[u32], sampling: Sampling, credit: u32) {
        let options = SessionOptions {
            sampling,
            end_position: CONTEXT_LENGTH,
            end_tokens: vec![],
            top_logprobs: 0,
            logprobs: false,
            n_prompt: 0,
            history: History::default(),
        };
        let key = RouteKey {
            ring: RING,
            generation: PlanGeneration(generation),
            session: SessionId(session),
            epoch: Epoch(1),
        };
        let one = Session { key, tokens: prompt.to_vec(), n_prompt: prompt.len(), options, is_over: false };
        self.sessions.insert(session, one);
        self.open_at(session, generation, 1, credit).await;
    }

    /// Opens the session anew, with all tokens so far as its prompt.
    pub async fn open_at(&mut self, session: u64, generation: u32, epoch: u32, credit: u32) {
        let one = self.sessions.get_mut(&session).unwrap();
        one.key = RouteKey { generation: PlanGeneration(generation), epoch: Epoch(epoch), ..one.key };
        let (key, options, tokens) = (one.key, one.options_so_far(), one.tokens.clone());
        self.tell_head(key, Frame::Open { key, options }).await;
        self.tell_head(key, Frame::Prompt(Prompt { key, position: 0, tokens, credit })).await;
    }

    pub async fn credit(&mut self, session: u64, steps: u32) {
        let key = self.sessions[&session].key;
        self.tell_head(key, Frame::Credit { key, steps }).await;
    }

    /// Waits until the session has so many tokens, prompt included, or is over.
    pub async fn until_tokens(&mut self, session: u64, n_tokens: usize) {
        self.until("the tokens come", |floor| {
            let one = &floor.sessions[&session];
            one.is_over || one.tokens.len() >= n_tokens || !floor.failures.is_empty()
        })
        .await;
        assert_eq!(self.failures, []);
    }

    /// Moves a session as the gateway does; `Err` with the failure when the new ring cannot take it over.
    pub async fn move_to(&mut self, session: u64, generation: u32, credit: u32) -> Result<u32, Failed> {
        let old = self.sessions[&session].key;
        self.tell_head(old, Frame::Pause { key: old }).await;
        self.until("the head stops", |floor| floor.paused.contains_key(&old)).await;
        let position = self.paused[&old];
        self.until_tokens(session, position as usize + 1).await;
        let one = self.sessions.get_mut(&session).unwrap();
        one.key = RouteKey { generation: PlanGeneration(generation), epoch: Epoch(old.epoch.0 + 1), ..old };
        let (key, options) = (one.key, one.options_so_far());
        let resume = Resume { key, position, options, from: old.generation, from_epoch: old.epoch };
        self.tell_head(key, Frame::Resume(resume)).await;
        let n_stages = self.plans[&generation].len();
        self.until("all stages go on", |floor| {
            !floor.failures.is_empty() || floor.resumed.get(&key).is_some_and(|stages| stages.len() == n_stages)
        })
        .await;
        if let Some(failed) = self.failures.pop() {
            return Err(failed);
        }
        let mut stages = self.resumed[&key].clone();
        stages.sort_unstable();
        assert_eq!(stages, (0..n_stages as u32).map(|stage| (stage, position)).collect::<Vec<_>>());
        self.tell_head(old, Frame::Close { key: old }).await;
        let tokens = self.sessions[&session].tokens[position as usize..].to_vec();
        self.tell_head(key, Frame::Prompt(Prompt { key, position, tokens, credit })).await;
        Ok(position)
    }

    /// Ends a session; its tokens.
    pub async fn close(&mut self, session: u64) -> Vec<u32> {
        let Session { key, tokens, .. } = self.sessions.remove(&session).unwrap();
        self.tell_head(key, Frame::Close { key }).await;
        tokens
    }

    /// Hears what the phones say until `is_so`.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            match tokio::time::timeout_at(deadline, self.heard.recv()).await {
                Ok(Some((phone, frame))) => self.hear(phone, frame),
                Ok(None) => panic!("{what}: every link ended"),
                Err(_) => panic!("{what}: not within {PATIENCE:?}; phases {:?}", self.phases),
            }
        }
    }

    fn hear(&mut self, phone: usize, frame: Frame) {
        match frame {
            Frame::Token(token) => {
                if let Some(session) = self.sessions.get_mut(&token.key.session.0).filter(|it| it.key == token.key) {
                    assert_eq!(token.position as usize, session.tokens.len(), "each token once and in order");
                    session.tokens.push(token.token);
                    session.is_over = token.finish.is_some();
                }
            }
            Frame::Paused { key, position } => assert!(self.paused.insert(key, position).is_none(), "paused twice"),
            Frame::Resumed { key, stage, position } => self.resumed.entry(key).or_default().push((stage, position)),
            // What a ring says of a session that has left it is not heard.
            Frame::Failed(failed) => {
                let session = self.sessions.get(&failed.key.session.0);
                if session.is_some_and(|session| session.key == failed.key) {
                    self.failures.push(failed);
                }
            }
            Frame::ToHub(ToHub::Heartbeat(heartbeat)) => {
                self.phases.retain(|(of, _), _| *of != phone);
                self.faults.extend(heartbeat.faults.expect("an agent of now says"));
                for segment in heartbeat.segments {
                    if segment.phase == SegmentPhase::Failed && !self.faults.is_empty() {
                        self.failed_segments.extend(segment.message.clone());
                    } else {
                        assert_ne!(segment.phase, SegmentPhase::Failed, "{segment:?}");
                    }
                    self.phases.insert((phone, segment.name), segment.phase);
                }
            }
            _ => {}
        }
    }

    /// Waits until a phone's `/metrics` say so.
    pub async fn until_metric(&self, phone: usize, name: &str, value: f64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.metric(phone, name).await != value {
            assert!(tokio::time::Instant::now() < deadline, "{name} is not {value} within {PATIENCE:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// A value at a phone's `/metrics`.
    pub async fn metric(&self, phone: usize, name: &str) -> f64 {
        self.metric_of(phone, name, &[]).await.unwrap()
    }

    /// The same of certain labels; none where nothing of them was counted yet.
    pub async fn metric_of(&self, phone: usize, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let url = format!("http://{}/metrics", self.phones[phone].metrics_address);
        polyphony_wire::take_ring();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let text = client.get(url).send().await.unwrap().text().await.unwrap();
        crate::exposition::value(&text, name, labels)
    }
}

// === impl Session ===

impl Session {
    fn options_so_far(&self) -> SessionOptions {
        let (asked, answered) = self.tokens.split_at(self.n_prompt);
        let history = History::new(&self.options.sampling, asked, answered);
        SessionOptions { history, ..self.options.clone() }
    }
}
