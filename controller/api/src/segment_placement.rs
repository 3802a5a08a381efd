//! SegmentPlacement: one segment of one plan on one phone. Like a Pod: made by the controller, never edited.

// The derive's columns are one attribute each, and share keys such as `type_`.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inference_deployment::{ActivationType, Objective, Strategy};

/// What one phone is to hold in one plan generation of one replica. Immutable: a new plan makes new objects, named
/// `<deployment>-<replica>-g<generation>-<stage>`; of a deployment's name over 40 characters the start and a digest.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "polyphony.dev",
    version = "v1alpha1",
    kind = "SegmentPlacement",
    doc = "One segment of one plan on one phone. Made by the controller.",
    namespaced,
    derive = "PartialEq",
    shortname = "seg",
    category = "polyphony",
    category = "all",
    status = "SegmentPlacementStatus",
    selectable = ".spec.phone",
    selectable = ".spec.deployment",
    printcolumn(name = "Phone", type_ = "string", json_path = ".spec.phone"),
    printcolumn(name = "Stage", type_ = "integer", json_path = ".spec.stage"),
    printcolumn(name = "Holds", type_ = "string", json_path = ".spec.holds.summary"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Loaded",
        type_ = "string",
        json_path = ".status.loaded",
        description = "Bytes of weights in memory"
    ),
    printcolumn(
        name = "Ms/layer",
        type_ = "string",
        json_path = ".status.millisecondsPerLayer",
        description = "Measured decode time of one layer"
    ),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".spec.planGeneration", priority = "1"),
    printcolumn(
        name = "Standby",
        type_ = "string",
        json_path = ".spec.standby.summary",
        description = "Layers kept in memory beside its own",
        priority = "1"
    ),
    printcolumn(name = "Numerics", type_ = "string", json_path = ".spec.numericsClass", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a placement is immutable: a new plan makes new placements"))]
pub struct SegmentPlacementSpec {
    /// Name of the InferenceDeployment in the same namespace.
    pub deployment: String,
    /// Name of its Model.
    pub model: String,
    /// The manifest that the phone checks every tensor against.
    pub manifest_digest: String,
    /// The copy of the model that this segment belongs to, counted from 0.
    pub replica: u32,
    /// The plan that this segment belongs to; counts up within the deployment.
    pub plan_generation: u64,
    /// SHA-256 over the specs of all segments of this plan: segments of two plans never make one ring. Absent: made before plans had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Place in the ring: 0 is the head.
    pub stage: u32,
    /// Stages of the whole ring.
    pub stages: u32,
    /// Name of the Phone.
    pub phone: String,
    /// What the segment holds of the model.
    pub holds: Holds,
    /// Layers kept in memory, its own included, so that a later plan can give them to this phone at once. Absent: its own
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Standby>,
    /// The plan generation that this one replaces while it serves: its sessions move here with their KV cache. Absent where
    /// sessions end where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<u64>,
    /// Moves of the load balancer that led here one soon after the other; each makes the next one wait twice as long.
    #[serde(default)]
    pub moves: u32,
    /// How the layers were divided.
    #[serde(default)]
    pub strategy: Strategy,
    /// What the plan was made for. Absent: made before placements said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// Where this segment's output goes.
    pub edges: Vec<Edge>,
    /// The stages among those that this one reaches over the hub, for it cannot dial their phones. The last stage reaches the one that
    /// decoding begins at too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relayed: Vec<RelayedHop>,
    /// Of an encoder–decoder model: so many of its layers are the encoder's, the first ones. The output of the last of these goes straight
    /// to every segment with layers of the decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder_layers: Option<u32>,
    /// Tokens of prompt and answer that one session may have.
    pub context_length: u32,
    /// Sessions held at a time.
    pub max_sessions: u32,
    /// Groups in which `maxSessions` sessions go around the ring; a step of decoding takes one group. 0: as many as there are stages, as
    /// always in a ring with an encoder.
    #[serde(default)]
    pub session_groups: u32,
    /// Type of hidden states on the wire, and the rounding after each layer.
    pub activation_type: ActivationType,
    /// Backend, arithmetic, activation and KV types: within one class results are equal bit by bit.
    pub numerics_class: String,
    /// Memory that the plan gives this segment: weights, KV cache, activations; those of standby layers included.
    pub planned_bytes: u64,
    /// What the planner expects of one decode step here, in microseconds.
    pub predicted_step_microseconds: u64,
    /// The decode time of one layer here that the plan was made with, in microseconds; 0 when it is not known. What is
    /// measured later is held against it.
    #[serde(default)]
    pub planned_layer_microseconds: u64,
}

/// What a segment holds of the model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holds {
    /// The token embedding: true on the head.
    pub embedding: bool,
    /// First layer.
    pub from: u32,
    /// One past the last layer.
    pub to: u32,
    /// The output norm and matrix: true on the tail.
    pub head: bool,
    /// The same for people, such as `embedding+layers 0-13`.
    pub summary: String,
}

impl Holds {
    pub fn new(embedding: bool, from: u32, to: u32, head: bool) -> Self {
        let mut parts = Vec::new();
        if embedding {
            parts.push("embedding".to_owned());
        }
        match to.saturating_sub(from) {
            0 => {}
            1 => parts.push(format!("layer {from}")),
            _ => parts.push(format!("layers {from}-{}", to - 1)),
        }
        if head {
            parts.push("head".to_owned());
        }
        Self { embedding, from, to, head, summary: parts.join("+") }
    }
}

/// Consecutive layers kept in memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standby {
    /// First layer.
    pub from: u32,
    /// One past the last layer.
    pub to: u32,
    /// The same for people, such as `layers 4-17`.
    pub summary: String,
}

impl Standby {
    pub fn new(from: u32, to: u32) -> Self {
        Self { from, to, summary: Holds::new(false, from, to, false).summary }
    }
}

/// Where a segment's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The stage that receives it.
    pub to: u32,
    /// `Sequential`: the hidden state, to the next stage. `Skip`: a value that skips stages.
    pub kind: EdgeKind,
}

/// A hop that goes over the hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayedHop {
    /// The stage that it leads to.
    pub to: u32,
    /// Why the phones do not reach each other without that.
    pub reason: String,
}

/// The kinds of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum EdgeKind {
    /// The hidden state, to the next stage.
    Sequential,
    /// A value that skips stages.
    Skip,
}

/// What the phone says of the segment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SegmentPlacementStatus {
    /// `Pending`: the phone has not taken it up yet. `Loading`: weights are being fetched and checked. `Ready`: loaded and
    /// connected to its neighbours. `Draining`: sessions finish, no new ones come. `Failed`: the phone could not load it, or
    /// is lost.
    #[serde(default)]
    pub phase: Phase,
    /// Bytes of weights that are in memory.
    #[serde(default)]
    pub bytes_loaded: u64,
    /// Bytes of weights that the segment has.
    #[serde(default)]
    pub bytes_total: u64,
    /// The same for people, such as `64 of 64 MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,
    /// Measured, with two decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_per_layer: Option<String>,
    /// Measured prefill time of one layer, divided by the tokens that went through it together, with four decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_milliseconds_per_layer_per_token: Option<String>,
    /// Measured decode time of what is not a layer: embedding, output matrix, sampling, frames; with two decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_besides_layers: Option<String>,
    /// Sessions whose KV cache is in this segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Why the phase is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    pub conditions: Vec<Condition>,
}

/// The life of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Phase {
    /// The phone has not taken it up yet.
    #[default]
    Pending,
    /// Weights are being fetched and checked.
    Loading,
    /// Loaded and connected to its neighbours.
    Ready,
    /// Sessions finish; no new ones come.
    Draining,
    /// The phone could not load it, or is lost.
    Failed,
}
