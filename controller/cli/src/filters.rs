//! Filters: the flags that pick objects out by label and by field. What is no selector is refused before any request.

use clap::Args;
use polyphony_selector::{FieldSelector, LabelSelector};

#[derive(Debug, Args)]
pub struct Filters {
    /// Only objects with these labels, such as `room=lab,floor!=2`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<LabelSelector>,
    /// Only objects with these fields, such as `spec.phone=phone-1`
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<FieldSelector>,
}

// === impl Filters ===

impl Filters {
    /// Whether they leave anything out: a selector that selects everything says as much as none.
    pub fn restrict(&self) -> bool {
        self.selector.as_ref().is_some_and(|selector| !selector.is_empty())
            || self.field_selector.as_ref().is_some_and(|selector| !selector.is_empty())
    }

    /// As parameters of a list.
    pub fn parameters(&self) -> [(&'static str, Option<&str>); 2] {
        [
            ("labelSelector", self.selector.as_ref().map(LabelSelector::as_str)),
            ("fieldSelector", self.field_selector.as_ref().map(FieldSelector::as_str)),
        ]
    }
}
