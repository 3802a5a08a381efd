//! The authority as this process has it: made at the first start, and taken up anew when another program rotates it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use polyphony_identity::{Authority, AuthorityError, Clock, Lifetimes, Sealed};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::place::{Place, PlaceError};

/// The authority of this installation, as it is kept. Clones are the same.
#[derive(Clone)]
pub struct KeptAuthority {
    place: Place,
    lifetimes: Lifetimes,
    authority: Arc<RwLock<Authority>>,
    /// Told when it is another one.
    changed: watch::Sender<()>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum KeptAuthorityError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the authority in {place} cannot be used: {source}")]
    Authority { place: String, source: AuthorityError },
}

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An API is not asked as often.
const ASK_EVERY: Duration = Duration::from_secs(10);

// === impl KeptAuthority ===

impl KeptAuthority {
    /// Opens it; makes a new one of `domain` where there is none.
    ///
    /// # Errors
    /// [`KeptAuthorityError`].
    pub async fn open(place: Place, domain: &str, lifetimes: Lifetimes) -> Result<Self, KeptAuthorityError> {
        let failed = |source| KeptAuthorityError::Authority { place: place.to_string(), source };
        let authority = match place.read().await? {
            Some(sealed) => {
                place.publish(&sealed)?;
                Authority::open(&sealed, lifetimes).map_err(failed)?
            }
            None => {
                let authority = Authority::generate(domain, lifetimes, Clock::system().now()).map_err(failed)?;
                place.write(&authority.sealed()).await?;
                tracing::info!(%place, ca_hash = %authority.ca_hash(), "a new authority was made");
                authority
            }
        };
        let kept =
            Self { place, lifetimes, authority: Arc::new(RwLock::new(authority)), changed: watch::Sender::new(()) };
        // Before anything is signed by it: it may have run out while nobody ran.
        kept.renew().await?;
        Ok(kept)
    }

    /// Lets `work` look at the authority as it is now.
    pub fn with<T>(&self, work: impl FnOnce(&Authority) -> T) -> T {
        work(&self.authority.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Told whenever it is another one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes up what others wrote, and makes anew what is due, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(match &self.place {
            Place::File(_) | Place::Folder { .. } => LOOK_EVERY,
            Place::Secret { .. } => ASK_EVERY,
        });
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut complaint = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            match self.look().await {
                Ok(()) => complaint = None,
                Err(error) => {
                    let error = error.to_string();
                    if complaint.as_ref() != Some(&error) {
                        tracing::error!(%error, "the authority stays as it was");
                        complaint = Some(error);
                    }
                }
            }
        }
    }

    async fn look(&self) -> Result<(), KeptAuthorityError> {
        let own = self.with(Authority::sealed);
        let Some(sealed) = self.place.read().await? else {
            // Whoever removed it has this one's keys no longer; this process has.
            return Ok(self.place.write(&own).await?);
        };
        if sealed != own {
            let authority = self.opened(&sealed)?;
            self.place.publish(&sealed)?;
            tracing::info!(ca_hash = %authority.ca_hash(), "the authority was rotated");
            self.replace(authority);
        }
        self.renew().await
    }

    /// Makes anew what is due.
    async fn renew(&self) -> Result<(), KeptAuthorityError> {
        let now = Clock::system().now();
        if !self.with(|authority| authority.is_due(now)) {
            return Ok(());
        }
        // Somebody else may have been faster.
        let renew = |authority: &mut Authority| match authority.is_due(now) {
            true => authority.renew(now),
            false => Ok(()),
        };
        let authority = rotate(&self.place, self.lifetimes, renew).await?;
        tracing::info!(ca_hash = %authority.ca_hash(), "the authority was made anew by its key, since its time was mostly over or had not begun");
        self.replace(authority);
        Ok(())
    }

    fn opened(&self, sealed: &Sealed) -> Result<Authority, KeptAuthorityError> {
        let failed = |source| KeptAuthorityError::Authority { place: self.place.to_string(), source };
        Authority::open(sealed, self.lifetimes).map_err(failed)
    }

    fn replace(&self, authority: Authority) {
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = authority;
        self.changed.send_replace(());
    }
}

/// Changes an authority where it is kept; whoever runs by it takes that up.
///
/// # Errors
/// [`KeptAuthorityError`].
pub async fn rotate(
    place: &Place,
    lifetimes: Lifetimes,
    change: impl Fn(&mut Authority) -> Result<(), AuthorityError>,
) -> Result<Authority, KeptAuthorityError> {
    let failed = |source| KeptAuthorityError::Authority { place: place.to_string(), source };
    let changed = place.change(|sealed| {
        let mut authority = Authority::open(&sealed, lifetimes).map_err(failed)?;
        change(&mut authority).map_err(failed)?;
        Ok::<_, KeptAuthorityError>(authority.sealed())
    });
    Authority::open(&changed.await?, lifetimes).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use polyphony_identity::{DEFAULT_DOMAIN, Role};

    use super::*;
    use crate::door::place::path_in;
    use crate::door::servers::Server;

    #[tokio::test]
    async fn an_authority_that_ran_out_while_nobody_ran_is_made_anew_before_it_signs() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::File(path_in(folder.path()));
        // A board without a clock, and one whose clock was ahead.
        for first in [3_600, 4_000_000_000] {
            let old = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), first).unwrap();
            place.write(&old.sealed()).await.unwrap();
            let kept = KeptAuthority::open(place.clone(), DEFAULT_DOMAIN, Lifetimes::default()).await.unwrap();
            assert_eq!(kept.with(Authority::ca_hash), old.ca_hash());
            Server::new(&kept, Role::Api, Vec::new()).unwrap();
            assert!(place.read().await.unwrap().unwrap() == kept.with(Authority::sealed), "it is kept so");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_authority_outlives_the_process_and_is_taken_up_when_it_is_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_in(folder.path());
        let place = Place::File(path.clone());
        let open = async || KeptAuthority::open(place.clone(), DEFAULT_DOMAIN, Lifetimes::default()).await.unwrap();
        let kept = open().await;
        let hash = kept.with(Authority::ca_hash);
        assert_eq!(open().await.with(Authority::ca_hash), hash);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (stop, mut changes) = (CancellationToken::new(), kept.changes());
        let keeping = tokio::spawn(kept.clone().keep(stop.clone()));
        let now = Clock::system().now();
        let other = rotate(&place, Lifetimes::default(), |authority| authority.rotate_root(now)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), changes.changed()).await.unwrap().unwrap();
        assert_eq!(kept.with(Authority::ca_hash), other.ca_hash());
        // Two that change it at a time come one after the other, and neither undoes what the other did.
        let rotations: Vec<_> = (0..3)
            .map(|_| {
                let place = place.clone();
                tokio::spawn(async move {
                    rotate(&place, Lifetimes::default(), |authority| authority.rotate_root(now)).await
                })
            })
            .collect();
        for rotation in rotations {
            rotation.await.unwrap().unwrap();
        }
        let all = Authority::open(&place.read().await.unwrap().unwrap(), Lifetimes::default()).unwrap();
        assert_eq!(all.retired().count(), 4, "each root of before is trusted still");
        kept.look().await.unwrap();
        let other = all;
        // What cannot be read changes nothing.
        std::fs::write(&path, "{").unwrap();
        assert!(kept.look().await.is_err_and(|error| error.to_string().contains("put back a copy")));
        stop.cancel();
        keeping.await.unwrap();
        assert_eq!(kept.with(Authority::ca_hash), other.ca_hash());
    }
}
