//! Schemas: the `openAPIV3Schema` of a kind, with its rules compiled once.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::rules::{RuleFault, Rules};

/// A schema as it was written, and its rules. Cheap to clone.
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    document: Value,
    rules: Option<Rules>,
    faults: Vec<RuleFault>,
}

// === impl Schema ===

impl Schema {
    pub fn new(document: Value) -> Self {
        let (rules, faults) = Rules::compile(&document);
        Schema(Arc::new(Compiled { document, rules, faults }))
    }

    pub fn document(&self) -> &Value {
        &self.0.document
    }

    /// None if no part of the schema has a rule.
    pub fn rules(&self) -> Option<&Rules> {
        self.0.rules.as_ref()
    }

    /// The rules that no object can pass, since they cannot be evaluated.
    pub fn faults(&self) -> &[RuleFault] {
        &self.0.faults
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.document() == other.document()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document().fmt(f)
    }
}
