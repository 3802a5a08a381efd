//! One device of a farm: found, taken, given its agent, cleared. What is done here waits for adb; what is decided does not.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use polyphony_adb::installation::Stored;
use polyphony_adb::script::Told;
use polyphony_adb::{Adb, AdbError, Choice, Installation, Launch, Listed, Standing, Traits};

use super::file::{AgentTerms, Entry, Farm, FarmFileError, builds};
use super::host::Host;
use super::title::key_of;
use super::{AGENT, installation, looked_in};

/// Where an agent reads the token that it joins by.
pub(super) const TOKEN_FILE: &str = "join-token";
/// Where it keeps its key and what it joined as.
const DATA_DIR: &str = "data";
/// Of one key, whichever is there: of the host that took it in last, and of one that has not yet.
const PAPERS: [&str; 2] = ["data/identity/papers.json", "data/identity/papers-of-no-welcome-yet.json"];
/// What an agent writes of itself, beside its program; of bounded size.
const LOG_FILE: &str = "agent.log";
/// Lines of it that an error shows.
const LAST_WORDS: usize = 12;
/// A device of a network that was just connected may not answer yet.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
const CONNECT_TRIES: usize = 15;

/// A device of a farm, and what is ours on it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) serial: String,
    pub(super) phone: String,
    is_named: bool,
    terms: AgentTerms,
    pub(super) standing: Option<Standing>,
    adb: Adb,
    place: Installation,
}

/// Whose a device is: the farm's of a file, in one control plane.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owner {
    farm: String,
    /// Which control plane, whatever its address and its authority are; none where it is not known.
    cluster: Option<String>,
}

/// A device that is the farm's, with its agent's program in its store.
pub(super) struct Taken {
    pub(super) stored: Stored,
    /// Whether an agent runs there, of whatever program and flags.
    pub(super) has_run: bool,
}

/// What is seen of a device, as far as it answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) traits: Option<Traits>,
    pub(super) owner: Option<Owner>,
    /// How its agent fares, where it is of some farm.
    pub(super) told: Option<Told>,
    /// The key that it has joined by.
    pub(super) key: Option<String>,
    /// Whether all that its agent has to reach is led to this machine.
    pub(super) is_led: bool,
    /// The last line of an agent that ended.
    pub(super) last_word: Option<String>,
}

/// Why a device is not as the farm wants it.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemberError {
    #[error(transparent)]
    Adb(#[from] AdbError),
    #[error("{why}, and yet spec.devices names it: change the one or the other")]
    Unfit { why: String },
    #[error("it is of {owner}: `polyctl farm down` with the file of that one first, or take it with --force")]
    Owned { owner: Owner },
    #[error(
        "there is no agent for {}: looked for {}; `make android` builds it, or name one with spec.agent.program",
        .abis.join(" or "), looked_in(.looked_for)
    )]
    NoProgram { abis: Vec<String>, looked_for: Vec<PathBuf> },
    #[error("its agent ended ({how}); its last words:\n{}", indented(.words))]
    Ended { how: String, words: Vec<String> },
    #[error(
        "its agent runs, and has not joined within {seconds} s: {why}; its last words:\n{}\nit was left running: `polyctl farm status` looks again",
        indented(.words)
    )]
    NotJoined { seconds: u64, why: String, words: Vec<String> },
    #[error(
        "the Phone {phone} is another device's, which answers by it: give this one another name in spec.devices, or end that one's agent and `polyctl delete phone {phone}`"
    )]
    NameTaken { phone: String },
}

fn indented(lines: &[String]) -> String {
    if lines.is_empty() {
        return "  (it wrote nothing)".to_owned();
    }
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Why there are no members to speak of.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    #[error(transparent)]
    Adb(#[from] AdbError),
    #[error(transparent)]
    File(#[from] FarmFileError),
}

/// The devices of a farm, those that adb does not list included. Starts adb's server where none runs, and has it connect those of a network.
pub(super) fn find(farm: &Farm, adb: &Adb) -> Result<Vec<Member>, FindError> {
    adb.start_server()?;
    let mut listed = adb.devices()?;
    let standing_of = |listed: &[Listed], serial: &str| {
        listed.iter().find(|one| one.serial == serial).map(|one| one.standing.clone())
    };
    let is_away =
        |entry: &Entry| entry.serial.contains(':') && matches!(entry.standing, None | Some(Standing::Offline));
    let away: Vec<String> = farm.entries(&listed)?.into_iter().filter(is_away).map(|entry| entry.serial).collect();
    for serial in &away {
        // What adb knows of one that went is in its own way. Whether it comes is seen from the list.
        if standing_of(&listed, serial).is_some() {
            let _ = adb.call("", &["disconnect", serial], adb.patience.call);
        }
        let _ = adb.call("", &["connect", serial], adb.patience.call);
    }
    if !away.is_empty() {
        for _ in 0..CONNECT_TRIES {
            listed = adb.devices()?;
            if !away.iter().any(|serial| standing_of(&listed, serial) == Some(Standing::Offline)) {
                break;
            }
            thread::sleep(CONNECT_PAUSE);
        }
    }
    Ok(farm.entries(&listed)?.into_iter().map(|entry| Member::new(entry, adb)).collect())
}

// === impl Member ===

impl Member {
    fn new(entry: Entry, adb: &Adb) -> Self {
        let Entry { serial, phone, is_named, agent: terms, standing } = entry;
        let place = installation(adb, &serial);
        Self { serial, phone, is_named, terms, standing, adb: adb.clone(), place }
    }

    /// `phone (serial)`.
    pub(super) fn title(&self) -> String {
        format!("{} ({})", self.phone, self.serial)
    }

    /// # Errors
    /// The verdict on a device that takes no commands.
    pub(super) fn check(&self) -> Result<(), AdbError> {
        match &self.standing {
            None => Err(AdbError::NotListed { serial: self.serial.clone() }),
            Some(standing) => standing.check(),
        }
    }

    /// Why it is none of the farm's, in words; none where it is.
    ///
    /// # Errors
    /// When it does not fit and is named all the same.
    pub(super) fn passed_over(&self, choice: &Choice, traits: &Traits) -> Result<Option<String>, MemberError> {
        match choice.objection(traits) {
            Some(why) if self.is_named => Err(MemberError::Unfit { why }),
            objection => Ok(objection),
        }
    }

    pub(super) fn traits(&self) -> Result<Traits, AdbError> {
        self.check()?;
        self.adb.traits(&self.serial)
    }

    /// Makes it `owner`'s, with the agent's program for it in its store, and lays its ways to the host. What runs there goes on. Says whether a way was
    /// missing.
    ///
    /// # Errors
    /// When it is another farm's and shall not be taken, when there is no program for it, and the verdict on a device that does not do what it is told.
    pub(super) fn take(&self, owner: &Owner, traits: &Traits, take_over: bool) -> Result<Taken, MemberError> {
        let looked_for = self.terms.programs(&traits.abis, &builds());
        let Some(program) = looked_for.iter().find(|program| program.is_file()) else {
            return Err(MemberError::NoProgram { abis: traits.abis.clone(), looked_for });
        };
        let mut has_it = Owner::read(&self.place.claim(&owner.line())?);
        if !has_it.is(owner) && take_over {
            self.place.remove()?;
            has_it = Owner::read(&self.place.claim(&owner.line())?);
        }
        if !has_it.is(owner) {
            return Err(MemberError::Owned { owner: has_it });
        }
        let stored = self.place.bring(program, &traits.abis)?;
        Ok(Taken { stored, has_run: self.place.state(AGENT)? == Told::Running })
    }

    /// Whether a way to the host was missing; it is laid then.
    pub(super) fn lead(&self, host: &Host) -> Result<bool, AdbError> {
        self.place.lay_ways(&host.ports())
    }

    pub(super) fn runs(&self, taken: &Taken, launch: &Launch) -> Result<bool, AdbError> {
        Ok(taken.has_run && self.place.runs(&taken.stored, launch)?)
    }

    /// Starts its agent with a token for its name, in the place of what runs.
    pub(super) fn start(&self, taken: &Taken, launch: &Launch, token: &str) -> Result<(), AdbError> {
        self.place.start(&taken.stored, &[(TOKEN_FILE, token.as_bytes())], launch)
    }

    /// The key by which its agent has joined; none before, and where nothing is left of that.
    pub(super) fn key(&self) -> Result<Option<String>, AdbError> {
        for papers in PAPERS {
            if let Some(key) = key_of(&self.place.read(papers)?) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Its key, where its device is of `owner`'s.
    pub(super) fn key_of_ours(&self, owner: &Owner) -> Result<Option<String>, AdbError> {
        if self.owner()?.is_some_and(|has_it| has_it.is(owner)) { self.key() } else { Ok(None) }
    }

    /// Ends its agent, and leaves all else.
    pub(super) fn halt(&self) -> Result<(), AdbError> {
        self.place.end(AGENT)
    }

    /// # Errors
    /// When its agent does not run any more, or the device does not answer.
    pub(super) fn check_alive(&self) -> Result<(), MemberError> {
        let how = match self.place.state(AGENT)? {
            Told::Running => return Ok(()),
            told => ended(&told),
        };
        Err(MemberError::Ended { how, words: self.last_words() })
    }

    /// What its agent wrote last; nothing where the device does not say.
    pub(super) fn last_words(&self) -> Vec<String> {
        let words = self.place.last_words(AGENT, LOG_FILE, LAST_WORDS).unwrap_or_default();
        words[words.len().saturating_sub(LAST_WORDS)..].to_vec()
    }

    /// How its agent is run: it reaches the host over adb, and is reached by nobody.
    pub(super) fn launch(&self, host: &Host) -> Launch {
        let flags = [
            ("--name", self.phone.clone()),
            ("--hub", format!("127.0.0.1:{}", host.hub_port)),
            ("--token-file", TOKEN_FILE.to_owned()),
            ("--ca-hash", host.ca_hash.to_string()),
            ("--data-dir", DATA_DIR.to_owned()),
            ("--ring-address", "127.0.0.1:0".to_owned()),
            ("--log-file", LOG_FILE.to_owned()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        Launch::of(AGENT, flags.chain(self.terms.arguments()))
    }

    /// All that can be seen of it; `ports` are those of the host, if one runs.
    ///
    /// # Errors
    /// The verdict, where it does not answer any more. What it has said until then is in `seen`.
    pub(super) fn look(&self, ports: Option<&BTreeSet<u16>>, seen: &mut Seen) -> Result<(), AdbError> {
        seen.traits = Some(self.traits()?);
        seen.owner = self.owner()?;
        if seen.owner.is_none() {
            return Ok(());
        }
        let told = self.place.state(AGENT)?;
        if !matches!(told, Told::Running | Told::Never) {
            seen.last_word = self.last_words().pop();
        }
        seen.told = Some(told);
        seen.key = self.key()?;
        seen.is_led = match ports {
            Some(ports) => self.place.leads(ports)?,
            None => true,
        };
        Ok(())
    }

    pub(super) fn owner(&self) -> Result<Option<Owner>, AdbError> {
        Ok(self.place.owner()?.map(|line| Owner::read(&line)))
    }

    /// Ends its agent and removes all that is ours.
    pub(super) fn remove(&self) -> Result<(), AdbError> {
        self.place.remove()
    }
}

/// How an agent ended, in the words of its device.
pub(super) fn ended(told: &Told) -> String {
    match told {
        Told::Exit(code) if *code > 128 => format!("signal: {}", code - 128),
        Told::Exit(code) => format!("exit status: {code}"),
        Told::Gone => "killed, or gone with a restart of the device".to_owned(),
        Told::Never => "it was never started".to_owned(),
        Told::Running => "it runs".to_owned(),
    }
}

// === impl Owner ===

impl Owner {
    pub(super) fn new(farm: &str, cluster: Option<String>) -> Self {
        Self { farm: farm.to_owned(), cluster }
    }

    /// As it is written on a device. What is no such line is of a farm of that name.
    fn read(line: &str) -> Self {
        match line.split_once(' ') {
            Some((farm, cluster)) => Self::new(farm, Some(cluster.to_owned())),
            None => Self::new(line, None),
        }
    }

    fn line(&self) -> String {
        format!("{} {}", self.farm, self.cluster.as_deref().unwrap_or_default()).trim_end().to_owned()
    }

    /// Whether a device of this owner is `ours`. One that names a control plane is not while it is not known which one ours is.
    pub(super) fn is(&self, ours: &Self) -> bool {
        self.farm == ours.farm && (self.cluster.is_none() || self.cluster == ours.cluster)
    }

    /// Whether it could be `ours`, which may not say in which control plane it is.
    pub(super) fn may_be(&self, ours: &Self) -> bool {
        self.is(ours) || self.farm == ours.farm && ours.cluster.is_none()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cluster {
            Some(cluster) => write!(f, "the farm {} of the control plane {cluster}", self.farm),
            None => write!(f, "the farm {}", self.farm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written_and_is_another_control_planes_until_that_is_known() {
        let ours = Owner::new("shelf", Some("u-1".into()));
        assert_eq!(Owner::read(&ours.line()), ours);
        let whoever = Owner::new("shelf", None);
        assert_eq!(Owner::read(&whoever.line()), whoever);
        for (on_device, of_ours, of_whoever) in [
            (ours.clone(), (true, true), (false, true)),
            (whoever.clone(), (true, true), (true, true)),
            (Owner::new("shelf", Some("u-2".into())), (false, false), (false, true)),
            (Owner::new("attic", Some("u-1".into())), (false, false), (false, false)),
            (Owner::read(""), (false, false), (false, false)),
        ] {
            assert_eq!((on_device.is(&ours), on_device.may_be(&ours)), of_ours, "{on_device:?}");
            assert_eq!((on_device.is(&whoever), on_device.may_be(&whoever)), of_whoever, "{on_device:?}");
        }
    }
}
