//! The invocation: a command line as one of four wishes: run with every flag, `join` a host, `run` again what was joined, or see the `doctor`. And
//! one that an agent has of itself.
//!
//! `join` and `run` take every flag that running takes, so that a new flag is known to all three at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use polyphony_identity::{Digest, JoinToken};

use crate::flags::Flags;

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Everything is said.
    Run(Box<Flags>),
    /// Join a host and remember it.
    Join(Request),
    /// Run again what was joined.
    Again(Request),
    /// Say what this phone computes with.
    Doctor(Request),
    /// Measure the GPU for the agent that asks.
    Measure { data_dir: PathBuf, memory_bytes: u64, sabotage_file: Option<PathBuf> },
}

/// What was said to `join` or `run`; the rest is remembered, found or defaulted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// HOST:PORT or HOST.
    pub address: Option<String>,
    pub ca_hash: Option<Digest>,
    /// The join token itself, of who has it in hand; no flag gives it.
    pub token: Option<JoinToken>,
    pub token_file: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub log_file: Option<PathBuf>,
    /// All other flags that were given, by name without hyphens in front; a switch is `true`.
    pub flags: BTreeMap<String, String>,
}

const EXAMPLES: &str = "Examples:
  POLYPHONY_JOIN_TOKEN=TOKEN polyphony-agent join 192.168.1.10:7700 --ca-hash sha256:HASH
                              the line that `polyctl join-command` prints on the host
  POLYPHONY_JOIN_TOKEN=TOKEN polyphony-agent join --ca-hash sha256:HASH
                              look for that host on this network by mDNS
  polyphony-agent join        join again the host that was joined before
  polyphony-agent run         the same for a service: waits for the host for ever";

const DOCTOR: &str = "doctor";
const MEASURE: &str = "measure";

/// Flags of running that a request holds apart, or that are none of its own.
const APART: [&str; 6] = ["ca_hash", "token_file", "data_dir", "log_file", "help", "version"];

// === impl Invocation ===

impl Invocation {
    /// The file that the log is to go to, where one was named.
    pub fn log_file(&self) -> Option<&Path> {
        match self {
            Self::Run(flags) => flags.log_file.as_deref(),
            Self::Join(request) | Self::Again(request) | Self::Doctor(request) => request.log_file.as_deref(),
            Self::Measure { .. } => None,
        }
    }
}

/// Reads a command line, the program's name included.
///
/// # Errors
/// clap's error, which prints itself; `--help` and `--version` are errors of that kind too.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    match matches.subcommand() {
        Some(("join", given)) => Ok(Invocation::Join(request(given)?)),
        Some((DOCTOR, given)) => Ok(Invocation::Doctor(request(given)?)),
        Some((MEASURE, given)) => Ok(Invocation::Measure {
            data_dir: given.get_one::<PathBuf>("data_dir").cloned().unwrap_or_default(),
            memory_bytes: given.get_one::<u64>("memory").copied().unwrap_or_default(),
            sabotage_file: given.get_one::<PathBuf>("sabotage_file").cloned(),
        }),
        Some((_, given)) => Ok(Invocation::Again(request(given)?)),
        None => Ok(Invocation::Run(Box::new(Flags::from_arg_matches(&matches)?))),
    }
}

/// The flags of running, put together from what `join` knows.
///
/// # Errors
/// clap's error, such as for a name that is none.
pub fn flags(given: &BTreeMap<String, String>) -> Result<Flags, clap::Error> {
    let command = Flags::command();
    let switches: Vec<&str> = command.get_arguments().filter(|arg| is_switch(arg)).filter_map(Arg::get_long).collect();
    let argument = |(name, value): (&String, &String)| {
        if switches.contains(&name.as_str()) { format!("--{name}") } else { format!("--{name}={value}") }
    };
    let arguments = std::iter::once("polyphony-agent".to_owned()).chain(given.iter().map(argument));
    Flags::from_arg_matches(&Flags::command().try_get_matches_from(arguments)?)
}

fn command() -> Command {
    let join = friendly("join")
        .about("Join a host and run; hub and flags are remembered")
        .arg(
            Arg::new("address")
                .value_name("HOST:PORT")
                .help("The host's hub; found on this network by mDNS when left out"),
        )
        .after_help(EXAMPLES);
    let run = friendly("run").about("Run again as joined before, and wait for the host for ever");
    let doctor = friendly(DOCTOR).about("Check and measure what this phone computes with, and say what was found");
    // An agent's word to itself.
    let measure = friendly(MEASURE).hide(true);
    Flags::command()
        .subcommands([join, run, doctor, measure])
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
}

/// The flags of running with nothing required.
fn friendly(name: &'static str) -> Command {
    Flags::command()
        .name(name)
        .disable_version_flag(true)
        .mut_arg("name", |arg| arg.required(false).help("The phone's name: lower-case letters, digits and hyphens; the default is the host name"))
        .mut_arg("hub", |arg| arg.required(false).hide(true))
        .mut_arg("data_dir", |arg| arg.required(false).help("Folder for this device's key, cached weights and what was joined; the default is ~/.polyphony/agent"))
        .mut_arg("ring_address", |arg| {
            arg.default_value(None).help("Where previous stages dial this phone; the default is a free port of the address that reaches the host")
        })
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn request(given: &ArgMatches) -> Result<Request, clap::Error> {
    let mut flags = BTreeMap::new();
    for arg in Flags::command().get_arguments() {
        let (id, Some(long)) = (arg.get_id().as_str(), arg.get_long()) else { continue };
        if APART.contains(&id) || given.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let value =
            if is_switch(arg) { Some("true") } else { given.get_raw(id).and_then(|mut raw| raw.next()?.to_str()) };
        let not_text = || clap::Error::raw(clap::error::ErrorKind::InvalidUtf8, format!("--{long} is not UTF-8\n"));
        flags.insert(long.to_owned(), value.ok_or_else(not_text)?.to_owned());
    }
    let address = given.try_get_one::<String>("address").ok().flatten().cloned();
    Ok(Request {
        address: flags.remove("hub").or(address),
        ca_hash: given.get_one::<Digest>("ca_hash").copied(),
        token: None,
        token_file: given.get_one::<PathBuf>("token_file").cloned(),
        data_dir: given.get_one::<PathBuf>("data_dir").cloned(),
        log_file: given.get_one::<PathBuf>("log_file").cloned(),
        flags,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(line: &str) -> Result<Invocation, String> {
        parse(line.split(' ').map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_grammar_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn running_with_every_flag_needs_no_verb() {
        let line = "polyphony-agent --name phone-1 --hub 127.0.0.1:7700 --data-dir d --token-file t";
        let Invocation::Run(flags) = read(line).unwrap() else { panic!("another wish") };
        assert_eq!((flags.name.as_str(), flags.hub.as_str()), ("phone-1", "127.0.0.1:7700"));
        assert!(read("polyphony-agent --hub 127.0.0.1:7700").unwrap_err().contains("--name"));
    }

    #[test]
    fn a_join_takes_an_address_and_keeps_only_what_was_said() {
        let hash = Digest::of_spki(b"root");
        let line = format!("polyphony-agent join desk:7700 --ca-hash {hash} --memory 80Mi --threads 2");
        let Invocation::Join(request) = read(&line).unwrap() else { panic!("another wish") };
        assert_eq!((request.address.as_deref(), request.ca_hash), (Some("desk:7700"), Some(hash)));
        let said: Vec<_> = request.flags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(said, [("memory", "80Mi"), ("threads", "2")]);
        let Invocation::Again(request) = read("polyphony-agent run").unwrap() else { panic!("another wish") };
        assert_eq!(request, Request::default());
        assert!(read("polyphony-agent join --ca-hash sha256:12").unwrap_err().contains("no digest of a key"));
        assert!(read("polyphony-agent join --name Phone_1").unwrap_err().contains("lower-case"));
    }

    #[test]
    fn an_agent_asks_itself_what_a_gpu_does() {
        let Invocation::Measure { data_dir, memory_bytes, sabotage_file } =
            read("polyphony-agent measure --memory 99 --data-dir d --sabotage-file s").unwrap()
        else {
            panic!("another wish")
        };
        assert_eq!((data_dir, memory_bytes, sabotage_file), (PathBuf::from("d"), 99, Some(PathBuf::from("s"))));
    }

    #[test]
    fn what_is_remembered_becomes_flags_again() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let given = BTreeMap::from([
            pair("name", "phone-1"),
            pair("hub", "h:1"),
            pair("data-dir", "d"),
            pair("memory", "80Mi"),
            pair("threads", "2"),
        ]);
        let flags = flags(&given).unwrap();
        assert_eq!((flags.memory, flags.threads, flags.name.as_str()), (Some(80 << 20), 2, "phone-1"));
    }
}
