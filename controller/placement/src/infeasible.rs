//! Why there is no plan: the constraint, the shortfall, and what a person can do.

use serde::{Deserialize, Serialize};

/// No plan exists. The text is for a condition's message, [`Infeasible::reason`] for its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, strum::IntoStaticStr, thiserror::Error)]
pub enum Infeasible {
    #[error("no phone is available: join one, or widen the deployment's phone selector")]
    NoPhones,

    #[error(
        "none of {n_phones} phones can be used, since {example} has no usable figures: wait for its probe to finish, or remove it"
    )]
    NoUsablePhones { n_phones: u32, example: String },

    #[error(
        "layers that see text are for trusted phones, and none of {} is one of spec.placement.trustedPhones: \
         label one that is yours, or widen that selector",
        phones(*n_phones)
    )]
    NoTrustedPhones { n_phones: u32 },

    #[error(
        "layers that see text are for trusted phones, and with {} of these no split fits: \
         trust another phone, or give a trusted one more memory",
        phones(*n_trusted)
    )]
    TrustedPhonesTooSmall { n_trusted: u32 },

    #[error("at least {wanted} phones are asked for and {have} can take part: join more phones, or lower minPhones")]
    TooFewPhones { wanted: u32, have: u32 },

    #[error(
        "at least {wanted} phones are asked for and the model has {n_layers} layers, one for a phone at least: lower minPhones"
    )]
    TooFewLayers { wanted: u32, n_layers: u32 },

    #[error("the deployment's {field} is {value}, expected {expected}: correct it")]
    InvalidDemand { field: String, value: String, expected: String },

    #[error("the model has no layers: choose a file with at least one")]
    NoLayers,

    #[error(
        "the model with its KV cache takes more than {}: lower contextLength or maxSessions, or mend the model's sizes",
        mib(*limit_bytes)
    )]
    TooManyBytes { limit_bytes: u64 },

    #[error(
        "{piece} takes {} and the largest budget is {} on {phone}, {} short: \
         add a phone with more memory, or lower contextLength, maxSessions or the model's size",
        mib(*needed_bytes), mib(*largest_bytes), mib(needed_bytes.saturating_sub(*largest_bytes))
    )]
    PieceTooLarge { piece: String, needed_bytes: u64, largest_bytes: u64, phone: String },

    #[error(
        "the model with its KV cache takes {} and {} can give {}, {} short: \
         add phones, or raise memoryFraction or maxPhones, or lower contextLength, maxSessions or the model's size",
        mib(*needed_bytes), phones(*n_phones), mib(*available_bytes), mib(*shortfall_bytes)
    )]
    #[strum(serialize = "InsufficientMemory")]
    Memory { needed_bytes: u64, available_bytes: u64, shortfall_bytes: u64, n_phones: u32 },

    #[error(
        "{} are needed and {} can give {}, but whole layers of up to {} leave no split that fits: \
         add a phone, or lower contextLength or maxSessions",
        mib(*needed_bytes), phones(*n_phones), mib(*available_bytes), mib(*largest_layer_bytes)
    )]
    #[strum(serialize = "LayersDoNotFit")]
    Packing { needed_bytes: u64, available_bytes: u64, largest_layer_bytes: u64, n_phones: u32 },

    #[error(
        "no ring can be closed: {unreachable} of {n_pairs} pairs of phones cannot reach each other: check the network between the phones"
    )]
    #[strum(serialize = "PhonesUnreachable")]
    Unreachable { unreachable: u32, n_pairs: u32 },

    #[error(
        "at least {wanted_tokens_per_second} tokens/s are asked for and {}: \
         lower minTokensPerSecond, or add faster phones, or better links between them",
        fastest(*reachable_tokens_per_second, *most_tokens_per_second)
    )]
    #[strum(serialize = "InsufficientSpeed")]
    Floor {
        wanted_tokens_per_second: f64,
        /// Of the fastest plan that was found.
        reachable_tokens_per_second: f64,
        /// That no plan is faster than.
        most_tokens_per_second: f64,
    },

    #[error(
        "the planner made a plan that its own checker rejects ({violation}): this is a fault of Polyphony and nothing that you wrote; \
         please report it with this message"
    )]
    #[strum(serialize = "PlanRejected")]
    Rejected { violation: String },

    #[error("the rule {rule} gives no plan here, since {why}: plan with another strategy")]
    #[strum(serialize = "RuleHasNoPlan")]
    Rule { rule: String, why: String },
}

impl Infeasible {
    /// The reason of a Kubernetes condition: CamelCase, stable, for machines.
    pub fn reason(&self) -> &'static str {
        self.into()
    }

    /// The bytes that are missing, where memory is what is missing.
    pub fn shortfall_bytes(&self) -> Option<u64> {
        match self {
            Infeasible::PieceTooLarge { needed_bytes, largest_bytes, .. } => {
                Some(needed_bytes.saturating_sub(*largest_bytes))
            }
            Infeasible::Memory { shortfall_bytes, .. } => Some(*shortfall_bytes),
            _ => None,
        }
    }
}

/// Rounded down, so that no speed that falls short reads as enough.
fn fastest(reachable: f64, most: f64) -> String {
    let tokens = |speed: f64| (speed * 100.0).floor() / 100.0;
    if most > reachable {
        format!("the fastest plan that was found gives {}, and none more than {}", tokens(reachable), tokens(most))
    } else {
        format!("the fastest plan gives {}", tokens(reachable))
    }
}

fn phones(n: u32) -> String {
    if n == 1 { "1 phone".to_owned() } else { format!("{n} phones") }
}

/// Bytes as MiB with one decimal, rounded up so that a shortfall never reads as nothing.
fn mib(bytes: u64) -> String {
    let tenths = (bytes as u128 * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
