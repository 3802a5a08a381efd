//! A stage that is attached to a worker's segment, with its ways out: carries out what the stage wants done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use polyphony_model::Holds;
use polyphony_protocol::frame::Failed;
use polyphony_protocol::{Frame, PlanGeneration};
use tokio::runtime::Handle;

use crate::board::Entry;
use crate::serve::compute::{AttachmentId, Call, Compute, Skip};
use crate::serve::kv_transfer::Puller;
use crate::serve::outlet::{NotSent, Outlet, ToHost};
use crate::serve::stage::{AnyStage, Effect};

/// A stage and what belongs to it.
pub(super) struct Attached {
    pub(super) id: AttachmentId,
    pub(super) generation: PlanGeneration,
    pub(super) stage: AnyStage,
    pub(super) holds: Holds,
    pub(super) next: Outlet,
    pub(super) skips: BTreeMap<u32, Skip>,
    pub(super) entry: Arc<Entry>,
    pub(super) puller: Puller,
}

/// A link that did not take a frame.
pub(super) struct Lost {
    pub(super) phone: String,
    pub(super) why: NotSent,
}

// === impl Attached ===

impl Attached {
    /// Sends a frame, tells a failure in words, or starts a pull.
    pub(super) fn carry_out(
        &self,
        effect: Effect,
        host: &ToHost,
        runtime: &Handle,
        calls: &std_mpsc::SyncSender<Call>,
    ) -> Option<Lost> {
        let shape = self.stage.decoding().shape();
        match effect {
            Effect::Next(frame) => {
                let why = self.next.send(frame).err()?;
                Some(Lost { phone: shape.next_phone.clone(), why })
            }
            Effect::Skip { to, frame } => {
                let Some(skip) = self.skips.get(&to) else {
                    return Some(Lost { phone: format!("stage {to}"), why: NotSent::NotConnected });
                };
                let why = skip.outlet.send(frame).err()?;
                Some(Lost { phone: skip.phone.clone(), why })
            }
            Effect::Host(frame) => {
                host.send(frame);
                None
            }
            Effect::Fail { key, reason } => {
                let message = format!("{}: {reason}", shape.phone);
                host.send(Frame::Failed(Failed { key, code: reason.code(), message }));
                None
            }
            Effect::Pull(pull) => {
                let compute = Compute::new(self.generation, self.id, calls.clone());
                runtime.spawn(self.puller.clone().run(pull, compute));
                None
            }
        }
    }
}
