//! Descriptions: one object told to a person, in the layout of `kubectl describe`. Pure: objects and the time in, text out.

pub(crate) mod deployment;
pub mod events;
mod generic;
pub mod layout;
mod model;
mod phone;
mod placement;

use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement};
use serde_json::Value;

use events::EventLine;
use layout::Layout;

/// An object and what is told with it.
pub struct Story<'a> {
    pub object: &'a Value,
    /// SegmentPlacements that belong to the object: those of a deployment, or those on a phone.
    pub placements: &'a [SegmentPlacement],
    /// Oldest first.
    pub events: &'a [EventLine],
    pub now: jiff::Timestamp,
}

/// What kubectl keeps for itself in an object that it applied: the whole file, which `kubectl describe` hides as well.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The description. Kinds that this program does not know are told field by field.
pub fn describe(story: &Story) -> String {
    let mut layout = Layout::default();
    let mut object = story.object.clone();
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let story = &Story { object: &object, ..*story };
    let object = story.object;
    let api_version = format!("{}/{}", polyphony_api::GROUP, polyphony_api::VERSION);
    let kind = if object["apiVersion"] == api_version.as_str() { object["kind"].as_str() } else { None };
    // A newer server may write what this program cannot read: then it is told field by field too.
    let known = match kind {
        Some("Phone") => typed::<Phone>(object).map(|phone| self::phone::write(&mut layout, &phone, story)),
        Some("Model") => typed::<Model>(object).map(|model| self::model::write(&mut layout, &model, story)),
        Some("InferenceDeployment") => typed::<InferenceDeployment>(object)
            .map(|deployment| self::deployment::write(&mut layout, &deployment, story)),
        Some("SegmentPlacement") => {
            typed::<SegmentPlacement>(object).map(|placement| self::placement::write(&mut layout, &placement, story))
        }
        _ => None,
    };
    if known.is_none() {
        generic::write(&mut layout, story);
    }
    layout.finish()
}

fn typed<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}
