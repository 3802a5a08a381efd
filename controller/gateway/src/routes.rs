//! What the controller tells the gateway: which deployments there are, on which rings, over which phones. Plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use polyphony_protocol::{Frame, PlanGeneration, RingId};

/// Every deployment by the model id that clients name: the deployment's name, or `namespace/name` outside `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    pub deployments: BTreeMap<String, DeploymentRoute>,
}

/// One deployment as clients meet it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentRoute {
    pub namespace: String,
    pub name: String,
    /// Unix time of the object's creation.
    pub created_seconds: i64,
    /// The host's verified GGUF file, for tokenizer and chat template; `None` until it is resolved.
    pub model_path: Option<PathBuf>,
    /// Names the content of the file that all of `rings` run: tokenizers are cached by it, and no session goes on with another.
    pub manifest_digest: String,
    /// Tokens of prompt and answer that one session may have, on any of `rings`.
    pub context_length: u32,
    /// Sessions that each ring holds at a time, at least.
    pub max_sessions: u32,
    /// Only rings whose every segment is ready; the newest generation of each replica.
    pub rings: Vec<RingRoute>,
    /// Whether a plan is on its way onto phones, or is about to be decided: without a ring, who comes may wait for one.
    pub is_planned: bool,
    /// Why nothing can be asked, in words that a 503 shows: no ring is ready, or what one runs cannot be turned into text.
    pub unavailable_reason: Option<String>,
}

/// One replica that can take sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingRoute {
    pub ring: RingId,
    pub replica: u32,
    pub generation: PlanGeneration,
    /// Names by stage: the first is the head, the last the tail.
    pub phones: Vec<String>,
    pub numerics_class: String,
    /// The generation before, whose sessions hold their part of what this one has room for; `None` where they do not.
    pub follows: Option<PlanGeneration>,
    /// Whether the sessions of the generation before move here with their KV cache, or end where they are.
    pub moves_sessions: bool,
}

// === impl RouteTable ===

impl RouteTable {
    /// The ring that the sessions of `ring` are to move to.
    pub(crate) fn successor(&self, model: &str, ring: &RingRoute) -> Option<&RingRoute> {
        let follows = |next: &&RingRoute| {
            next.ring == ring.ring
                && next.moves_sessions
                && next.follows == Some(ring.generation)
                && !next.phones.is_empty()
        };
        self.deployments.get(model)?.rings.iter().find(follows)
    }
}

// === impl DeploymentRoute ===

impl DeploymentRoute {
    pub(crate) fn is_ready(&self) -> bool {
        !self.rings.is_empty() && self.unavailable_reason.is_none()
    }
}

// === impl RingRoute ===

impl RingRoute {
    /// The first stage's phone. Sessions are only placed on rings with phones.
    pub(crate) fn head(&self) -> &str {
        self.phones.first().map_or("", String::as_str)
    }
}

/// The gateway's way to phones: the hub's links. Sending never blocks.
pub trait PhoneLinks: Send + Sync + 'static {
    /// Puts a frame into the queue of a phone's link.
    ///
    /// # Errors
    /// [`Unsent::Gone`] when the phone has no link, [`Unsent::Full`] when its queue is full.
    fn send(&self, phone: &str, frame: Frame) -> Result<(), Unsent>;
}

/// Why a frame did not go out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    #[error("phone {0} has no link to the host")]
    Gone(String),
    #[error("the queue of phone {0} is full: it does not read its link fast enough")]
    Full(String),
}
