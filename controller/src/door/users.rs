//! Users: who comes to the embedded API by a certificate, as Secrets of the system's namespace. `polyctl user` makes them.
//!
//! A certificate is good only while such a record names its key: to delete the record is to revoke it, within a moment, for each request of then.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use polyphony_apiserver::{Role as ApiRole, User};
use polyphony_doorway::Certificates;
use polyphony_identity::{
    Authority, AuthorityError, CredentialsError, Digest, Key, KeyError, Name, Papers, Proven, RequestError, Role,
    Signed,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::brief;
use super::records::Sort;

/// Their Secrets.
const USERS: Sort = Sort { secret_type: "polyphony.dev/user", prefix: "user-", plural: "users" };

/// Names of who comes by a token, or as this process: no two are told apart in the audit by more than their names.
const RESERVED: [&str; 3] = ["polyphony", "viewer", "controller"];

const KEY: &str = "public-key";
const ROLE: &str = "role";
const EXPIRES: &str = "expires";

/// What a user may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    Admin,
    /// Reads everything but Secrets, and writes nothing.
    #[default]
    Viewer,
}

/// A user, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub part: Part,
    pub key: Digest,
    /// When its certificate ends, in seconds of Unix.
    pub expires: u64,
}

/// All users, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts(BTreeMap<String, Account>);

/// What a new user is given.
pub struct Issued {
    pub account: Account,
    pub papers: Papers,
    /// None where the user keeps it, and sent a request.
    pub key: Option<Key>,
}

/// Why somebody is no user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUser {
    #[error("the certificate of this connection names nobody")]
    Nameless,
    #[error("the certificate of this connection is of {0}, and users alone come in by one")]
    Other(Name),
    #[error("the certificate of {0} has run out: an admin makes a new one with `polyctl user create --again`")]
    RunOut(Name),
    #[error("nobody of the name {0} is recorded with the key of this certificate: it was deleted, or made anew")]
    Unknown(String),
}

/// Why there is no new user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Papers(#[from] CredentialsError),
    #[error("there is a user {0} already: --again makes it anew, and what it has shown is good no more")]
    Taken(String),
    #[error("{0} is who comes by the token of a kubeconfig: choose another name")]
    Reserved(String),
    #[error("the API takes no user: {}", brief(.0))]
    Api(#[from] kube::Error),
}

/// Signs for a user of `name`: the certificate is of a new key, or of the one that signed `request` (PKCS #10, PEM), and as good as `authority` makes it. It
/// lets nobody in before [`record`].
///
/// # Errors
/// [`UserError`].
pub fn sign(
    authority: &Authority,
    (name, part): (&str, Part),
    request: Option<&str>,
    now: u64,
) -> Result<Issued, UserError> {
    if RESERVED.contains(&name) {
        return Err(UserError::Reserved(name.to_owned()));
    }
    let key = if request.is_none() { Some(Key::generate()?) } else { None };
    let request = match (&key, request) {
        (Some(key), _) => key.request()?,
        (None, request) => request.unwrap_or_default().to_owned(),
    };
    let papers = authority.certify(&Signed::read(&request)?, &Name::new(Role::User, name, authority.domain()), now)?;
    let Proven { key: digest, not_after, .. } = papers.holder()?;
    let account = Account { name: name.to_owned(), part, key: digest, expires: not_after };
    Ok(Issued { account, papers, key })
}

/// Lets a user in: a new one, or with `is_again` one of that name in place of what was.
///
/// # Errors
/// [`UserError`].
pub async fn record(client: &Client, account: &Account, is_again: bool) -> Result<(), UserError> {
    let secret = account.secret();
    let written = match is_again {
        true => USERS.put(client, &secret).await,
        false => USERS.create(client, &secret).await,
    };
    written.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 409 => UserError::Taken(account.name.clone()),
        error => error.into(),
    })
}

/// All users, in the order of their names.
///
/// # Errors
/// What the API answers.
pub async fn list(client: &Client) -> Result<Vec<Account>, kube::Error> {
    let mut accounts: Vec<_> = USERS.list(client).await?.iter().filter_map(Account::of).collect();
    accounts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(accounts)
}

/// Takes a user away; whether there was one.
///
/// # Errors
/// What the API answers.
pub async fn delete(client: &Client, name: &str) -> Result<bool, kube::Error> {
    USERS.delete(client, name).await
}

/// Tells `accounts` of the users that there are, as they change, until `stop`. None are known before the first list.
pub async fn watch(client: Client, accounts: watch::Sender<Arc<Option<Accounts>>>, stop: CancellationToken) {
    let read = |secrets: &[Arc<Secret>]| Some(Accounts::new(secrets.iter().filter_map(|secret| Account::of(secret))));
    USERS.watch(client, read, accounts, stop).await;
}

// === impl Part ===

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Viewer => "viewer",
        })
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = [Self::Admin, Self::Viewer].into_iter().find(|part| part.to_string() == text);
        part.ok_or_else(|| format!("{text:?} is no role: write admin or viewer"))
    }
}

// === impl Account ===

impl Account {
    /// None where a Secret says what cannot be read: nobody is better than somebody who may more.
    fn of(secret: &Secret) -> Option<Self> {
        let record = USERS.record(secret)?;
        Some(Self {
            name: record.name.to_owned(),
            part: record.parsed(ROLE).ok()??,
            key: record.parsed(KEY).ok()??,
            expires: record.parsed(EXPIRES).ok()??,
        })
    }

    fn secret(&self) -> Secret {
        let texts = [(ROLE, self.part.to_string()), (KEY, self.key.to_string()), (EXPIRES, self.expires.to_string())];
        USERS.secret(&self.name, texts)
    }
}

// === impl Accounts ===

impl Accounts {
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self(accounts.into_iter().map(|account| (account.name.clone(), account)).collect())
    }

    /// Whose the certificates of a connection are, at `now` in seconds of Unix: it may have been open for longer than they are good.
    ///
    /// # Errors
    /// [`NoUser`].
    pub fn user(&self, shown: &Certificates, now: u64) -> Result<User, NoUser> {
        let holder = Proven::of_connection(Some(&shown.0)).ok_or(NoUser::Nameless)?;
        if holder.name.role != Role::User {
            return Err(NoUser::Other(holder.name));
        }
        if holder.is_expired(now) {
            return Err(NoUser::RunOut(holder.name));
        }
        let account = self.0.get(&holder.name.name).filter(|account| account.key == holder.key);
        let account = account.ok_or_else(|| NoUser::Unknown(holder.name.name.clone()))?;
        let role = match account.part {
            Part::Admin => ApiRole::Admin,
            Part::Viewer => ApiRole::Viewer,
        };
        Ok(User { name: account.name.clone(), role })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::ByteString;
    use polyphony_identity::{DEFAULT_DOMAIN, Lifetimes};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_certificate_is_good_while_its_key_is_recorded() {
        let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), NOW).unwrap();
        let shown = |role: Role, name: &str| {
            let key = Key::generate().unwrap();
            let request = Signed::read(&key.request().unwrap()).unwrap();
            let papers = authority.certify(&request, &Name::new(role, name, DEFAULT_DOMAIN), NOW).unwrap();
            (Certificates(papers.chain.into()), key.digest())
        };
        let ((mia, key), (other, _), (phone, phone_key)) =
            (shown(Role::User, "mia"), shown(Role::User, "mia"), shown(Role::Phone, "a"));
        let account = Account { name: "mia".into(), part: Part::Viewer, key, expires: NOW + 86_400 };
        let posing = Account { name: "a".into(), part: Part::Admin, key: phone_key, expires: NOW + 86_400 };
        let accounts = Accounts::new([account, posing]);
        assert_eq!(accounts.user(&mia, NOW), Ok(User { name: "mia".into(), role: ApiRole::Viewer }));
        assert!(matches!(accounts.user(&mia, NOW + 86_401), Err(NoUser::RunOut(_))));
        assert!(matches!(accounts.user(&other, NOW), Err(NoUser::Unknown(_))));
        assert!(matches!(accounts.user(&phone, NOW), Err(NoUser::Other(_))), "a phone is none, whatever is recorded");
        assert!(matches!(accounts.user(&Certificates::default(), NOW), Err(NoUser::Nameless)));
        assert!(matches!(Accounts::default().user(&mia, NOW), Err(NoUser::Unknown(_))));
    }

    #[test]
    fn a_user_is_read_back_and_a_garbled_one_is_none() {
        let key = Key::generate().unwrap().digest();
        let account = Account { name: "mia".into(), part: Part::Admin, key, expires: NOW };
        let secret = account.secret();
        assert_eq!(Account::of(&secret), Some(account));
        for (field, text) in [(ROLE, "root"), (KEY, "sha256:0"), (EXPIRES, "never")] {
            let mut broken = secret.clone();
            broken.data.as_mut().unwrap().insert(field.into(), ByteString(text.into()));
            assert_eq!(Account::of(&broken), None, "{field}");
            broken.data.as_mut().unwrap().remove(field);
            assert_eq!(Account::of(&broken), None, "{field}");
        }
    }
}
