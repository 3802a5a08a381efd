//! The resource types of `polyphony.dev/v1alpha1`, and nothing else: no client, no clock, no I/O.
//!
//! Four kinds: [`Phone`], [`Model`], [`InferenceDeployment`] and [`SegmentPlacement`]. Their definitions are generated
//! into `manifests/crds/`; a test keeps the files current.

pub mod condition;
pub mod crds;
pub mod fields;
pub mod inference_deployment;
pub mod model;
pub mod model_source;
pub mod numerics;
pub mod phone;
pub mod quantity;
pub mod segment_placement;
pub mod selector;

pub use inference_deployment::{InferenceDeployment, InferenceDeploymentSpec, InferenceDeploymentStatus};
pub use model::{Model, ModelProgress, ModelSpec, ModelStatus, SecretKeyRef};
pub use model_source::ModelSource;
pub use phone::{Phone, PhoneSpec, PhoneStatus};
pub use segment_placement::{SegmentPlacement, SegmentPlacementSpec, SegmentPlacementStatus};

/// The API group of every kind here.
pub const GROUP: &str = "polyphony.dev";
/// The served and stored version of every kind here.
pub const VERSION: &str = "v1alpha1";
/// The finalizer that keeps a placement until no session is left in it.
pub const DRAIN_FINALIZER: &str = "polyphony.dev/drain";
/// The label that names the deployment of a placement.
pub const DEPLOYMENT_LABEL: &str = "polyphony.dev/deployment";
/// The namespace of phone Leases.
pub const SYSTEM_NAMESPACE: &str = "polyphony-system";
