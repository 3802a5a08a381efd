//! Experts: how many feed-forward networks a layer has, and how many of them a token takes. Reading, checking, counting.

use serde::{Deserialize, Serialize};

use super::read::{Keys, unusable};
use super::{HyperparameterError, Hyperparameters};
use crate::family::{self, Router};
use crate::gguf::Gguf;
use crate::role::Role;

/// Feed-forward networks of every layer, of which each token takes a few.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Experts {
    pub n_experts: u32,
    /// Experts that one token takes.
    pub n_chosen: u32,
    /// Of what the chosen give together.
    pub scale: f32,
}

/// A bound that no known model comes near.
const MAX_EXPERTS: u32 = 1 << 12;
/// The most experts of a token that kernels take. Held to the kernels' own by a test of who has both.
pub const MAX_CHOSEN: u32 = 64;

// Numbers of `llama_expert_gating_func_type` of llama.cpp.
const GATING_BY_FAMILY: u32 = 0;
const GATING_SOFTMAX: u32 = 1;
const GATING_SOFTMAX_OF_CHOSEN: u32 = 3;

// === impl Keys ===

impl Keys<'_> {
    /// The experts of a model that has some. A file of a family whose models may have some has them where its layers have routers.
    pub fn experts(&self, gguf: &Gguf) -> Result<Option<Experts>, HyperparameterError> {
        let counted = self.u32("expert_count")?;
        let router = match self.family.experts {
            family::Experts::None => return Ok(None),
            family::Experts::All(router) => router,
            family::Experts::Some(router) => {
                let has_router = gguf.tensor(&Role::Router.plain_name(self.family, Some(0))).is_some();
                if !has_router && counted.unwrap_or(0) == 0 {
                    return Ok(None);
                }
                router
            }
        };
        self.refuse_other_routers(router)?;
        Ok(Some(Experts {
            n_experts: self.metadata.u32(&self.name("expert_count"))?,
            n_chosen: self.metadata.u32(&self.name("expert_used_count"))?,
            // llama.cpp takes 0 for none.
            scale: self.f32("expert_weights_scale")?.filter(|scale| *scale != 0.0).unwrap_or(1.0),
        }))
    }

    /// Values between the matrices of a feed-forward network, or of one expert: files that have both widths mean the other by the first.
    pub fn ffn_size(&self, has_experts: bool) -> Result<u32, HyperparameterError> {
        let of_expert = if has_experts { self.u32("expert_feed_forward_length")? } else { None };
        Ok(match of_expert {
            Some(0) => {
                return Err(unusable(
                    self.name("expert_feed_forward_length"),
                    0,
                    "an expert has one at least".to_owned(),
                ));
            }
            Some(ffn_size) => ffn_size,
            None => self.metadata.u32(&self.name("feed_forward_length"))?,
        })
    }

    /// Files need not say how experts are weighed, which goes by the family; one that says otherwise is of another model.
    fn refuse_other_routers(&self, router: Router) -> Result<(), HyperparameterError> {
        let other = |rest: &str, found: String| {
            let why = format!("experts of {} models are weighed otherwise", self.family.name);
            Err(unusable(self.name(rest), found, why))
        };
        match (self.u32("expert_gating_func")?, router) {
            (None | Some(GATING_BY_FAMILY | GATING_SOFTMAX), _) => {}
            (Some(GATING_SOFTMAX_OF_CHOSEN), Router::OfChosen) => {}
            (Some(found), _) => return other("expert_gating_func", found.to_string()),
        }
        match self.metadata.optional_bool(&self.name("expert_weights_norm"))? {
            Some(norm) if norm != (router == Router::OfChosen) => {
                return other("expert_weights_norm", norm.to_string());
            }
            _ => {}
        }
        match self.u32("expert_group_count")? {
            Some(found) if found > 1 => other("expert_group_count", found.to_string()),
            _ => Ok(()),
        }
    }
}

// === impl Hyperparameters ===

impl Hyperparameters {
    pub(super) fn check_experts(&self) -> Result<(), HyperparameterError> {
        let key = "expert_count";
        let Some(experts) = self.experts else {
            return match self.architecture.family().experts {
                family::Experts::All(_) => {
                    Err(self.unusable(key, "missing", format!("a {} model has experts", self.architecture)))
                }
                family::Experts::None | family::Experts::Some(_) => Ok(()),
            };
        };
        if self.architecture.family().router().is_none() {
            return Err(self.unusable(key, experts.n_experts, format!("a {} model has no experts", self.architecture)));
        }
        self.check_count(key, experts.n_experts, MAX_EXPERTS)?;
        self.check_count("expert_used_count", experts.n_chosen, MAX_CHOSEN.min(experts.n_experts))?;
        self.check_real("expert_weights_scale", experts.scale)
    }
}
