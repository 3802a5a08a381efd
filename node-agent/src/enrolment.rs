//! Enrolment: a device shows its token to a hub of the root that it was told, and is given its name and papers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use polyphony_identity::{Credentials, Digest, JoinToken, Key, Papers, TokenError, Whom};
use polyphony_protocol::hub::{Enrol, Enrolled, ToAgent, ToHub};
use polyphony_protocol::{Frame, version};
use polyphony_wire::{Connection, LinkError, Wire};

use crate::board::Board;
use crate::flags::Flags;
use crate::identity::Identity;

/// What a person gave to join with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    pub token: JoinToken,
    /// Of the root of the host that is meant.
    pub ca_hash: Digest,
}

/// Why a device that has not joined cannot.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    #[error(
        "this phone has not joined the host as {name}, and has no join token: give --token-file or ${TOKEN_VARIABLE}; `polyctl join-command` on the host prints the whole line"
    )]
    NoToken { name: String },
    #[error(
        "a join token goes to nobody but the host that is meant: give --ca-hash or ${HASH_VARIABLE} with it, as `polyctl join-command` on the host prints it"
    )]
    NoHash,
    #[error("cannot read the join token from {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Where a join token is passed: what stands on a command line can be read by every user of a machine.
pub const TOKEN_VARIABLE: &str = "POLYPHONY_JOIN_TOKEN";
pub const HASH_VARIABLE: &str = "POLYPHONY_CA_HASH";

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The host may write to its API meanwhile.
const ANSWER: Duration = Duration::from_secs(20);
const DIAL: Duration = Duration::from_secs(10);

// === impl Enrolment ===

impl Enrolment {
    /// What the flags, or the environment, give; none where they give no token.
    ///
    /// # Errors
    /// When it is no token, or there is no digest with it.
    pub fn given(flags: &Flags) -> Result<Option<Self>, EnrolmentError> {
        match token(flags.token_file.as_deref())? {
            None => Ok(None),
            Some(token) => Ok(Some(Self { token, ca_hash: flags.ca_hash.ok_or(EnrolmentError::NoHash)? })),
        }
    }

    /// Asks the hub at `address` for papers of `name`; says the hub's time with them. The token is not shown before the hub has shown that
    /// its root is the one that is meant.
    ///
    /// # Errors
    /// When there is no such hub, or it refuses.
    pub async fn run(&self, wire: &Wire, address: &str, name: &str, key: &Key) -> Result<(Papers, u64), LinkError> {
        let mut link = wire.dial(address, &Whom::Pinned(self.ca_hash), DIAL).await?;
        let enrol = Enrol {
            version: version::CURRENT,
            phone: name.to_owned(),
            token: self.token.reveal(),
            request: request_of(key)?,
        };
        link.writer.write(&Frame::ToHub(ToHub::Enrol(enrol))).await?;
        answer(&mut link).await
    }
}

/// The join token of a file or of the environment; none where neither is given.
///
/// # Errors
/// When the file cannot be read, or what is given is no token.
pub fn token(file: Option<&Path>) -> Result<Option<JoinToken>, EnrolmentError> {
    let text = match file {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            Some(read.map_err(|source| EnrolmentError::File { path: path.to_owned(), source })?)
        }
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    let text = text.filter(|text| !text.trim().is_empty());
    Ok(text.map(|text| text.parse()).transpose()?)
}

/// What this phone makes its connections with: of papers that it has, or that the hub gives it for a token. The board is told why there are none yet.
///
/// # Errors
/// When it has neither; and when somebody waits for it and the hub does not answer, or refuses: a [`LinkError`].
pub async fn credentials(
    identity: &mut Identity,
    flags: &Flags,
    enrolment: Option<&Enrolment>,
    joining: &Wire,
    is_awaited: bool,
    board: &Board,
) -> anyhow::Result<Credentials> {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(credentials) = identity.credentials(&flags.name, flags.ca_hash.as_ref())? {
            return Ok(credentials);
        }
        let enrolment = enrolment.ok_or_else(|| EnrolmentError::NoToken { name: flags.name.clone() })?;
        match enrolment.run(joining, &flags.hub, &flags.name, identity.key()).await {
            Ok((papers, time)) => {
                identity.keep(&flags.name, papers, time, None)?;
                tracing::info!(hub = %flags.hub, phone = %flags.name, "the host has given this phone its name");
            }
            Err(error) if is_awaited => return Err(error.into()),
            Err(error) => {
                tracing::warn!(hub = %flags.hub, %error, retry_in = ?pause, "the host has not taken this phone in");
                board.set_away(Some(format!("the host at {} has not taken this phone in: {error}", flags.hub)));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Asks on a connection of its own for papers in place of some that have run out.
///
/// # Errors
/// When the hub refuses, or is not there.
pub async fn renew(link: &mut Connection, key: &Key) -> Result<(Papers, u64), LinkError> {
    link.writer.write(&Frame::ToHub(ToHub::Renew { request: request_of(key)? })).await?;
    answer(link).await
}

/// A request for a certificate.
///
/// # Errors
/// When the key cannot sign it.
pub fn request_of(key: &Key) -> Result<String, LinkError> {
    key.request().map_err(|error| LinkError::GivenUp(error.to_string()))
}

/// The papers that a hub sent, and its time.
///
/// # Errors
/// When they are none.
pub fn papers_of(enrolled: &Enrolled) -> Result<(Papers, u64), LinkError> {
    let papers = Papers::from_pem(&enrolled.chain, &enrolled.roots);
    let papers = papers.map_err(|error| LinkError::Refused(format!("the host sent papers that are none: {error}")))?;
    Ok((papers, enrolled.time_seconds))
}

async fn answer(link: &mut Connection) -> Result<(Papers, u64), LinkError> {
    match link.reader.next_within(ANSWER).await? {
        Frame::ToAgent(ToAgent::Enrolled(enrolled)) => papers_of(&enrolled),
        Frame::ToAgent(ToAgent::Refused { reason, .. }) => Err(LinkError::Refused(reason)),
        other => Err(LinkError::unexpected(&other, "papers")),
    }
}
