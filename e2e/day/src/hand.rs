//! The hand that does what the controller decides, at once, in place of the API and the hub. It decides nothing.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polyphony_controller::reconcile::decide::Action;
use polyphony_controller::reconcile::observe::{ObjectKey, PhoneLink};

use crate::world::World;

impl World {
    pub(crate) fn carry_out(&mut self, action: Action) {
        let now = Time(self.observed.now);
        let observed = &mut self.observed;
        match action {
            Action::SetPhoneStatus { name, status } => {
                if let Some(object) = observed.phones.get_mut(&name).and_then(|seen| seen.object.as_mut()) {
                    Arc::make_mut(object).status = Some(*status);
                }
            }
            Action::SetModelStatus { key, status } => {
                if let Some(seen) = observed.models.get_mut(&key) {
                    Arc::make_mut(&mut seen.object).status = Some(status);
                }
            }
            Action::SetPlacementStatus { key, status } => {
                if let Some(placement) = observed.placements.get_mut(&key) {
                    Arc::make_mut(placement).status = Some(status);
                    observed.written.insert(key, observed.uptime);
                }
            }
            Action::SetDeploymentStatus { key, status } => {
                if let Some(deployment) = observed.deployments.get_mut(&key) {
                    Arc::make_mut(deployment).status = Some(*status);
                }
            }
            Action::CreatePlacement(mut placement) => {
                placement.metadata.creation_timestamp = Some(now);
                observed.placements.insert(ObjectKey::of(placement.as_ref()), Arc::new(*placement));
            }
            Action::DeletePlacement { key } => {
                if let Some(placement) = observed.placements.get_mut(&key) {
                    Arc::make_mut(placement).metadata.deletion_timestamp.get_or_insert(now);
                }
                self.forget_released(&key);
            }
            Action::ReleasePlacement { key, finalizers_left } => {
                if let Some(placement) = observed.placements.get_mut(&key) {
                    let left = Some(finalizers_left).filter(|left| !left.is_empty());
                    Arc::make_mut(placement).metadata.finalizers = left;
                }
                self.forget_released(&key);
            }
            Action::CutLink { phone } => {
                if let Some(seen) = observed.phones.get_mut(&phone) {
                    seen.link = PhoneLink::Silenced;
                    seen.heartbeat = None;
                }
            }
            // The model is there from the start; stories are counted by who carries them out.
            Action::ResolveModel(_) | Action::Tell(_) => {}
        }
    }

    /// What is being deleted, and has no finalizer any more, is gone.
    fn forget_released(&mut self, key: &ObjectKey) {
        let is_gone = self.observed.placements.get(key).is_some_and(|placement| {
            let of = &placement.metadata;
            of.deletion_timestamp.is_some() && of.finalizers.as_ref().is_none_or(Vec::is_empty)
        });
        if is_gone {
            self.observed.placements.remove(key);
            self.observed.written.remove(key);
        }
    }
}
