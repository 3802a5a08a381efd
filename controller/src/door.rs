//! The door: who may come in. One authority signs who is who; a token lets a device in once; a Phone records the key that it came with.
//!
//! A certificate is good only while a Phone records its key: to delete the Phone is to revoke it ([`crate::hub::keys`]).

pub mod authority;
pub mod client_keys;
pub mod place;
mod records;
pub mod servers;
pub mod tokens;
pub mod users;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use polyphony_api::Phone;
use polyphony_identity::{
    Authority, AuthorityError, Clock, Digest, JoinToken, Name, RequestError, Signed, is_dns_label,
};
use polyphony_protocol::hub::{Enrol, Enrolled};
use polyphony_protocol::version;
use serde_json::json;
use tokio::sync::watch;

use crate::hub::Registrar;
use crate::hub::keys::{Keys, is_recorded};
use authority::KeptAuthority;
use tokens::{Admission, Comer, TokenBookError};

/// Who the API takes this for.
const MANAGER: &str = "polyphony-controller";
/// What was written is seen by then.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// How often something that another changed meanwhile is tried again.
const TRIES: usize = 5;

/// Takes devices in, and signs for those that are known.
pub struct Door {
    pub authority: KeptAuthority,
    pub client: Client,
    /// The keys that Phones record.
    pub keys: watch::Receiver<Option<Keys>>,
}

/// Why a device is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Version(String),
    #[error("{0:?} is no name for a phone: use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit")]
    Name(String),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Token(#[from] TokenBookError),
    #[error(
        "another device is known as {name}: give this one another --name; where that device is lost, `polyctl token create --phone {name}` on the host makes a token that frees the name, and `polyctl delete phone {name}` frees it for every token"
    )]
    Taken { name: String },
    #[error("nothing can be signed: {0}")]
    Authority(#[from] AuthorityError),
    #[error("the host's API does not take it in now: {}; try again", brief(.0))]
    Api(#[from] kube::Error),
    #[error("the host's API took the device in and has not shown it since; try again")]
    Unseen,
}

/// An error of the API for people: a `Status` is for programs, but for its message.
pub(crate) fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

// === impl Door ===

impl Door {
    async fn take_in(&self, enrol: &Enrol) -> Result<Enrolled, Refused> {
        if !version::CURRENT.speaks_with(enrol.version) {
            let name: String = enrol.phone.chars().filter(|one| !one.is_control()).take(63).collect();
            return Err(Refused::Version(version::refusal(&format!("the agent of {name}"), enrol.version, "this hub")));
        }
        if !is_dns_label(&enrol.phone) {
            return Err(Refused::Name(enrol.phone.chars().take(80).collect()));
        }
        let signed = Signed::read(&enrol.request)?;
        let token: JoinToken = enrol.token.parse().map_err(|_| TokenBookError::Unknown)?;
        // What can be refused is refused before the token is used up.
        let recorded = self.recorded(&enrol.phone).await?;
        let is_recorded_here = recorded.as_deref() == Some(&signed.key.to_string());
        let comer = Comer { phone: &enrol.phone, key: &signed.key, is_recorded: is_recorded_here };
        let admission = tokens::look(&self.client, &token, Timestamp::now(), comer).await?;
        if recorded.is_some() && !is_recorded_here && !admission.frees_name {
            return Err(Refused::Taken { name: enrol.phone.clone() });
        }
        let admission = tokens::admit(&self.client, &token, Timestamp::now(), comer).await?;
        // Who comes again has its Phone; one that is deleted in this moment is not made anew.
        if !admission.is_again {
            self.record(&enrol.phone, &signed.key, &admission).await?;
        }
        let mut keys = self.keys.clone();
        let seen = keys.wait_for(|keys| is_recorded(keys.as_ref(), &enrol.phone, &signed.key));
        match tokio::time::timeout(SEEN_WITHIN, seen).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(Refused::Unseen),
        }
        tracing::info!(phone = %enrol.phone, key = %signed.key.short(), token = %token.id(), "a device was taken in");
        self.sign(&enrol.phone, &signed)
    }

    /// The key that the Phone of that name records.
    async fn recorded(&self, name: &str) -> Result<Option<String>, Refused> {
        let phone = Api::<Phone>::all(self.client.clone()).get_opt(name).await?;
        Ok(phone.and_then(|phone| phone.status?.public_key))
    }

    /// Writes the key on the Phone, which is made where there is none.
    async fn record(&self, name: &str, key: &Digest, admission: &Admission) -> Result<(), Refused> {
        let phones = Api::<Phone>::all(self.client.clone());
        for _ in 0..TRIES {
            // Applied without fields of its spec: who writes a default owns it, and a person's own `apply` would conflict with that.
            let applied = json!({
                "apiVersion": Phone::api_version(&()), "kind": Phone::kind(&()),
                "metadata": { "name": name, "labels": admission.labels }, "spec": {},
            });
            let phone = phones.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(applied)).await?;
            let recorded = phone.status.as_ref().and_then(|status| status.public_key.clone());
            if recorded.as_deref() == Some(&key.to_string()) {
                return Ok(());
            }
            if recorded.is_some() && !admission.frees_name {
                return Err(Refused::Taken { name: name.to_owned() });
            }
            // Of that version alone: of two devices that come at a time one is told that the name is taken.
            let patch = json!({
                "metadata": { "resourceVersion": phone.resource_version() }, "status": { "publicKey": key },
            });
            match phones.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refused::Unseen)
    }

    fn sign(&self, phone: &str, signed: &Signed) -> Result<Enrolled, Refused> {
        let now = Clock::system().now();
        let papers = self
            .authority
            .with(|authority: &Authority| authority.certify(signed, &Name::phone(phone, authority.domain()), now))?;
        let good_until_seconds = papers.holder().map_or(now, |holder| holder.not_after);
        Ok(Enrolled { chain: papers.chain_pem(), roots: papers.roots_pem(), time_seconds: now, good_until_seconds })
    }
}

impl Registrar for Door {
    fn enrol<'a>(&'a self, enrol: &'a Enrol) -> BoxFuture<'a, Result<Enrolled, String>> {
        async move { self.take_in(enrol).await.map_err(|refused| refused.to_string()) }.boxed()
    }

    fn renew(&self, phone: &str, key: &Digest, request: &str) -> Result<Enrolled, String> {
        let signed = Signed::read(request).map_err(|error| error.to_string())?;
        if signed.key != *key {
            return Err("the request is of another key than the certificate: join again with a new token".to_owned());
        }
        self.sign(phone, &signed).map_err(|refused| refused.to_string())
    }
}
