//! InferenceDeployment: a model that people want to talk to, and how it may be spread.

// The derive's columns are one attribute each, and share keys such as `type_`.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::numerics::ActivationType;
use crate::numerics::Numerics;

/// What a person wants to run.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "polyphony.dev",
    version = "v1alpha1",
    kind = "InferenceDeployment",
    doc = "A model, run over phones that together can hold it, behind an OpenAI-compatible endpoint.",
    // Objects from before the rule, which have a status, stay as they are.
    validation = Rule::new("size(self.metadata.name) <= 63 || has(self.status)").message("the name is over 63 characters, which a label cannot hold: choose a shorter one"),
    namespaced,
    derive = "PartialEq",
    shortname = "infer",
    category = "polyphony",
    category = "all",
    status = "InferenceDeploymentStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Replicas that answer"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas", description = "Replicas wanted"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(
        name = "Phones",
        type_ = "integer",
        json_path = ".status.phones",
        description = "Phones that hold a segment"
    ),
    printcolumn(
        name = "Tok/s",
        type_ = "string",
        json_path = ".status.tokensPerSecond",
        description = "Decode speed: measured, else predicted"
    ),
    printcolumn(name = "Url", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".status.planGeneration", priority = "1"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Available\")].reason",
        priority = "1"
    )
)]
#[x_kube(validation = Rule::new("!has(self.minTokensPerSecond) || (has(self.objective) && self.objective == 'Efficiency')").message("minTokensPerSecond is the floor of the objective Efficiency: write that objective, or leave the floor out"))]
pub struct InferenceDeploymentSpec {
    /// Name of a Model in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
    /// How many independent copies of the model answer. Each takes phones of its own.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: u32,
    /// The most tokens of prompt and answer together in one session.
    #[serde(default = "default_context_length")]
    #[schemars(range(min = 16, max = 1_048_576))]
    pub context_length: u32,
    /// Sessions that one replica holds at a time; more wait in the gateway.
    #[serde(default = "default_max_sessions")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_sessions: u32,
    /// What the planner optimises. `Latency`: the time from one token of a session to the next, so the sum of stages and hops.
    /// `Throughput`: tokens a second of all sessions together, so the slowest stage or hop. `Efficiency`: the joules that a token takes out of
    /// the phones' batteries, at no less than `minTokensPerSecond`.
    #[serde(default)]
    pub objective: Objective,
    /// With the objective `Efficiency`: tokens a second that one session gets at least, by what is measured, such as `5` or `0.5`. Where no
    /// plan is as fast there is none, and the condition says how fast the fastest is. A plan that serves and has become too slow is left for
    /// one that is fast enough, unless `loadBalancing` is off. Left out, any speed will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 1_000_000.0))]
    pub min_tokens_per_second: Option<f64>,
    /// Tokens of a typical prompt. Where it is given, the time to first token counts beside `objective`: plans are chosen, backends too, by
    /// what an answer of 128 tokens takes together with reading its prompt. Left out, prompts count for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub prompt_tokens: Option<u32>,
    /// How much the time to first token counts where `promptTokens` is given: 1, the default, for what it takes, 2 for twice that, 0 for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub time_to_first_token_weight: Option<f64>,
    /// Which phones, and how many.
    #[serde(default)]
    pub placement: Placement,
    /// Whether and when layers move between phones while the deployment serves.
    #[serde(default)]
    pub load_balancing: LoadBalancing,
    /// What the model computes in: arithmetic, hidden states, KV cache.
    #[serde(default)]
    pub numerics: Numerics,
    /// Deprecated: write `numerics.activationType` instead, which counts where both are there.
    #[serde(default)]
    pub transport: Transport,
    /// Where phones are short, deployments of a higher priority are planned first. A plan that serves already is never
    /// taken away for one of a higher priority.
    #[serde(default)]
    pub priority: i32,
}

fn one() -> u32 {
    1
}
fn default_context_length() -> u32 {
    2048
}
fn default_max_sessions() -> u32 {
    4
}

/// What the planner optimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Objective {
    /// The time from one token of a session to the next: the sum of stages and hops.
    #[default]
    Latency,
    /// Tokens a second of all sessions together: the slowest stage or hop.
    Throughput,
    /// The joules of a token: each stage's time by its phone's watts, among plans that are as fast as is asked for.
    Efficiency,
}

/// Which phones may hold segments.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.selector) || !has(self.phoneSelector) || size(self.phoneSelector) == 0").message("selector and phoneSelector exclude each other: write selector alone"))]
pub struct Placement {
    /// Which phones may hold segments, by their labels, as Kubernetes selects pods: `matchLabels` and `matchExpressions`, all
    /// of which must hold. Absent or empty means every phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::selector::schema")]
    pub selector: Option<LabelSelector>,
    /// Deprecated: write `selector.matchLabels` instead. Labels that a Phone must carry, each with that value; empty means
    /// every phone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phone_selector: BTreeMap<String, String>,
    /// Which phones may see text, by their labels: embedding, output matrix, the first layer and the last are on these alone, and what
    /// stands by too. Phones between them see hidden states. Absent or empty means every phone. Labels under `trust.polyphony.dev/`
    /// are meant for it: an admin gives them to a phone, or the token that it joined by; an agent gives itself none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::selector::schema")]
    pub trusted_phones: Option<LabelSelector>,
    /// The fewest phones to spread over.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub min_phones: u32,
    /// The most phones to spread over; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_phones: Option<u32>,
    /// The share of a phone's allocatable memory that segments may take.
    #[serde(default = "default_memory_fraction")]
    #[schemars(range(min = 0.05, max = 1.0))]
    pub memory_fraction: f64,
    /// How layers are divided among phones. `Optimal` is what you want; the others do what other systems do, so that they
    /// can be compared on your phones.
    #[serde(default)]
    pub strategy: Strategy,
    /// Whether a phone of this deployment may hold segments of other deployments too. Two deployments share a phone only
    /// when both allow it.
    #[serde(default = "yes")]
    pub allow_sharing: bool,
    /// Plan as though the other deployments on a phone were idle: for those that are seldom asked at the same time. A phone that
    /// serves *n* others counts as *n* + 1 times as slow otherwise. The memory of others counts always. A changed value counts
    /// from the next plan on.
    #[serde(default)]
    pub assume_others_idle: bool,
    /// Which state of battery and heat a phone must be in to hold segments. A phone that leaves it is drained: its
    /// layers move to others while streams go on.
    #[serde(default)]
    pub power_policy: PowerPolicy,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            selector: None,
            phone_selector: BTreeMap::new(),
            trusted_phones: None,
            min_phones: 1,
            max_phones: None,
            memory_fraction: default_memory_fraction(),
            strategy: Strategy::default(),
            allow_sharing: true,
            assume_others_idle: false,
            power_policy: PowerPolicy::default(),
        }
    }
}

fn yes() -> bool {
    true
}

/// How layers are divided among phones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Strategy {
    /// Best by the objective over measured times of phones and links, within memory; phones that slow the ring are left out.
    #[default]
    Optimal,
    /// As many layers on every phone.
    EqualSplit,
    /// Layers in proportion to free memory, as llama.cpp and exo divide them.
    MemoryProportional,
    /// The least time of the slowest phone, links not counted, as mesh-llm divides them.
    MinMax,
    /// The published programme of LinguaLinked (ACL 2024) on the same measurements; it begins at the first phone by name.
    LinguaLinked,
    /// The same, begun on whichever phone makes it best.
    LinguaLinkedBestFirst,
}

/// Which state of battery and heat a phone must be in. What a phone cannot measure is not held against it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PowerPolicy {
    /// True takes only phones that are being charged, and those without a battery.
    #[serde(default)]
    pub charging_only: bool,
    /// Below this charge a phone is drained; it is taken again 5 points above. It stands in place of the Phone's own limit,
    /// whether that is higher or lower. Absent: the limit of the Phone itself, or 15 while it is not being charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_battery_percent: Option<u8>,
    /// At this temperature a phone is drained; it is taken again 3 °C below. Absent: 45 °C. A higher one holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 150.0))]
    pub max_temperature_celsius: Option<f64>,
}

/// Whether and when layers move between phones while the deployment serves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// False leaves a plan as it is for as long as its phones are there.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// A move must promise at least this many percent more tokens/s, measured times against measured times; with the objective `Efficiency`
    /// as many more tokens of a joule.
    #[serde(default = "default_minimum_gain")]
    #[schemars(range(min = 1, max = 1000))]
    pub minimum_gain_percent: u32,
    /// After a plan was made, the next move waits at least this long.
    #[serde(default = "default_cool_down")]
    #[schemars(range(min = 1, max = 86_400))]
    pub cool_down_seconds: u32,
    /// Whether phones keep layers of their neighbours in memory that is left over, so that those can move without
    /// fetching weights. Costs memory only.
    #[serde(default = "yes")]
    pub overlap: bool,
    /// Who moves layers. `Optimal` is what you want; `LinguaLinked` is the published balancer, so that it can be compared on
    /// your phones.
    #[serde(default)]
    pub strategy: BalancingStrategy,
}

/// Who moves layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum BalancingStrategy {
    /// Whatever plan pays by measured times; sessions move with their KV cache, in the middle of an answer.
    #[default]
    Optimal,
    /// The balancer published with LinguaLinked (ACL 2024): the slowest stage gives one layer that stands by to its faster
    /// neighbour, and only answers that begin afterwards notice. It acts where `placement.strategy` is `Optimal` or
    /// `LinguaLinked`, and always under the latter.
    LinguaLinked,
}

impl Default for LoadBalancing {
    fn default() -> Self {
        Self {
            enabled: true,
            minimum_gain_percent: default_minimum_gain(),
            cool_down_seconds: default_cool_down(),
            overlap: true,
            strategy: BalancingStrategy::default(),
        }
    }
}

fn default_minimum_gain() -> u32 {
    10
}

fn default_cool_down() -> u32 {
    30
}

fn default_memory_fraction() -> f64 {
    0.9
}

// === impl InferenceDeploymentSpec ===

impl InferenceDeploymentSpec {
    /// The type of hidden states: of the field of now, else of that of before. Objects that were stored by an older API have the latter,
    /// whether anybody wrote it or not.
    pub fn activation_type(&self) -> ActivationType {
        self.numerics.activation_type.or(self.transport.activation_type).unwrap_or_default()
    }
}

/// How hidden states travel from phone to phone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// Deprecated: write `numerics.activationType` instead, which means the same, and counts where both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_type: Option<ActivationType>,
}

/// What runs now.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceDeploymentStatus {
    /// The `metadata.generation` that this status answers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Replicas that have a plan.
    #[serde(default)]
    pub replicas: u32,
    /// Replicas whose every segment is ready.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Selects the placements of this deployment, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The newest plan generation of any replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_generation: Option<u64>,
    /// Phones that hold a segment of the serving plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phones: Option<u32>,
    /// Base URL of the OpenAI-compatible endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the planner expects of one session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_tokens_per_second: Option<f64>,
    /// What one session was measured to get of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_tokens_per_second: Option<f64>,
    /// What the planner expects from a prompt to its first answer token: one of `promptTokens`, or of 512 where the deployment does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_seconds: Option<f64>,
    /// How the newest plan came about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
    /// Measured decode speed of one session, else the prediction with a `~` before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<String>,
    /// `Ready`, `Available`, `Progressing`, `Degraded`, `Balanced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    pub conditions: Vec<Condition>,
}

/// How a plan came about.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanSummary {
    /// The plan generation that this says something of.
    pub generation: u64,
    /// SHA-256 over the specs of its segments. Written when all of them are: phones take up no plan before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The strategy that divided the layers.
    pub strategy: Strategy,
    /// `Exact`: no plan is better by what was measured. `Heuristic`: the best that was found.
    pub method: String,
    /// How much better the best plan may be at most, in percent; 0 when none is better.
    pub gap_percent: f64,
    /// What keeps the plan from being faster, such as `speed of phone-2`, or from taking less where that is the objective.
    pub limited_by: String,
    /// With the objective `Efficiency`: joules that a token is expected to take out of all phones together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_per_token: Option<f64>,
}
