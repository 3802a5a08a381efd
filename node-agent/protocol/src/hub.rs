//! Hub messages: what an agent and the host tell each other on the one link that the agent dials.
//!
//! Assignments are level-triggered: each message holds everything the phone is to hold, so a lost one costs nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::activation::ActivationType;
use crate::ids::{PlanGeneration, RingId};
use crate::version::ProtocolVersion;

/// Agent → hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToHub {
    /// First on a connection of who shows no certificate: it asks for one, and the connection ends with the answer.
    Enrol(Enrol),
    /// A certificate for the same key from now on: on a link, or first on a connection that ends with the answer.
    Renew {
        /// As of an [`Enrol`].
        request: String,
    },
    /// First on the link.
    Join(Box<Join>),
    /// First on a connection of its own: once it is accepted, bytes go to that phone and come from it, and no more frames are said.
    Call {
        /// The phone that is to be reached.
        phone: String,
    },
    /// First on a connection of its own of the phone that was called: from the acceptance on it is the other end.
    Answer { call: u64 },
    /// Each heartbeat interval, and at once when a segment changes.
    Heartbeat(Heartbeat),
    /// Answer to a request for metrics.
    Metrics {
        id: u64,
        /// In Prometheus' text format; empty where the agent has none to show.
        text: String,
    },
}

/// Hub → agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToAgent {
    /// Answer to who enrols or renews.
    Enrolled(Enrolled),
    /// Answer to a join.
    Welcome(Welcome),
    /// Answer to what cannot be; the connection is closed.
    Refused { reason: String, remedy: Remedy },
    /// Another phone wants to reach this one over the hub: it answers on a connection of its own.
    Called { call: u64 },
    /// Somebody scrapes this phone's metrics.
    TellMetrics { id: u64 },
    /// All that this phone is to hold.
    Assignments { segments: Vec<Assignment> },
    /// Phones that a plan may put beside this one: it measures its links to them.
    Neighbours(Neighbours),
}

/// A device asks for its name and a certificate of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrol {
    pub version: ProtocolVersion,
    /// The name that it is to have: a DNS label, as Kubernetes names are.
    pub phone: String,
    /// Proof that it may join.
    pub token: String,
    /// A certificate signing request (PKCS #10) in PEM: the device holds the key. The names in it count for nothing.
    pub request: String,
}

/// A certificate, and all that is needed to use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolled {
    /// In PEM: the device's own certificate, and those that lead from it towards a root.
    pub chain: String,
    /// In PEM: the roots that others are checked by from now on.
    pub roots: String,
    /// The hub's time, in seconds of Unix.
    pub time_seconds: u64,
    /// When the certificate runs out, by the same clock.
    pub good_until_seconds: u64,
}

/// What a refusal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Remedy {
    /// A person has to act.
    Person,
    /// The certificate has run out, and is renewed for the asking.
    Renew,
    /// No Phone records this device's key (any more): a join token is needed.
    Enrol,
}

/// Phones to measure links to. Each message holds all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbours {
    pub phones: Vec<Neighbour>,
}

/// A phone to measure a link to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    pub phone: String,
    /// Each is tried.
    pub ways: Vec<Way>,
    /// The digest of its key, by which it is known.
    pub key: String,
}

/// How another phone is reached. Where several are told, the better ones come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "camelCase")]
pub enum Way {
    /// It is dialled where it listens for other phones, as `IP:PORT`.
    Direct { address: String },
    /// Both dial the hub, which passes on what they say to each other under their own seal.
    Relayed,
}

// === impl Way ===

impl Way {
    pub fn direct(address: impl Into<String>) -> Self {
        Self::Direct { address: address.into() }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { address } => write!(f, "{address}"),
            Self::Relayed => write!(f, "over the host"),
        }
    }
}

/// An agent introduces itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    pub version: ProtocolVersion,
    /// The phone's name: a DNS label, as Kubernetes names are.
    pub phone: String,
    pub agent_version: String,
    /// Where the previous stage of a ring dials this phone.
    pub ring_address: String,
    pub capacity_bytes: u64,
    /// Memory that segments may take.
    pub allocatable_bytes: u64,
    /// Of what a hub of protocol 2.0 takes for all that this phone has: `cpu` or `vulkan`.
    pub backend: String,
    pub device: String,
    /// Of the same: backend and arithmetic, the first part of a numerics class: `cpu-f32-r1`.
    pub numerics: String,
    /// Measured speeds of every class that segments can be opened in.
    pub speeds: Vec<Speed>,
    /// The types in which keys and values can be kept, by the names that classes have for them. An agent of protocol 2.0 does not say, and
    /// keeps f32.
    #[serde(default)]
    pub kv_caches: Vec<String>,
    /// Where `/metrics` is scraped, as `IP:PORT`; empty when the agent shows none.
    #[serde(default)]
    pub metrics_address: String,
    /// Tells this life of the agent from the ones before it; empty where an agent does not say.
    #[serde(default)]
    pub instance: String,
    #[serde(default)]
    pub hardware: Hardware,
}

/// What a phone is, as its maker names it; for people. Absent where the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hardware {
    pub model: Option<String>,
    pub soc: Option<String>,
    /// The system and its release.
    pub system: Option<String>,
}

/// A measured matrix-vector product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    pub backend: String,
    pub device: String,
    /// The first part of a numerics class; empty of an agent of protocol 2.0, which has one class.
    #[serde(default)]
    pub numerics: String,
    /// 10^9 floating-point operations a second; a multiply-add counts as two.
    pub gflops: f64,
    /// The same with four rows of activations at once, which share the reading of weights. 0 where that was not measured.
    #[serde(default)]
    pub batch_gflops: f64,
    /// The same with as many rows as a chunk of a prompt has. 0 where that was not measured.
    #[serde(default)]
    pub prefill_gflops: f64,
    /// 10^9 bytes of weights read a second, where no cache holds them.
    pub gigabytes_per_second: f64,
}

// === impl Speed ===

impl Speed {
    /// Backend and arithmetic for people, such as `cpu-int8`; the backend alone where nothing more is known.
    pub fn title(&self) -> String {
        match self.numerics.split('-').nth(1) {
            Some(arithmetic) => format!("{}-{arithmetic}", self.backend),
            None => self.backend.clone(),
        }
    }
}

/// The hub takes the agent in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    pub version: ProtocolVersion,
    /// Base URL of manifests and weights, over TLS. A host of `0.0.0.0` or `[::]` means the address that the agent dialled.
    pub weights_url: String,
    pub heartbeat_seconds: f64,
    /// The hub's time, in seconds of Unix: certificates are judged by it.
    pub time_seconds: u64,
}

/// Watts by which a machine takes more while it computes: less is its gauge's noise, and no work's.
pub const LEAST_ACTIVE_WATTS: f64 = 0.05;

/// What an agent says of itself again and again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    pub battery_percent: Option<u8>,
    pub charging: Option<bool>,
    pub temperature_celsius: Option<f64>,
    /// All segments that the agent knows, in any phase.
    pub segments: Vec<SegmentReport>,
    /// Measured links to peers.
    pub links: Vec<LinkReport>,
    /// Peers that could not be reached for some seconds, and still cannot.
    #[serde(default)]
    pub links_down: Vec<LinkDown>,
    /// Backends that the agent does not use, for they failed: all others have given known answers. An agent of before asks for none, and
    /// does not say.
    #[serde(default)]
    pub faults: Option<Vec<BackendFault>>,
    /// Why the phone wants no segments now, by its own policy or its person's word: it is to be left soon. Absent: it takes part.
    #[serde(default)]
    pub withdrawal: Option<Withdrawal>,
    /// Watts by which the phone takes more out of its battery while it computes, at least [`LEAST_ACTIVE_WATTS`]; absent until work and rest were
    /// seen while it discharged, and from an agent of before.
    #[serde(default)]
    pub active_watts: Option<f64>,
    /// What segments may take together now: less than the join said for a while after the system was short of memory. Absent from an agent of
    /// before.
    #[serde(default)]
    pub allocatable_bytes: Option<u64>,
}

/// A phone that takes no part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Withdrawal {
    pub reason: WithdrawalReason,
    /// Why, for people.
    pub message: String,
}

/// Why a phone takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WithdrawalReason {
    /// Its person wants it for something else.
    Paused,
    /// Its agent ends.
    Leaving,
    BatteryLow,
    TooHot,
    /// Its system is about to end programs.
    MemoryLow,
    /// One of a later protocol.
    #[serde(other)]
    Other,
}

/// A backend that computes wrongly, does not answer, or is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendFault {
    /// `cpu`, `vulkan` or `mixed`.
    pub backend: String,
    /// Empty where it has not come so far as to say.
    pub device: String,
    /// The first part of a numerics class; empty as the device.
    pub numerics: String,
    /// Why, for people.
    pub reason: String,
}

/// A peer to which no connection comes about, though it may be alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkDown {
    pub peer: String,
    /// Why, for people.
    pub reason: String,
}

/// The round trip to a peer of a ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkReport {
    pub peer: String,
    pub round_trip_seconds: f64,
    /// What the link carries, when probed.
    #[serde(default)]
    pub bytes_per_second: Option<f64>,
    /// Whether that is the way over the hub, for there is no direct one.
    #[serde(default)]
    pub is_relayed: bool,
}

/// The state of one segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    pub namespace: String,
    /// Name of the SegmentPlacement.
    pub name: String,
    pub phase: SegmentPhase,
    pub bytes_loaded: u64,
    pub bytes_total: u64,
    /// Median decode time of one layer, when measured.
    pub seconds_per_layer: Option<f64>,
    /// Layers that the timed steps went through; 0 when nothing is measured.
    #[serde(default)]
    pub layers_timed: u32,
    /// Median prefill time of one layer, divided by the tokens of the chunk, when measured.
    #[serde(default)]
    pub prefill_seconds_per_layer_per_token: Option<f64>,
    /// Median decode time of what is not a layer: embedding, output matrix, sampling, frames.
    #[serde(default)]
    pub seconds_besides_layers: Option<f64>,
    /// Token rows that wait to be computed.
    #[serde(default)]
    pub queued_rows: u32,
    /// Sessions whose KV cache is here.
    pub sessions: u32,
    /// Why the phase is what it is; for a failure cause, place and remedy.
    pub message: Option<String>,
}

/// The life of a segment on a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SegmentPhase {
    /// Weights are being fetched and checked.
    Loading,
    /// Loaded, but a neighbour is not connected yet.
    Connecting,
    /// Loaded and connected.
    Ready,
    Failed,
}

/// One segment that this phone is to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    pub namespace: String,
    /// Name of the SegmentPlacement.
    pub name: String,
    pub ring: RingId,
    pub generation: PlanGeneration,
    /// Digest of the whole plan: stages of one ring have it in common.
    #[serde(default)]
    pub plan_digest: String,
    pub stage: u32,
    pub holds: Holds,
    /// Every stage of the ring in order, this one included.
    pub peers: Vec<Peer>,
    /// The manifest to fetch; its SHA-256 must be this.
    pub manifest_digest: String,
    /// Tokens of one session.
    pub context_length: u32,
    pub max_sessions: u32,
    /// Groups in which `max_sessions` sessions go around the ring; 0: as many as there are stages.
    #[serde(default)]
    pub session_groups: u32,
    pub activation_type: ActivationType,
    pub numerics_class: String,
    /// Layers kept in memory, those of `holds` included, so that a later plan can give them to this phone at once.
    #[serde(default)]
    pub standby: Option<LayerSpan>,
    /// The generation that this one replaces while sessions run on it: its KV cache can be fetched from these.
    #[serde(default)]
    pub follows: Option<Followed>,
    /// The phones of generations that follow this one: they may fetch its KV cache in their layers, and nobody else.
    #[serde(default)]
    pub successors: Vec<Successor>,
    /// Where the halves of an encoder–decoder model meet in this ring; absent for other models.
    #[serde(default)]
    pub encoder: Option<EncoderStages>,
}

/// The stages at which an encoder ends and decoding begins: the same one, or one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EncoderStages {
    /// The stage with the encoder's last layer.
    pub last: u32,
    /// The first stage with layers of the decoder.
    pub first_decoder: u32,
}

/// Consecutive layers: `[from, to)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerSpan {
    /// First layer.
    pub from: u32,
    /// One past the last layer.
    pub to: u32,
}

/// A generation whose sessions move to the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Followed {
    pub generation: PlanGeneration,
    /// Its stages in order, with their layers.
    pub owners: Vec<Owner>,
}

/// A phone that goes on with sessions of the generation before, in layers of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Successor {
    pub phone: String,
    /// The digest of its key; empty where no Phone records one.
    pub key: String,
    /// The layers that it goes on with: the cache of no other is for it.
    pub layers: LayerSpan,
}

/// Who holds which layers of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub phone: String,
    /// None while the phone is not connected.
    pub ways: Vec<Way>,
    /// The digest of its key; empty where no Phone records one, and nobody is taken for it then.
    pub key: String,
    pub layers: LayerSpan,
}

/// What a segment holds of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holds {
    pub embedding: bool,
    /// First layer.
    pub from: u32,
    /// One past the last layer.
    pub to: u32,
    pub head: bool,
}

/// A stage of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    pub stage: u32,
    pub phone: String,
    /// None while the phone is not connected.
    pub ways: Vec<Way>,
    /// The digest of its key; empty where no Phone records one, and nobody is taken for it then.
    pub key: String,
    /// The layers that it runs; absent where a hub does not say.
    #[serde(default)]
    pub layers: Option<LayerSpan>,
}
