//! `farm up`: every device of a file has its agent, joined. What is so already is left alone; one device that fails does not keep the others.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use futures::{StreamExt, stream};
use polyphony_adb::{Adb, AdbError};
use polyphony_journal::tell;

use super::control_plane::ControlPlane;
use super::file::Farm;
use super::host::{Host, cluster_id};
use super::member::{Member, MemberError, Owner, find};
use super::title::{Title, holders_of_others_names, recorded_key};
use super::twins::{same_as, twins};
use super::{AT_ONCE, FileFlag, blocking, say, turn};
use crate::connection::ClusterFlags;
use crate::duration;
use crate::failure::Failure;
use crate::server::Server;
use crate::verbs::token;
use crate::verbs::up::readiness::readiness;

const POLL: Duration = Duration::from_millis(300);
/// Between two looks at whether the agent of a device still runs: each is a call of adb's.
const LOOK: Duration = Duration::from_secs(2);

/// Have every phone of a file run its agent, joined to the control plane of this machine. Needs one that runs: `polyctl up --phones 0`
#[derive(Debug, Args)]
pub(super) struct FarmUp {
    #[command(flatten)]
    file: FileFlag,
    /// How long each phone may take to join, once its agent is started
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    timeout: Duration,
    /// Take devices that are another farm's, or of another control plane, and remove what that one put on them
    #[arg(long)]
    force: bool,
}

/// What all devices have in common.
struct Shelf {
    farm: Farm,
    host: Host,
    owner: Owner,
    server: Server,
    /// Members that are other members, too.
    twins: BTreeMap<String, String>,
    /// Of the names of its phones, in letters.
    width: usize,
}

/// What became of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Joined,
    PassedOver,
    Failed,
}

// === impl FarmUp ===

impl FarmUp {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        // What a person wrote wrongly is told before anything is asked.
        let farm = Farm::read(&self.file.file)?;
        let plane = ControlPlane::of(cluster).await?;
        let host = Host::of(&plane.folder)?;
        let server = plane.server().await?;
        let id = cluster_id(&server).await?;
        let _turn = turn(&plane.folder)?;
        plane.keep(&id)?;
        let owner = Owner::new(&farm.name, Some(id));
        let adb = Adb::from_environment();
        let members = {
            let (farm, adb) = (farm.clone(), adb.clone());
            blocking(move || find(&farm, &adb)).await??
        };
        if members.is_empty() {
            bail!(AdbError::NoneFits { reasons: Vec::new() });
        }
        let width = members.iter().map(|member| member.phone.len()).max().unwrap_or(0);
        let twins = twins(&members).await?;
        let shelf = Shelf { farm, host, owner, server, twins, width };
        free_names(&shelf, &members).await?;
        let raised = stream::iter(&members).map(async |member| match self.raise(&shelf, member).await {
            Ok(outcome) => (member, outcome),
            Err(error) => {
                tell!("{}: {error:#}", member.title());
                (member, Outcome::Failed)
            }
        });
        let raised: Vec<(&Member, Outcome)> = raised.buffer_unordered(AT_ONCE).collect().await;
        summed_up(&raised)
    }

    /// Brings one device up, and says each step that was needed.
    async fn raise(&self, shelf: &Shelf, member: &Member) -> anyhow::Result<Outcome> {
        let say = |what: &str| say(shelf.width, &member.phone, what);
        if let Some(first) = shelf.twins.get(&member.serial) {
            say(&format!("is left out: {}", same_as(first)));
            return Ok(Outcome::PassedOver);
        }
        let (own, choice) = (member.clone(), shelf.farm.choice.clone());
        let traits = blocking(move || own.traits()).await??;
        if let Some(why) = member.passed_over(&choice, &traits)? {
            say(&format!("is left out: {why}"));
            return Ok(Outcome::PassedOver);
        }
        let (own, owner, force) = (member.clone(), shelf.owner.clone(), self.force);
        let taken = blocking(move || own.take(&owner, &traits, force)).await??;
        if taken.stored.pushed_bytes > 0 {
            say(&format!("has its agent pushed, {} MiB", taken.stored.pushed_bytes.div_ceil(1 << 20)));
        }
        let (own, host) = (member.clone(), shelf.host.clone());
        let began = jiff::Timestamp::now();
        let is_way_new = blocking(move || own.lead(&host)).await??;
        let launch = member.launch(&shelf.host);
        let (own, of_ours) = (member.clone(), launch.clone());
        let (runs, taken) = blocking(move || (own.runs(&taken, &of_ours), taken)).await?;
        let (runs, own) = (runs?, member.clone());
        let key = blocking(move || own.key()).await??;
        let found = shelf.server.find(&phone_path(&member.phone)).await?;
        // One that runs and has not joined yet is still to do so.
        let is_known = found.as_ref().is_some_and(|phone| key.is_none() || recorded_key(phone) == key.as_deref());
        let since = match (runs, is_known) {
            // One whose Phone was deleted, or is another's now, is shut out, and joins by a new token alone.
            (true, true) if is_way_new => {
                say("has its ways to this machine laid anew");
                Some(began)
            }
            (true, true) => None,
            (runs, _) => {
                // A token for a name takes it from whoever has it.
                self.await_name(shelf, member, key.as_deref()).await?;
                let token = token::for_phone(shelf.server.client(), &member.phone).await?.reveal();
                let started = match (runs, taken.has_run) {
                    (true, _) if found.is_some() => "starts its agent anew, since its Phone is of another key",
                    (true, _) => "starts its agent anew, since its Phone is gone",
                    (false, true) => "starts its agent anew, with other settings",
                    (false, false) => "starts its agent",
                };
                let (own, began) = (member.clone(), jiff::Timestamp::now());
                blocking(move || own.start(&taken, &launch, &token)).await??;
                say(started);
                Some(began)
            }
        };
        self.await_joined(shelf, member, since).await?;
        say(match since {
            None => "runs and is joined already",
            Some(_) => "is joined",
        });
        Ok(Outcome::Joined)
    }

    /// Waits until it is seen that no other device answers by the phone's name. `key` is that of its own.
    ///
    /// # Errors
    /// When another does, or may still do so at the end of the time.
    async fn await_name(&self, shelf: &Shelf, member: &Member, key: Option<&str>) -> anyhow::Result<()> {
        let (began, since) = (Instant::now(), jiff::Timestamp::now());
        loop {
            let found = shelf.server.find(&phone_path(&member.phone)).await?;
            let lease = shelf.server.find(&lease_path(&member.phone)).await?;
            match Title::of(&member.phone, found.as_ref(), lease.as_ref(), key, since) {
                Title::Free => return Ok(()),
                Title::Unclear if began.elapsed() < self.timeout => tokio::time::sleep(POLL).await,
                Title::Unclear | Title::Anothers => {
                    return Err(MemberError::NameTaken { phone: member.phone.clone() }.into());
                }
            }
        }
    }

    /// Waits until the API has heard of the phone since then, and by the key of this very device. An agent that ends meanwhile is told at once.
    async fn await_joined(&self, shelf: &Shelf, member: &Member, since: Option<jiff::Timestamp>) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut looked = Instant::now();
        loop {
            let why = match heard_of(&shelf.server, &member.phone, since).await {
                Ok(Ok(recorded)) => {
                    let own = member.clone();
                    match blocking(move || own.key()).await?? {
                        Some(key) if recorded.as_ref() == Some(&key) => return Ok(()),
                        Some(_) => "its Phone is still another device's".to_owned(),
                        None => "its device does not say yet by which key it has joined".to_owned(),
                    }
                }
                Ok(Err(why)) => why,
                Err(failure) if failure.is_transient() => failure.to_string(),
                Err(failure) => return Err(failure.into()),
            };
            if looked.elapsed() >= LOOK {
                let own = member.clone();
                blocking(move || own.check_alive()).await??;
                looked = Instant::now();
            }
            if began.elapsed() >= self.timeout {
                let own = member.clone();
                let words = blocking(move || own.last_words()).await?;
                return Err(MemberError::NotJoined { seconds: self.timeout.as_secs(), why, words }.into());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Ends the agents of devices that answer by names which the file gives to others of its devices: these would wait for them for ever. What does not answer
/// has its verdict when it is raised.
async fn free_names(shelf: &Shelf, members: &[Member]) -> anyhow::Result<()> {
    let known =
        stream::iter(members.iter().filter(|member| !shelf.twins.contains_key(&member.serial))).map(async |member| {
            let (own, owner) = (member.clone(), shelf.owner.clone());
            let key = blocking(move || own.key_of_ours(&owner)).await?.ok().flatten();
            let phone = shelf.server.find(&phone_path(&member.phone)).await?;
            let recorded = phone.as_ref().and_then(recorded_key).map(str::to_owned);
            anyhow::Ok((member, key, recorded))
        });
    let known: Vec<anyhow::Result<_>> = known.buffered(AT_ONCE).collect().await;
    let (mut named, mut keys, mut by_name) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for one in known {
        let (member, key, recorded) = one?;
        named.push((member.serial.clone(), member.phone.clone()));
        keys.extend(key.map(|key| (member.serial.clone(), key)));
        by_name.extend(recorded.map(|key| (member.phone.clone(), key)));
    }
    let holders = holders_of_others_names(&named, &keys, &by_name);
    for member in members.iter().filter(|member| holders.contains(&member.serial)) {
        say(shelf.width, &member.phone, "ends its agent, whose name is another's of this farm now");
        let own = member.clone();
        if let Err(error) = blocking(move || own.halt()).await? {
            tell!("{}: {error}", member.title());
        }
    }
    Ok(())
}

/// The key of the phone that is Ready by what it said after `since`, or why it is not.
async fn heard_of(
    server: &Server,
    phone: &str,
    since: Option<jiff::Timestamp>,
) -> Result<Result<Option<String>, String>, Failure> {
    let found = server.find(&phone_path(phone)).await?;
    let lease = server.find(&lease_path(phone)).await?;
    let recorded = found.as_ref().and_then(recorded_key).map(str::to_owned);
    Ok(readiness(phone, found.as_slice(), lease.as_slice(), since).map(|()| recorded))
}

fn phone_path(phone: &str) -> String {
    format!("/apis/{}/{}/phones/{phone}", polyphony_api::GROUP, polyphony_api::VERSION)
}

fn lease_path(phone: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{phone}", polyphony_api::SYSTEM_NAMESPACE)
}

/// # Errors
/// When not all that were asked for are up; it says which.
fn summed_up(raised: &[(&Member, Outcome)]) -> anyhow::Result<ExitCode> {
    let of = |wanted: Outcome| {
        raised.iter().filter(move |(_, outcome)| *outcome == wanted).map(|(member, _)| member.title())
    };
    let failed: Vec<String> = of(Outcome::Failed).collect();
    let n_members = failed.len() + of(Outcome::Joined).count();
    if n_members == 0 {
        bail!("no device fits the farm: change spec.selector, or name devices in spec.devices");
    }
    if !failed.is_empty() {
        bail!("{} of {n_members} phones did not come up, for the reasons above: {}", failed.len(), failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
