//! Phone: a device that can hold segments. Cluster-scoped, like a Node.

// The derive's columns are one attribute each, and share keys such as `type_`.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::numerics::KvCache;

/// What a person says of a phone. The agent creates the object when it joins; its spec is yours to edit.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "polyphony.dev",
    version = "v1alpha1",
    kind = "Phone",
    doc = "A device that runs an agent and can hold segments of models.",
    derive = "PartialEq",
    shortname = "ph",
    category = "polyphony",
    status = "PhoneStatus",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the phone takes segments"
    ),
    printcolumn(
        name = "Backend",
        type_ = "string",
        json_path = ".status.backend",
        description = "What its layers run on"
    ),
    printcolumn(
        name = "Memory",
        type_ = "string",
        json_path = ".status.allocatable.memory",
        description = "Memory for segments"
    ),
    printcolumn(
        name = "Battery",
        type_ = "integer",
        json_path = ".status.batteryPercent",
        description = "Charge in percent"
    ),
    printcolumn(
        name = "Temp",
        type_ = "number",
        json_path = ".status.temperatureCelsius",
        description = "Temperature in Celsius"
    ),
    printcolumn(
        name = "Watts",
        type_ = "number",
        json_path = ".status.activeWatts",
        description = "What computing takes out of the battery",
        priority = "1"
    ),
    printcolumn(
        name = "Faulty",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"BackendFaulty\")].status",
        description = "Whether a backend is set aside, for it computes wrongly or not at all",
        priority = "1"
    ),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.device", priority = "1"),
    printcolumn(
        name = "Gflop/s",
        type_ = "string",
        json_path = ".status.speeds",
        description = "Measured speed of each backend",
        priority = "1"
    ),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.ringAddress", priority = "1"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    ),
    printcolumn(
        name = "Cordoned",
        type_ = "boolean",
        json_path = ".spec.unschedulable",
        description = "Whether new segments are kept away",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct PhoneSpec {
    /// True keeps new segments away, as `kubectl cordon` does for a node.
    #[serde(default)]
    pub unschedulable: bool,
    /// True moves what the phone holds to others and keeps new segments away, as `kubectl drain` does for a node.
    /// A plan goes when its successor is ready; where the others cannot hold a deployment, its segment stays.
    #[serde(default)]
    pub drain: bool,
    /// The most memory that segments may take, such as `80Mi`. The agent's own limit holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"))]
    pub max_memory: Option<String>,
    /// Below this charge the phone is drained: its layers move to others. It is taken again 5 points above. A deployment whose
    /// `placement.powerPolicy` names a limit of its own goes by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_battery_percent: Option<u8>,
}

/// What the agent reports of its phone, and what the controller knows it by.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhoneStatus {
    /// The device that this name belongs to: `sha256:` and the digest of its public key. It is recorded when the device joins, and its
    /// certificate is good only as long as it stands here: to delete the Phone is to shut the device out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub public_key: Option<String>,
    /// The agent's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// What the phone is, as its maker names it; absent where its system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// Of its classes, the backend of the one that a controller of protocol 2.0 goes by: `cpu` or `vulkan`. `backends` has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Backend and arithmetic of the same class, with its revision. Rings are made of phones that have one in common: `backends` has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// The device behind that backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where the previous stage of a ring dials this phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_address: Option<String>,
    /// Where Prometheus scrapes the agent, as `IP:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<String>,
    /// All memory of the phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Memory>,
    /// Memory that segments may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Memory>,
    /// Measured speeds, one entry a class: a backend in one arithmetic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendSpeed>,
    /// The types in which its agent can keep keys and values. Absent: an agent of before, which keeps `F32` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kv_caches: Vec<KvCache>,
    /// The speeds for people, such as `cpu-f32 25.60, cpu-int8 60.10`: 10^9 operations a second of each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speeds: Option<String>,
    /// When the measurements here and in its placements were written last. They are at most every 30 seconds, and only when one has
    /// moved by a step: a charge by 5 %, a temperature by 2 °C, a layer's time by 10 %, active watts by a fifth, a link's bandwidth by a
    /// quarter or its round trip by half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_measured_time: Option<Time>,
    /// Measured times of the models that it held of late, the newest first; they count for a plan while they are fresh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_times: Vec<LayerTime>,
    /// Measured links to other phones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// What has failed here, at most 16 entries: plans go around it for a while that grows with each failure. An entry goes when the same
    /// succeeds, when the agent is started anew, or with `polyctl phone forgive`. Phones that leave often count as slower.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub failures: Vec<Failure>,
    /// The agent's present life, as it named it when it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_instance: Option<String>,
    /// Charge in percent; absent on a device without a battery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery_percent: Option<u8>,
    /// Whether the battery is being charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charging: Option<bool>,
    /// Temperature of its shell in Celsius, or else of its battery; absent where the system tells neither. Chips are hot whenever they work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
    /// Watts by which the phone takes more out of its battery while it computes than while it does not, for all that it does. Measured while it
    /// discharges, in turns of work and rest; absent where nobody has seen both, and where its system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_watts: Option<f64>,
    /// `Ready`, `Reachable`, `ThermalPressure`, `BatteryLow`, `BackendFaulty`, `Withdrawn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    pub conditions: Vec<Condition>,
}

/// What a phone is, in its maker's words.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// Maker and model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The system on its chip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soc: Option<String>,
    /// The operating system and its release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// An amount of memory, as a Kubernetes quantity.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Bytes, such as `112Mi`.
    pub memory: String,
}

/// How fast a backend was measured to be on this phone, in one arithmetic.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpeed {
    /// `cpu`, `vulkan`, or `mixed`: the processor decodes and the GPU reads prompts.
    pub name: String,
    /// The device behind it.
    pub device: String,
    /// Backend and arithmetic with its revision, and of a GPU its device and driver: the first part of a numerics class. Absent: an agent of
    /// before, whose one class is the `numerics` of the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// 10^9 floating-point operations a second in a matrix-vector product (a multiply-add counts as two).
    pub gflops: f64,
    /// The same with four rows at once, as of four sessions: what each further one costs follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_gflops: Option<f64>,
    /// The same with as many rows as a chunk of a prompt has: how fast prompts are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_gflops: Option<f64>,
    /// 10^9 bytes of weights a second that such a product reads where no cache holds them.
    pub gigabytes_per_second: f64,
    /// Whether it gives known answers: a tiny layer and products whose values are known. It is asked when the agent starts, when a segment is
    /// loaded, and each minute in which it computes. False: no plan uses it until the agent is started anew. Absent: the agent does not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// Why it is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How long one layer of a model took on this phone.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerTime {
    /// Digest of the model's manifest.
    pub manifest_digest: String,
    /// What it was computed in: the first part of a numerics class. Absent: measured before this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// One token through one layer in decode.
    pub milliseconds_per_layer: f64,
    /// The least that it ever was: the phone when it is cool and has nothing else to do.
    pub fastest_milliseconds_per_layer: f64,
    /// Layers that a step went through when it was measured. A phone that runs few is faster than one that runs many, so a
    /// later time of far fewer layers does not replace a longer one.
    #[serde(default)]
    pub layers: u32,
    /// Unix time of the last measurement that changed it, in seconds.
    pub at_seconds: i64,
}

/// Something that failed on this phone: a model that it could not load, a link to a peer, or the phone itself, when it names neither.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The other Phone, of a link that could not be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Digest of the model's manifest, of segments that could not be loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// In which way it failed.
    pub reason: FailureReason,
    /// The agent's own words of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Failures in a row; of departures those of late, since one is forgotten with each hour in which the phone stays.
    pub count: u32,
    /// When it failed last.
    pub last_failure_time: Time,
}

/// The ways in which a phone fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum FailureReason {
    /// A segment could not be loaded, or no longer computed.
    LoadFailed,
    /// The agent's link ended while it loaded a segment. This outlives the agent's next start.
    EndedInLoad,
    /// No connection to the peer came about.
    LinkDown,
    /// The phone left: its link to the controller ended, or it was silent beyond the grace period. This outlives the agent's next start.
    Left,
}

/// A measured link from this phone to a peer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The name of the other Phone.
    pub peer: String,
    /// Time for a message there and back.
    pub round_trip_milliseconds: f64,
    /// What the link carries, in 10^6 bits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megabits_per_second: Option<f64>,
    /// Whether it leads over the hub, for the peer cannot be dialled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relayed: bool,
}
