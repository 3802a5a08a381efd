//! `join` and `run`: finds the host, works out what was not said, runs the agent, and remembers what worked.

pub mod membership;
pub mod name;

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use polyphony_journal::tell;
use polyphony_wire::LinkError;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::agent::{self, Terms};
use crate::board::{AtHost, Board};
use crate::discovery::{self, Choice, FoundHost};
use crate::enrolment::{self, Enrolment, EnrolmentError, TOKEN_VARIABLE};
use crate::flags::Flags;
use crate::hub_address::{self, HubAddressError};
use crate::identity::has_papers;
use crate::invocation::{self, Request};
use membership::Membership;

/// The port of a hub when none is said.
const HUB_PORT: u16 = 7700;
/// How long the network is asked for hosts.
const BROWSE: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why a phone cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("there is no home folder to remember the host in: set $HOME, or give --data-dir")]
    NoHome,
    #[error("this phone has joined no host yet ({} is not there): run the line once that `polyctl join-command` prints on the host", .0.display())]
    NeverJoined(PathBuf),
    #[error(
        "no join token: give ${TOKEN_VARIABLE} or --token-file; `polyctl join-command` on the host prints the whole line"
    )]
    NoToken,
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    #[error(transparent)]
    Address(#[from] HubAddressError),
    #[error("no host was found on this network within {} s: start its control plane with `polyctl up --listen ADDRESS`, or give HOST:PORT; `polyctl join-command` on the host prints the line", 2 * BROWSE.as_secs())]
    NobodyFound,
    #[error("none of these hosts says that it is the one of --ca-hash: compare it with `polyctl join-command` on the host\n{}", .0.join("\n"))]
    OtherRoots(Vec<String>),
    #[error("several hosts were found: choose one by `polyphony-agent join HOST:PORT`\n{}", .0.join("\n"))]
    SeveralFound(Vec<String>),
    #[error(
        "nothing listens at {hub}: is the controller running there, and does its hub listen on an address that this machine can reach? `polyctl join-command` on the host says what it listens on"
    )]
    NothingListens { hub: String },
    #[error("{hub} cannot be reached: {why}; check the address, the network and the host's firewall")]
    Unreachable { hub: String, why: String },
    #[error("the host at {hub} refused this phone: {reason}")]
    Refused { hub: String, reason: String },
    #[error(
        "{hub} took the connection, but did not answer as a Polyphony hub: {why}; is HOST:PORT the hub's, not the gateway's or the API's?"
    )]
    NoHub { hub: String, why: String },
}

/// Whether to give up when the host is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A person waits.
    Once,
    /// A service waits.
    ForEver,
}

/// Joins the host that `request` names, that was joined before, or that the network offers; runs on `terms` until their end.
///
/// # Errors
/// When it cannot: what was tried, why it failed and what to do.
pub async fn run(request: Request, patience: Patience, terms: Terms) -> anyhow::Result<()> {
    let data_dir = data_dir(&request)?;
    let remembered = Membership::read(&data_dir)?;
    if patience == Patience::ForEver && remembered.is_none() {
        return Err(JoinError::NeverJoined(Membership::path(&data_dir)).into());
    }
    let has_papers = has_papers(&data_dir, request.ca_hash.as_ref());
    let token = match &request.token {
        Some(token) => Some(token.clone()),
        None => enrolment::token(request.token_file.as_deref()).map_err(JoinError::from)?,
    };
    let enrolment = match (token, request.ca_hash) {
        (Some(token), Some(ca_hash)) => Some(Enrolment { token, ca_hash }),
        _ if has_papers => None,
        (Some(_), None) => return Err(JoinError::from(EnrolmentError::NoHash).into()),
        (None, _) => return Err(JoinError::NoToken.into()),
    };
    let hubs = hubs(&request, remembered.as_ref().filter(|_| has_papers)).await?;
    let before = remembered.as_ref().map(|membership| membership.flags.clone());
    let mut kept = before.clone().unwrap_or_default();
    kept.extend(request.flags);
    if !kept.contains_key("name") {
        kept.insert("name".into(), name::default_name()?);
    }
    let (hub, route) = match patience {
        Patience::Once => reach(&hubs).await?,
        Patience::ForEver => match terms.shutdown.run_until_cancelled(reach_for_ever(&hubs, &terms.board)).await {
            Some(reached) => reached,
            None => return Ok(()),
        },
    };
    let mut flags = invocation::flags(&complete(&kept, &hub, &route, &data_dir)).map_err(|error| {
        anyhow::anyhow!("{}; is it in {}?", error.to_string().trim(), Membership::path(&data_dir).display())
    })?;
    flags.ca_hash = request.ca_hash;
    let is_awaited = patience == Patience::Once;
    // What a service is started with besides is of that run alone; where the host is now is not.
    let flags_to_keep = before.filter(|_| !is_awaited).unwrap_or(kept);
    let membership = Membership { hub: hub.clone(), flags: flags_to_keep };
    let is_news = is_awaited || remembered.as_ref() != Some(&membership);
    let host = terms.board.host_changes();
    let remember = async {
        if is_news && has_joined(host).await {
            keep(&membership, &data_dir);
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        // First, so that what ends together with its welcome is remembered, too.
        biased;
        never = remember => never,
        ended = agent::run(flags, Terms { enrolment, is_awaited, ..terms }) => ended,
    };
    ended.map_err(|error| match error.downcast::<LinkError>() {
        Ok(error) => explain(hub, error).into(),
        Err(other) => other,
    })
}

/// Waits for the first welcome.
async fn has_joined(mut host: watch::Receiver<AtHost>) -> bool {
    host.wait_for(|host| host.has_joined).await.is_ok()
}

/// What a failed first link means to a person.
fn explain(hub: String, error: LinkError) -> JoinError {
    match error {
        LinkError::Refused(reason) => JoinError::Refused { hub, reason },
        LinkError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            JoinError::NothingListens { hub }
        }
        other => JoinError::NoHub { hub, why: other.to_string() },
    }
}

fn keep(membership: &Membership, data_dir: &Path) {
    let mut out = std::io::stdout().lock();
    let name = membership.flags.get("name").map_or("?", String::as_str);
    let how = match membership.write(data_dir) {
        Ok(()) => "`polyphony-agent run` joins again".to_owned(),
        Err(error) => format!("it will not be remembered: {error}"),
    };
    // A reader that has gone must not stop the agent.
    let _ = writeln!(out, "joined {} as {name}; {how}", membership.hub).and_then(|()| out.flush());
}

/// The flags of a request and those remembered of this phone, where it is not to join anybody.
///
/// # Errors
/// When there is no folder to look in, or a flag is none.
pub fn flags_alone(request: &Request) -> anyhow::Result<Flags> {
    let data_dir = data_dir(request)?;
    let mut kept = Membership::read(&data_dir)?.map(|membership| membership.flags).unwrap_or_default();
    kept.extend(request.flags.clone());
    kept.entry("name".into()).or_insert_with(|| "nobody".into());
    let route = Route { local: IpAddr::from([127, 0, 0, 1]) };
    Ok(invocation::flags(&complete(&kept, "127.0.0.1:7700", &route, &data_dir))?)
}

fn data_dir(request: &Request) -> Result<PathBuf, JoinError> {
    if let Some(folder) = &request.data_dir {
        return Ok(folder.clone());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or(JoinError::NoHome)?;
    Ok(Path::new(&home).join(".polyphony/agent"))
}

/// Addresses to try, the likeliest first: the one that was said, the one remembered, or those found.
async fn hubs(request: &Request, remembered: Option<&Membership>) -> anyhow::Result<Vec<String>> {
    if let Some(address) = &request.address {
        return Ok(vec![hub_address::parse(address, Some(HUB_PORT)).map_err(JoinError::from)?]);
    }
    if let Some(membership) = remembered {
        return Ok(vec![membership.hub.clone()]);
    }
    tell!("looking for a host on this network, for {} s at most …", 2 * BROWSE.as_secs());
    let ca_hash = request.ca_hash.as_ref();
    let mut found = discovery::browse(BROWSE, ca_hash).await?;
    if found.is_empty() {
        // A host that has only just started, or a link that has only just come up, is missed now and then.
        found = discovery::browse(BROWSE, ca_hash).await?;
    }
    for host in &found {
        tell!("found {host}");
    }
    let lines = |hosts: &[&FoundHost]| hosts.iter().map(|host| format!("  {host}")).collect::<Vec<_>>();
    let host = match discovery::choose(&found, ca_hash) {
        Choice::Nobody => return Err(JoinError::NobodyFound.into()),
        Choice::OtherRoots => return Err(JoinError::OtherRoots(lines(&found.iter().collect::<Vec<_>>())).into()),
        Choice::Only(host) => host,
        Choice::Several(hosts) => ask(&hosts).ok_or_else(|| JoinError::SeveralFound(lines(&hosts)))?,
    };
    Ok(host.addresses.iter().map(SocketAddr::to_string).collect())
}

/// Lets a person at a terminal choose; none when nobody is there or nothing was chosen.
fn ask<'a>(hosts: &[&'a FoundHost]) -> Option<&'a FoundHost> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    for (idx, host) in hosts.iter().enumerate() {
        tell!("{:>3}  {host}", idx + 1);
    }
    // Who does not see the question is not asked.
    write!(std::io::stderr(), "which one? [1-{}] ", hosts.len()).ok()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).ok()?;
    hosts.get(line.trim().parse::<usize>().ok()?.checked_sub(1)?).copied()
}

/// How this machine reaches the host.
#[derive(Clone, Copy, Debug)]
struct Route {
    /// Our end.
    local: IpAddr,
}

/// The first of the addresses that answers.
async fn reach(hubs: &[String]) -> Result<(String, Route), JoinError> {
    let mut last = JoinError::NobodyFound;
    for hub in hubs {
        let hub = hub.clone();
        last = match tokio::time::timeout(CONNECT, TcpStream::connect(&hub)).await {
            Ok(Ok(stream)) => match stream.local_addr() {
                Ok(local) => return Ok((hub, Route { local: local.ip() })),
                Err(error) => JoinError::Unreachable { hub, why: error.to_string() },
            },
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                JoinError::NothingListens { hub }
            }
            Ok(Err(error)) => JoinError::Unreachable { hub, why: error.to_string() },
            Err(_) => JoinError::Unreachable { hub, why: format!("no answer within {} s", CONNECT.as_secs()) },
        };
    }
    Err(last)
}

/// The same, however long it takes; the board is told why it takes so long.
async fn reach_for_ever(hubs: &[String], board: &Board) -> (String, Route) {
    let mut pause = Duration::from_millis(500);
    loop {
        match reach(hubs).await {
            Ok(reached) => return reached,
            Err(error) => {
                tracing::warn!(%error, retry_in = ?pause, "no way to the host");
                board.set_away(Some(error.to_string()));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What is kept and what depends on today's network, as flags.
fn complete(kept: &BTreeMap<String, String>, hub: &str, route: &Route, data_dir: &Path) -> BTreeMap<String, String> {
    let mut flags = kept.clone();
    flags.insert("hub".into(), hub.to_owned());
    flags.insert("data-dir".into(), data_dir.display().to_string());
    flags.entry("ring-address".into()).or_insert_with(|| SocketAddr::new(route.local, 0).to_string());
    flags
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Digest, JoinToken};
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn join(request: Request, patience: Patience) -> anyhow::Result<()> {
        run(request, patience, Terms::until(CancellationToken::new())).await
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_is_told_from_a_stranger_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, JoinToken::generate().reveal()).unwrap();
        let request = |is_given: bool| Request {
            address: Some(address.clone()),
            token_file: is_given.then(|| token_file.clone()),
            ca_hash: Some(Digest::of_spki(b"root")),
            data_dir: Some(folder.path().to_owned()),
            flags: BTreeMap::from([("backend".into(), "cpu".into()), ("memory".into(), "1Mi".into())]),
            ..Request::default()
        };
        let error = join(request(false), Patience::Once).await.unwrap_err().to_string();
        assert!(error.contains("no join token"), "{error}");
        // It takes connections and hangs up.
        let stranger = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let error = join(request(true), Patience::Once).await.unwrap_err().to_string();
        assert!(error.contains("did not answer as a Polyphony hub"), "{error}");
        stranger.abort();
        let _ = stranger.await;
        let error = join(request(true), Patience::Once).await.unwrap_err().to_string();
        assert!(error.contains(&format!("nothing listens at {address}")), "{error}");
        assert_eq!(Membership::read(folder.path()).unwrap(), None, "what did not work is not remembered");
        let error = join(request(true), Patience::ForEver).await.unwrap_err().to_string();
        assert!(error.contains("joined no host yet"), "{error}");
        let error = join(Request { ca_hash: None, ..request(true) }, Patience::Once).await.unwrap_err().to_string();
        assert!(error.contains("--ca-hash"), "{error}");
        std::fs::write(&token_file, "guess").unwrap();
        let error = join(request(true), Patience::Once).await.unwrap_err().to_string();
        assert!(error.contains("no join token") && !error.contains("guess"), "{error}");
    }
}
