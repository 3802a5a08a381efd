//! Leases: that phones answer, told to the API as a cluster tells it of its nodes. Beside the reconcile rounds: none waits for a
//! lease, and none is woken by one.
//!
//! A lease belongs to its Phone, so it goes with it. After its first renewal each phone has a turn of its own within the interval, so
//! that those that came together do not renew together for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource};
use polyphony_api::{Phone, SYSTEM_NAMESPACE};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::hub::registry::Registry;
use crate::reconcile::stores::Stores;

/// A lease is renewed this often.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A lease that is not renewed for this long has run out.
const LEASE_SECONDS: i32 = 40;
/// A phone answers that was heard of since.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Between looks at who is due, renewals at a time, and how long one may take.
const TICK: Duration = Duration::from_secs(1);
const AT_A_TIME: usize = 16;
const DEADLINE: Duration = Duration::from_secs(5);

/// Who writes, in managed fields.
const MANAGER: &str = "polyphony-controller";

/// What renewals need.
pub struct Leases {
    pub client: Client,
    pub registry: Arc<Registry>,
    pub stores: Arc<Stores>,
}

/// When each phone's lease is due. Pure.
#[derive(Default)]
struct Schedule {
    due: BTreeMap<String, Instant>,
}

// === impl Schedule ===

impl Schedule {
    /// The phones whose leases are to be renewed now; those that do not answer any more are forgotten.
    fn take_due(&mut self, answering: &BTreeSet<String>, now: Instant) -> Vec<String> {
        self.due.retain(|phone, _| answering.contains(phone));
        let mut taken = Vec::new();
        for phone in answering {
            let due = match self.due.get(phone) {
                Some(due) if *due > now => continue,
                Some(_) => now + RENEW_EVERY,
                None => now + turn(phone),
            };
            self.due.insert(phone.clone(), due);
            taken.push(phone.clone());
        }
        taken
    }
}

/// A phone's place within the interval.
fn turn(phone: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    phone.hash(&mut hasher);
    RENEW_EVERY.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}

// === impl Leases ===

impl Leases {
    /// Renews until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule::default();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            let due = schedule.take_due(&self.registry.answering(now, ANSWERS_WITHIN), now);
            let renewals = futures::stream::iter(due).for_each_concurrent(AT_A_TIME, |phone| self.renew_in_time(phone));
            tokio::select! {
                () = stop.cancelled() => return,
                () = renewals => {}
            }
        }
    }

    async fn renew_in_time(&self, phone: String) {
        // What is missed is made up for at the next turn, well before the lease runs out.
        match tokio::time::timeout(DEADLINE, self.renew(&phone)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%phone, %error, "the lease of a phone was not renewed"),
            Err(_) => {
                tracing::warn!(%phone, "the API did not renew the lease of a phone within {} s", DEADLINE.as_secs())
            }
        }
    }

    async fn renew(&self, name: &str) -> Result<(), kube::Error> {
        // Until it is an object nobody can own its lease.
        let Some(owner) = self.stores.phones.get(&ObjectRef::<Phone>::new(name)).and_then(|phone| phone.owner_ref(&()))
        else {
            return Ok(());
        };
        let api = Api::<Lease>::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let spec = LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        let patch = Patch::Merge(json!({ "metadata": { "ownerReferences": [owner] }, "spec": spec }));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(name, &params, &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let metadata = ObjectMeta {
                    name: Some(name.to_owned()),
                    owner_references: Some(vec![owner]),
                    ..ObjectMeta::default()
                };
                let post = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                api.create(&post, &Lease { metadata, spec: Some(spec) }).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_renewed_in_time_while_phones_answer_and_do_not_stay_together() {
        let phones: BTreeSet<String> = (0..200).map(|n| format!("phone-{n}")).collect();
        let (start, mut schedule) = (Instant::now(), Schedule::default());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(schedule.take_due(&phones, at(0)).len(), 200, "who comes is told of at once");
        let (mut last, mut most) = (BTreeMap::new(), 0);
        for second in 1..=120 {
            let due = schedule.take_due(&phones, at(second));
            for phone in &due {
                let before = last.insert(phone.clone(), second).unwrap_or(0);
                assert!(second - before <= 10, "{phone} waited {} s", second - before);
            }
            most = most.max(due.len());
        }
        assert!((1..40).contains(&most), "{most} of 200 are renewed in one second");
        let few = BTreeSet::from(["phone-1".to_owned()]);
        schedule.take_due(&few, at(121));
        assert_eq!(schedule.due.len(), 1, "who does not answer is forgotten");
        assert!(schedule.take_due(&phones, at(122)).len() >= 199, "and told of at once when it is back");
    }
}
