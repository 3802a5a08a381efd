//! Outcomes: what a round came to for each replica of a deployment; its status is made of them.

use polyphony_api::condition::Statement;
use polyphony_api::inference_deployment::PlanSummary;

/// How one replica is after this round's actions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub replica: u32,
    /// The generation that serves, else the one being loaded.
    pub generation: Option<u64>,
    /// Phones of that generation, by stage.
    pub phones: Vec<String>,
    pub predicted_tokens_per_second: Option<f64>,
    pub is_ready: bool,
    pub text: Text,
    /// What has still to happen: which phones load.
    pub waits_for: Vec<String>,
    /// Why it is not as it should be.
    pub trouble: Option<Trouble>,
    /// How a plan of this round came about, and what a prompt is expected to wait on it.
    pub summary: Option<PlanSummary>,
    pub time_to_first_token_seconds: Option<f64>,
    /// What the balancer says of it; `None` while it is not asked.
    pub balance: Option<Statement>,
}

/// Reason of a deployment that is loaded, and whose text nobody can read.
pub const UNREADABLE: &str = "ModelUnreadable";

/// Whether the gateway can turn text into tokens of the model that a replica runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Text {
    #[default]
    Readable,
    /// The file is looked at, as a rule for a moment.
    Awaited,
    Missing(Trouble),
}

/// A reason for machines, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub reason: String,
    pub message: String,
}
