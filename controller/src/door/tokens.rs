//! Tokens: join tokens as Secrets of the system's namespace, hashed. Whoever may write Secrets there may make them: `polyctl token` does.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use polyphony_identity::{Digest, JoinToken};
use tokio_util::sync::CancellationToken;

use super::brief;
use super::records::Sort;

/// Their Secrets.
const TOKENS: Sort = Sort { secret_type: "polyphony.dev/join-token", prefix: "join-token-", plural: "join tokens" };

const HASH: &str = "hash";
const EXPIRES: &str = "expires";
const USES: &str = "uses";
const USED_BY: &str = "used-by";
const PHONE: &str = "phone";
const LABELS: &str = "labels";

/// What a token is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Until then.
    pub expires: Timestamp,
    /// For so many devices.
    pub uses: u32,
    /// For this name alone, which it frees of another device.
    pub phone: Option<String>,
    /// That Phones joined by it get.
    pub labels: BTreeMap<String, String>,
}

/// A token as it is kept: the secret part is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub id: String,
    pub terms: Terms,
    hash: String,
    /// The keys of devices that it has let in, as digests.
    pub used_by: Vec<String>,
}

/// What a device is let in with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    pub labels: BTreeMap<String, String>,
    /// The name may be another device's.
    pub frees_name: bool,
    /// The device has come in by it before, and is what it was then.
    pub is_again: bool,
}

/// Who shows a token.
#[derive(Clone, Copy, Debug)]
pub struct Comer<'a> {
    pub phone: &'a str,
    pub key: &'a Digest,
    /// The Phone of that name records the key.
    pub is_recorded: bool,
}

/// Why a token lets nobody in, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenBookError {
    #[error("the join token is wrong, or was deleted: make a new one with `polyctl join-command` on the host")]
    Unknown,
    #[error("the join token has expired: make a new one with `polyctl join-command` on the host")]
    Expired,
    #[error("the join token has been used by another device: make a new one with `polyctl join-command` on the host")]
    UsedUp,
    #[error(
        "the join token took this device in, and no Phone records it any more: make a new one with `polyctl join-command` on the host"
    )]
    Spent,
    #[error("the join token is for the phone {meant}, and this one is {found}: give --name {meant}")]
    OtherPhone { meant: String, found: String },
    #[error("too many devices use this join token at a time: try again")]
    Busy,
    #[error("the API does not give or take join tokens: {}", brief(.0))]
    Api(#[from] kube::Error),
}

/// How often a use is written again that another changed meanwhile.
const TRIES: usize = 8;
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// Makes a token.
///
/// # Errors
/// When the API takes it not.
pub async fn create(client: &Client, terms: &Terms) -> Result<JoinToken, TokenBookError> {
    let token = JoinToken::generate();
    let kept = Kept { id: token.id().to_owned(), terms: terms.clone(), hash: token.hash(), used_by: Vec::new() };
    TOKENS.create(client, &kept.secret()).await?;
    Ok(token)
}

/// All tokens, expired ones too as long as they are there.
///
/// # Errors
/// When the API does not list them.
pub async fn list(client: &Client) -> Result<Vec<Kept>, TokenBookError> {
    Ok(TOKENS.list(client).await?.iter().filter_map(Kept::of).collect())
}

/// Takes a token away; whether there was one.
///
/// # Errors
/// When the API does not answer.
pub async fn delete(client: &Client, id: &str) -> Result<bool, TokenBookError> {
    Ok(TOKENS.delete(client, id).await?)
}

/// Whether the device may come in; uses nothing up.
///
/// # Errors
/// [`TokenBookError`], in words for the device.
pub async fn look(
    client: &Client,
    token: &JoinToken,
    now: Timestamp,
    comer: Comer<'_>,
) -> Result<Admission, TokenBookError> {
    let secret = TOKENS.api(client).get_opt(&TOKENS.name_of(token.id())).await?.ok_or(TokenBookError::Unknown)?;
    Kept::of(&secret).ok_or(TokenBookError::Unknown)?.check(token, now, comer)
}

/// Lets the device in, which uses the token. The same device may come again while its Phone records it: deleted, it is shut out.
///
/// # Errors
/// [`TokenBookError`], in words for the device.
pub async fn admit(
    client: &Client,
    token: &JoinToken,
    now: Timestamp,
    comer: Comer<'_>,
) -> Result<Admission, TokenBookError> {
    let api = TOKENS.api(client);
    for _ in 0..TRIES {
        let secret = api.get_opt(&TOKENS.name_of(token.id())).await?.ok_or(TokenBookError::Unknown)?;
        let mut kept = Kept::of(&secret).ok_or(TokenBookError::Unknown)?;
        let admission = kept.check(token, now, comer)?;
        if admission.is_again {
            return Ok(admission);
        }
        kept.used_by.push(comer.key.to_string());
        let mut used = secret;
        used.data = kept.secret().data;
        // Of the version that was read: each use is counted.
        match api.replace(&TOKENS.name_of(token.id()), &PostParams::default(), &used).await {
            Ok(_) => return Ok(admission),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(TokenBookError::Unknown),
            Err(error) => return Err(error.into()),
        }
    }
    Err(TokenBookError::Busy)
}

/// Takes away what has expired, until `stop`.
pub async fn clean(client: Client, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CLEAN_EVERY) => {}
        }
        // Who has no right to list them leaves them to who has.
        let Ok(listed) = TOKENS.list(&client).await else { continue };
        let now = Timestamp::now();
        let expired = listed.iter().filter(|secret| Kept::of(secret).is_some_and(|kept| kept.terms.expires < now));
        for secret in expired {
            let this_one = Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
            let how = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
            if let Err(error) = TOKENS.api(&client).delete(&secret.name_any(), &how).await {
                tracing::debug!(%error, secret = %secret.name_any(), "an expired join token was not taken away");
            }
        }
    }
}

// === impl Kept ===

impl Kept {
    /// As a Secret says it; none where that is not one of ours.
    fn of(secret: &Secret) -> Option<Self> {
        let record = TOKENS.record(secret)?;
        let terms = Terms {
            expires: record.parsed(EXPIRES).ok()??,
            uses: record.parsed(USES).ok()??,
            phone: record.text(PHONE).map(str::to_owned).filter(|phone| !phone.is_empty()),
            labels: record.text(LABELS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
        };
        let used_by = record.text(USED_BY).unwrap_or_default().lines().map(str::to_owned).collect();
        Some(Self { id: record.name.to_owned(), terms, hash: record.text(HASH)?.to_owned(), used_by })
    }

    fn secret(&self) -> Secret {
        let Terms { expires, uses, phone, labels } = &self.terms;
        let mut texts = vec![
            (HASH, self.hash.clone()),
            (EXPIRES, expires.to_string()),
            (USES, uses.to_string()),
            (USED_BY, self.used_by.join("\n")),
        ];
        texts.extend(phone.clone().map(|phone| (PHONE, phone)));
        if !labels.is_empty() {
            texts.extend(serde_json::to_string(labels).ok().map(|labels| (LABELS, labels)));
        }
        TOKENS.secret(&self.id, texts)
    }

    /// How many devices may still come.
    pub fn uses_left(&self) -> usize {
        (self.terms.uses as usize).saturating_sub(self.used_by.len())
    }

    fn check(&self, token: &JoinToken, now: Timestamp, comer: Comer<'_>) -> Result<Admission, TokenBookError> {
        // Who does not know the secret learns nothing of the rest.
        if !token.is_of(&self.hash) {
            return Err(TokenBookError::Unknown);
        }
        if self.terms.expires <= now {
            return Err(TokenBookError::Expired);
        }
        let is_again = self.used_by.contains(&comer.key.to_string());
        if is_again && !comer.is_recorded {
            return Err(TokenBookError::Spent);
        }
        if !is_again && self.uses_left() == 0 {
            return Err(TokenBookError::UsedUp);
        }
        match &self.terms.phone {
            Some(meant) if meant != comer.phone => {
                Err(TokenBookError::OtherPhone { meant: meant.clone(), found: comer.phone.to_owned() })
            }
            bound => Ok(Admission { labels: self.terms.labels.clone(), frees_name: bound.is_some(), is_again }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn kept(token: &JoinToken) -> Kept {
        let labels = BTreeMap::from([("shelf".to_owned(), "left".to_owned())]);
        let terms = Terms { expires: at(60), uses: 1, phone: None, labels };
        Kept { id: token.id().to_owned(), terms, hash: token.hash(), used_by: Vec::new() }
    }

    #[test]
    fn a_token_is_kept_without_its_secret_and_read_back() {
        let token = JoinToken::generate();
        let mut kept = kept(&token);
        kept.terms.phone = Some("a".into());
        kept.used_by = vec!["sha256:1".into(), "sha256:2".into()];
        let secret = kept.secret();
        assert_eq!(Kept::of(&secret), Some(kept));
        let part = token.reveal();
        let (_, part) = part.split_once('.').unwrap();
        assert!(!serde_json::to_string(&secret).unwrap().contains(part));
        assert_eq!(Kept::of(&Secret { type_: Some("Opaque".into()), ..secret }), None);
    }

    #[test]
    fn a_token_lets_in_whom_it_was_made_for_once_and_in_its_time() {
        let (token, other) = (JoinToken::generate(), JoinToken::generate());
        let (device, second) = (Digest::of_spki(b"1"), Digest::of_spki(b"2"));
        let comer = |phone: &'static str, key| Comer { phone, key, is_recorded: false };
        let fresh = kept(&token);
        let admitted = fresh.check(&token, at(0), comer("a", &device)).unwrap();
        assert!(!admitted.frees_name && admitted.labels["shelf"] == "left");
        assert!(matches!(fresh.check(&other, at(0), comer("a", &device)), Err(TokenBookError::Unknown)));
        assert!(matches!(fresh.check(&token, at(60), comer("a", &device)), Err(TokenBookError::Expired)));
        assert!(
            matches!(fresh.check(&other, at(60), comer("a", &device)), Err(TokenBookError::Unknown)),
            "nothing is told"
        );
        let used = Kept { used_by: vec![device.to_string()], ..fresh.clone() };
        let known = Comer { is_recorded: true, ..comer("a", &device) };
        assert!(used.check(&token, at(0), known).unwrap().is_again, "the same device comes again");
        assert!(matches!(used.check(&token, at(0), comer("a", &device)), Err(TokenBookError::Spent)), "it was deleted");
        let more = Kept { terms: Terms { uses: 9, ..used.terms.clone() }, ..used.clone() };
        assert!(matches!(more.check(&token, at(0), comer("a", &device)), Err(TokenBookError::Spent)));
        assert!(matches!(used.check(&token, at(0), comer("a", &second)), Err(TokenBookError::UsedUp)));
        let bound = Kept { terms: Terms { phone: Some("b".into()), ..fresh.terms.clone() }, ..fresh };
        assert!(matches!(bound.check(&token, at(0), comer("a", &device)), Err(TokenBookError::OtherPhone { .. })));
        assert!(bound.check(&token, at(0), comer("b", &device)).unwrap().frees_name);
    }
}
