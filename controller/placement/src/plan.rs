//! The plan: which phone holds what, in ring order, and what the planner expects of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One replica's placement. It leaves no choice to whoever carries it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// In ring order: the first is the head (embedding), the last is the tail (output). One stage is both.
    pub stages: Vec<Stage>,
    /// The value of the objective, in seconds: `predicted_inter_token_seconds` for Latency; for Throughput the
    /// time between two tokens of any session, the largest of the slowest stage, the slowest hop's time on
    /// the wire, and the ring's time shared by `max_sessions`. For Efficiency the joules of a token, weighted by phone. With what the demand's
    /// prompt adds to it.
    pub objective_value: f64,
    /// All sessions together, with one session in flight for Latency and Efficiency and `max_sessions` for Throughput, whatever
    /// their prompts take: 1 ÷ `objective_value` where no prompt counts, and no joule.
    pub predicted_tokens_per_second: f64,
    /// One session: once around the ring, the token's way back to the head included.
    pub predicted_inter_token_seconds: f64,
    /// Efficiency: joules that a token takes out of all phones, none weighted, without its prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_joules_per_token: Option<f64>,
    /// Groups in which `max_sessions` sessions are best sent around the ring, whatever the objective.
    pub session_groups: u32,
    pub bound: Bound,
    /// How far the objective may be above the best possible, relative to the latter; 0 when proven best.
    pub gap: f64,
    pub method: Method,
    /// Phones that hold nothing, in the problem's order.
    pub left_out: Vec<LeftOut>,
}

/// One segment in its place in the ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    pub phone: String,
    pub holds: Holds,
    /// Weights, KV cache of all sessions, and activations: one generation.
    pub bytes: u64,
    /// Layers `[from, to)` that the phone keeps ready, those of `holds` included, so that a later plan can give
    /// them to it without moving weights. None where nothing stands by.
    #[serde(default)]
    pub standby: Option<(u32, u32)>,
    /// Weights and KV cache of the layers that stand by beyond those of `holds`; not in `bytes`.
    #[serde(default)]
    pub standby_bytes: u64,
    /// Decode: one token through this stage.
    pub predicted_seconds: f64,
    /// From the end of this stage to the start of the next: the hidden state's hop or, at the tail, the
    /// token's way to the head. 0 when the ring is one phone.
    pub predicted_hop_seconds: f64,
    /// Efficiency: joules of that token here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_joules: Option<f64>,
    /// The phone's watts are not known: those joules follow from what others take.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub are_watts_assumed: bool,
}

/// What a segment holds of the model: layers `[layers_from, layers_to)` and perhaps an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holds {
    pub embedding: bool,
    pub layers_from: u32,
    pub layers_to: u32,
    /// The output norm and matrix.
    pub head: bool,
}

/// What keeps the objective from being better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum Bound {
    /// This phone would take more layers if they fitted.
    Memory { phone: String },
    /// The deployment asks for at least this many phones.
    MinPhones { min_phones: u32 },
    /// This phone's stage takes the longest.
    Stage { phone: String },
    /// The hop between these two takes the longest.
    Hop { from: String, to: String },
    /// Too few sessions to keep every stage busy.
    Sessions { max_sessions: u32 },
    /// What takes fewer joules is slower than is asked for.
    Floor { min_tokens_per_second: f64 },
    /// This phone's stage takes the most joules, as they count.
    Joules { phone: String },
}

/// How the plan was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// No plan is better: the integer linear programme was solved to its end, or the objective meets a bound.
    Exact,
    /// Too many phones for an exact answer, or the solver met its limit: the best plan that was found.
    Heuristic,
    /// What a rule of others gives, whatever it is worth here: see [`crate::Strategy`].
    Rule,
}

/// A phone that the plan does not use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    pub phone: String,
    pub why: WhyLeftOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyLeftOut {
    /// A measured time is not a number, not positive, or beyond what can be believed.
    UnusableFigures,
    /// Not even one layer fits.
    TooLittleMemory,
    /// All layers see text, and are for trusted phones.
    NotTrusted,
    /// The ring is no better with it.
    NoGain,
}

// === impl Plan ===

impl Plan {
    /// The stage that `phone` holds, if any.
    pub fn stage_of(&self, phone: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.phone == phone)
    }

    /// "a 0..4, b 4..10": phones and their layers in ring order.
    pub fn placed(&self) -> String {
        let stage = |stage: &Stage| format!("{} {}..{}", stage.phone, stage.holds.layers_from, stage.holds.layers_to);
        self.stages.iter().map(stage).collect::<Vec<_>>().join(", ")
    }

    /// True when a rule of others made it, not the planner.
    pub fn is_by_rule(&self) -> bool {
        self.method == Method::Rule
    }

    /// True when both place the same layers on the same phones in the same order, whatever they predict.
    pub fn places_like(&self, other: &Plan) -> bool {
        self.stages.len() == other.stages.len()
            && self.stages.iter().zip(&other.stages).all(|(a, b)| a.phone == b.phone && a.holds == b.holds)
    }
}

// === impl Holds ===

impl Holds {
    pub fn n_layers(&self) -> u32 {
        self.layers_to.saturating_sub(self.layers_from)
    }
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.embedding {
            f.write_str("embedding + ")?;
        }
        write!(f, "layers {}..{}", self.layers_from, self.layers_to)?;
        if self.head {
            f.write_str(" + head")?;
        }
        Ok(())
    }
}

// === impl Bound ===

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Memory { phone } => write!(f, "memory of {phone}"),
            Bound::MinPhones { min_phones } => {
                write!(f, "at least {min_phones} phones are asked for")
            }
            Bound::Stage { phone } => write!(f, "speed of {phone}"),
            Bound::Hop { from, to } => write!(f, "link from {from} to {to}"),
            Bound::Sessions { max_sessions } => write!(f, "only {max_sessions} sessions in flight"),
            Bound::Floor { min_tokens_per_second } => {
                write!(f, "at least {min_tokens_per_second} tokens/s are asked for")
            }
            Bound::Joules { phone } => write!(f, "energy of {phone}"),
        }
    }
}

impl fmt::Display for WhyLeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhyLeftOut::UnusableFigures => "a measured time of it cannot be true",
            WhyLeftOut::TooLittleMemory => "not even one layer fits",
            WhyLeftOut::NotTrusted => "all layers of the model see text and are for trusted phones",
            WhyLeftOut::NoGain => "the ring is no better with it",
        })
    }
}
