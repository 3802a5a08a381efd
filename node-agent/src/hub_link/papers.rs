//! Papers: how a phone stays who it is to its hub: it renews what will run out, hears what time it is, and enrols anew where it has a token.

use std::sync::Arc;
use std::time::Duration;

use polyphony_identity::{Credentials, Name, Papers, Role, Whom};
use polyphony_protocol::hub::{Enrolled, Remedy};
use polyphony_wire::{Bounds, LinkError, Proof, Security, Uncounted, Wire};

use crate::enrolment::{self, Enrolment, papers_of};
use crate::identity::Identity;

/// What a phone is known by, and what it was given to become known anew.
pub struct HubPapers {
    pub identity: Identity,
    pub credentials: Credentials,
    pub enrolment: Option<Enrolment>,
}

/// When papers are due, and how they are asked for.
pub(super) struct Renewals {
    credentials: Credentials,
    request: String,
}

const DIAL: Duration = Duration::from_secs(10);
/// A device may sleep meanwhile, and the hub may tell another time.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

// === impl HubPapers ===

impl HubPapers {
    /// The hub that this phone has joined.
    pub fn hub(&self) -> Whom {
        Whom::Hub(self.credentials.named(|domain| Name::of_controller(Role::Hub, domain)))
    }

    /// The hub told the time: certificates are judged by it from now on, its own first.
    ///
    /// # Errors
    /// When its own has run out by what it says.
    pub(super) fn hear_time(&self, proof: &Proof, seconds: u64) -> Result<(), LinkError> {
        if proof.proven().is_some_and(|hub| hub.is_expired(seconds)) {
            return Err(LinkError::Tls(
                "the hub's certificate has run out by its own clock: restart the controller".into(),
            ));
        }
        self.credentials.clock().tell(seconds);
        Ok(())
    }

    /// The hub has taken this phone in, by the papers in use. A disk that does not take that down is no reason to leave the hub: it is tried again at the
    /// next welcome.
    pub(super) fn settle(&mut self) {
        if let Err(error) = self.identity.settle() {
            tracing::warn!(%error, "the papers of this host do not take the place of those of the one before");
        }
    }

    /// New papers came over the link.
    ///
    /// # Errors
    /// When they are none, or cannot be kept.
    pub(super) fn take(&mut self, enrolled: &Enrolled) -> Result<(), LinkError> {
        let (papers, time) = papers_of(enrolled)?;
        self.credentials.clock().tell(time);
        self.keep(papers, time)?;
        tracing::debug!(until = self.credentials.own().not_after, "papers renewed");
        Ok(())
    }

    /// What was refused may be mended: papers that have run out are renewed, and who is not known any more, with papers that run or have run out,
    /// shows its token.
    ///
    /// # Errors
    /// The refusal itself where nothing mends it; why the mend failed.
    pub(super) async fn mend(
        &mut self,
        wire: &Wire,
        address: &str,
        reason: String,
        remedy: Remedy,
    ) -> Result<(), LinkError> {
        let (papers, time) = match (remedy, &self.enrolment) {
            (Remedy::Renew, None) => self.renewed(wire, address).await?,
            (Remedy::Renew, Some(enrolment)) => match self.renewed(wire, address).await {
                Err(LinkError::Refused(reason)) => self.enrolled(enrolment, address, &reason).await?,
                renewed => renewed?,
            },
            (Remedy::Enrol, Some(enrolment)) => self.enrolled(enrolment, address, &reason).await?,
            (Remedy::Enrol, None) | (Remedy::Person, _) => return Err(LinkError::Refused(reason)),
        };
        self.keep(papers, time)
    }

    async fn renewed(&self, wire: &Wire, address: &str) -> Result<(Papers, u64), LinkError> {
        let mut link = wire.dial(address, &self.hub(), DIAL).await?;
        enrolment::renew(&mut link, self.identity.key()).await
    }

    /// Shows the token. Where that is refused too, both are told: why this device is not known, and why its token does not help.
    async fn enrolled(&self, enrolment: &Enrolment, address: &str, unknown: &str) -> Result<(Papers, u64), LinkError> {
        let joining = Wire::new(Bounds::default(), Arc::new(Uncounted), Security::Joining);
        let name = self.credentials.own().name.name;
        let enrolled = enrolment.run(&joining, address, &name, self.identity.key()).await;
        enrolled.map_err(|error| match error {
            LinkError::Refused(reason) => LinkError::Refused(format!("{unknown}; its token does not help: {reason}")),
            other => other,
        })
    }

    pub(super) fn renewals(&self) -> Renewals {
        // A key that has signed once signs again.
        let request = enrolment::request_of(self.identity.key()).unwrap_or_default();
        Renewals { credentials: self.credentials.clone(), request }
    }

    fn keep(&mut self, papers: Papers, time: u64) -> Result<(), LinkError> {
        let name = self.credentials.own().name.name;
        let kept = self.identity.keep(&name, papers, time, Some(&self.credentials));
        kept.map_err(|error| LinkError::GivenUp(error.to_string()))
    }
}

// === impl Renewals ===

impl Renewals {
    /// Waits until two thirds of the papers' time are over.
    pub(super) async fn due(&self) {
        loop {
            let left = self.credentials.own().renewal_at().saturating_sub(self.credentials.clock().now());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(left).min(LONGEST_LOOK)).await;
        }
    }

    pub(super) fn request(&self) -> String {
        self.request.clone()
    }
}
