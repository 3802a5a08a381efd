//! Golden outputs: what an independent f32 reference says of a model.

use serde::Deserialize;

/// The reference's outputs for one model.
#[derive(Debug, Deserialize)]
pub struct Golden {
    pub cases: Vec<Case>,
}

/// One prompt and the greedy answer.
#[derive(Debug, Deserialize)]
pub struct Case {
    #[serde(default)]
    pub messages: Vec<serde_json::Value>,
    pub prompt_ids: Vec<u32>,
    pub steps: Vec<Step>,
}

/// One greedy step.
#[derive(Debug, Deserialize)]
pub struct Step {
    pub token: u32,
    /// The largest logit less the second.
    pub margin: f32,
    /// The largest logits, best first.
    pub top: Vec<(u32, f32)>,
}

impl Golden {
    /// Reads a file of the golden folder.
    ///
    /// # Errors
    /// When it is not there or not golden.
    pub fn read(name: &str) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(crate::shelf::golden_file(name))?)?)
    }
}
