//! `up`: a control plane and phones on this machine, as processes that outlive this one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::connection::ClusterFlags;
use crate::duration;
use crate::processes::endpoints::{Endpoints, port_of};
use crate::processes::program::{self, MissingProgram};
use crate::processes::{Process, ProcessError, Processes, Settings, ports};
use crate::server::Server;

const CONTROLLER: &str = "controller";
/// Lines of a log that an error shows.
const LAST_WORDS: usize = 12;
const POLL: Duration = Duration::from_millis(150);
/// How long the controller may take to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Start a control plane and phones on this machine. What runs already is left alone; a flag that changes it restarts it.
#[derive(Debug, Args)]
pub struct Up {
    /// How many phones (3, or as many as last time)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=64))]
    phones: Option<u32>,
    /// Memory that each phone gives to segments, such as 80Mi [default: 80Mi]
    #[arg(long, value_name = "QUANTITY", value_parser = parse_memory)]
    phone_memory: Option<String>,
    /// What the phones compute with [default: auto]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Backend>,
    /// The Kubernetes API's port [default: 7443]; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// The OpenAI-compatible gateway's port [default: 8080]; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    gateway_port: Option<u16>,
    /// The port that phones dial [default: 7700]; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    hub_port: Option<u16>,
    /// How long a silent phone keeps its segments [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_grace_period)]
    grace_period: Option<String>,
    /// How long the phones may take to be Ready
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Backend {
    Auto,
    Vulkan,
    Cpu,
}

fn parse_memory(text: &str) -> Result<String, String> {
    match polyphony_api::quantity::parse_bytes(text) {
        Ok(0) => Err("a phone needs some memory, such as 80Mi".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// In the one form that the controller reads.
fn parse_grace_period(text: &str) -> Result<String, duration::DurationError> {
    duration::parse(text).map(|grace_period| format!("{}ms", grace_period.as_millis()))
}

/// Why not everything is up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Program(#[from] MissingProgram),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nerror: "))]
    Ports(Vec<ports::PortInUse>),
    #[error("{name} ended ({how}); its last words in {}:\n{}", .log.display(), indented(.words))]
    Ended { name: String, how: String, log: PathBuf, words: Vec<String> },
    #[error("the controller does not listen after {} s: {} is missing; its last words in {}:\n{}", LISTEN_TIMEOUT.as_secs(), .endpoints.display(), .log.display(), indented(.words))]
    NotListening { endpoints: PathBuf, log: PathBuf, words: Vec<String> },
    #[error("not every phone is Ready after {} s:\n{}\neverything was left running: look at `polyctl logs PHONE`, give it longer with --timeout, or stop it with `polyctl down`", .seconds, indented(.phones))]
    NotReady { seconds: u64, phones: Vec<String> },
}

fn indented(lines: &[String]) -> String {
    if lines.is_empty() {
        return "  (it wrote nothing)".to_owned();
    }
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

// === impl Up ===

impl Up {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = std::path::absolute(cluster.data_dir()?)?;
        let (controller, agent) = (program::find("polyphony-controller"), program::find("polyphony-agent"));
        let mut farm = Farm { processes: Processes::open(&data_dir)?, data_dir };
        let mut settings = self.settings(farm.processes.settings());
        let endpoints = farm.start_controller(&controller.map_err(UpError::from)?, &mut settings, self.any_port()).await?;
        farm.start_agents(&agent.map_err(UpError::from)?, &settings, &endpoints).await?;
        // This control plane, whatever else the flags or the environment name.
        let own = ClusterFlags { data_dir: Some(farm.data_dir.clone()), ..ClusterFlags::default() };
        let server = own.connect().await?.server;
        farm.await_ready(&server, &settings, self.timeout).await?;
        farm.summarise(&settings, &endpoints, cluster.data_dir.is_some())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Flags, else what the last `up` had, else the defaults.
    fn settings(&self, last: Option<&Settings>) -> Settings {
        let text = |flag: &Option<String>, last: Option<&String>, default: &str| flag.clone().or(last.cloned()).unwrap_or_else(|| default.to_owned());
        let backend = self.backend.and_then(|backend| backend.to_possible_value()).map(|value| value.get_name().to_owned());
        // Any free port may as well be the last one, which agents dial still.
        let port = |flag: Option<u16>, last: Option<u16>, default: u16| match flag {
            Some(0) => last.unwrap_or(0),
            Some(port) => port,
            None => last.unwrap_or(default),
        };
        Settings {
            phones: self.phones.or(last.map(|last| last.phones)).unwrap_or(3),
            phone_memory: text(&self.phone_memory, last.map(|last| &last.phone_memory), "80Mi"),
            backend: text(&backend, last.map(|last| &last.backend), "auto"),
            grace_period: text(&self.grace_period, last.map(|last| &last.grace_period), "5000ms"),
            api_port: port(self.api_port, last.map(|last| last.api_port), 7443),
            gateway_port: port(self.gateway_port, last.map(|last| last.gateway_port), 8080),
            hub_port: port(self.hub_port, last.map(|last| last.hub_port), 7700),
        }
    }

    /// Which of API, gateway and hub may have any free port.
    fn any_port(&self) -> [bool; 3] {
        [self.api_port, self.gateway_port, self.hub_port].map(|flag| flag == Some(0))
    }
}

/// The processes while they are brought up.
struct Farm {
    processes: Processes,
    data_dir: PathBuf,
}

fn phone_name(idx: u32) -> String {
    format!("phone-{}", idx + 1)
}

// === impl Farm ===

impl Farm {
    /// Starts the controller unless it runs as asked; `settings` gets the ports that it has then.
    async fn start_controller(&mut self, program: &Path, settings: &mut Settings, any_port: [bool; 3]) -> Result<Endpoints, UpError> {
        let last = self.processes.settings().cloned();
        if let Some(running) = self.processes.running(CONTROLLER).cloned() {
            let as_asked = last.is_some_and(|last| {
                let of = |settings: &Settings| (settings.api_port, settings.gateway_port, settings.hub_port, settings.grace_period.clone());
                of(&last) == of(settings)
            });
            if as_asked {
                say(CONTROLLER, &format!("runs already (pid {})", running.pid));
                let endpoints = self.await_endpoints(running.pid).await?;
                self.record(settings, &endpoints)?;
                return Ok(endpoints);
            }
            say(CONTROLLER, "restarts with other settings");
            self.processes.stop(&[CONTROLLER.to_owned()], STOP_PATIENCE).await?;
        }
        let mut taken = Vec::new();
        let wanted = [
            (&mut settings.api_port, "API", "--api-port"),
            (&mut settings.gateway_port, "gateway", "--gateway-port"),
            (&mut settings.hub_port, "hub", "--hub-port"),
        ];
        for ((port, purpose, flag), any) in wanted.into_iter().zip(any_port) {
            match ports::check(*port, purpose, flag) {
                Ok(()) => {}
                Err(_) if any => *port = 0,
                Err(in_use) => taken.push(in_use),
            }
        }
        if !taken.is_empty() {
            return Err(UpError::Ports(taken));
        }
        Endpoints::forget(&self.data_dir);
        let arguments = controller_arguments(&self.data_dir, settings);
        let pid = self.processes.start(CONTROLLER, program, arguments)?.pid;
        let endpoints = self.await_endpoints(pid).await?;
        self.record(settings, &endpoints)?;
        say(CONTROLLER, &format!("started (pid {pid})"));
        Ok(endpoints)
    }

    fn record(&mut self, settings: &mut Settings, endpoints: &Endpoints) -> Result<(), UpError> {
        let port = |address: &str, asked: u16| port_of(address).unwrap_or(asked);
        settings.api_port = port(&endpoints.api, settings.api_port);
        settings.gateway_port = port(&endpoints.gateway, settings.gateway_port);
        settings.hub_port = port(&endpoints.hub, settings.hub_port);
        Ok(self.processes.set_settings(settings.clone())?)
    }

    async fn await_endpoints(&mut self, pid: u32) -> Result<Endpoints, UpError> {
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        loop {
            if let Some(endpoints) = Endpoints::read(&self.data_dir).filter(|endpoints| endpoints.pid == pid) {
                return Ok(endpoints);
            }
            self.check_alive(CONTROLLER)?;
            if Instant::now() >= deadline {
                return Err(UpError::NotListening {
                    endpoints: self.data_dir.join("endpoints.json"),
                    log: self.processes.log(CONTROLLER).path().to_owned(),
                    words: self.processes.last_words(CONTROLLER, LAST_WORDS),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn check_alive(&mut self, name: &str) -> Result<(), UpError> {
        let Some(how) = self.processes.ended(name) else { return Ok(()) };
        let log = self.processes.log(name).path().to_owned();
        Err(UpError::Ended { name: name.to_owned(), how, log, words: self.processes.last_words(name, LAST_WORDS) })
    }

    /// Makes the phones those that are asked for: starts the missing, restarts the different, stops the surplus.
    async fn start_agents(&mut self, program: &Path, settings: &Settings, endpoints: &Endpoints) -> Result<(), UpError> {
        let names: Vec<String> = (0..settings.phones).map(phone_name).collect();
        let surplus: Vec<String> =
            self.processes.all_running().into_iter().map(|process| process.name).filter(|name| name != CONTROLLER && !names.contains(name)).collect();
        for (process, how) in self.processes.stop(&surplus, STOP_PATIENCE).await? {
            say(&process.name, &format!("{how}: {} phones were asked for", settings.phones));
        }
        for name in names {
            let arguments = agent_arguments(&self.data_dir, &name, settings, endpoints);
            if let Some(running) = self.processes.running(&name).cloned() {
                if running.arguments == arguments {
                    say(&name, &format!("runs already (pid {})", running.pid));
                    continue;
                }
                say(&name, "restarts with other settings");
                self.processes.stop(std::slice::from_ref(&name), STOP_PATIENCE).await?;
            }
            let pid = self.processes.start(&name, program, arguments)?.pid;
            say(&name, &format!("started (pid {pid})"));
        }
        Ok(())
    }

    async fn await_ready(&mut self, server: &Server, settings: &Settings, timeout: Duration) -> anyhow::Result<()> {
        let names: Vec<String> = (0..settings.phones).map(phone_name).collect();
        let deadline = Instant::now() + timeout;
        loop {
            self.check_alive(CONTROLLER)?;
            for name in &names {
                self.check_alive(name)?;
            }
            let answer = fetch_phones(server).await;
            let started = |name: &str| self.processes.running(name).map(|process| process.started_at);
            let waiting: Vec<(String, String)> = names
                .iter()
                .filter_map(|name| {
                    let since = started(name).max(started(CONTROLLER));
                    let why = match &answer {
                        Ok((phones, leases)) => readiness(name, phones, leases, since).err()?,
                        Err(failure) => failure.to_string(),
                    };
                    Some((name.clone(), why))
                })
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let mut lines = Vec::new();
                for (name, why) in waiting {
                    lines.push(format!("{name}: {why}"));
                    lines.extend(self.processes.last_words(&name, 3).into_iter().map(|line| format!("    | {line}")));
                }
                return Err(UpError::NotReady { seconds: timeout.as_secs(), phones: lines }.into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn summarise(&self, settings: &Settings, endpoints: &Endpoints, names_data_dir: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let phones = if settings.phones == 1 { "1 phone is".to_owned() } else { format!("{} phones are", settings.phones) };
        let data_dir = self.data_dir.display();
        writeln!(out, "\n{phones} Ready, each with {} for segments.", settings.phone_memory)?;
        writeln!(out, "Gateway (OpenAI-compatible):  {}/v1", endpoints.gateway.trim_end_matches('/'))?;
        writeln!(out, "For polyctl and kubectl:      export KUBECONFIG={data_dir}/kubeconfig")?;
        writeln!(out, "Next:                         polyctl apply -f manifests/smollm2.yaml")?;
        let flag = if names_data_dir { format!(" --data-dir {data_dir}") } else { String::new() };
        writeln!(out, "To stop it:                   polyctl down{flag}")
    }
}

/// A line about a process, told as it happens.
fn say(name: &str, what: &str) {
    let mut out = io::stdout().lock();
    // A reader that has gone must not stop what is being started.
    let _ = writeln!(out, "{name:<12} {what}").and_then(|()| out.flush());
}

fn controller_arguments(data_dir: &Path, settings: &Settings) -> Vec<String> {
    vec![
        "--data-dir".into(),
        data_dir.display().to_string(),
        "--api-address".into(),
        format!("127.0.0.1:{}", settings.api_port),
        "--gateway-address".into(),
        format!("127.0.0.1:{}", settings.gateway_port),
        "--hub-address".into(),
        format!("127.0.0.1:{}", settings.hub_port),
        "--grace-period".into(),
        settings.grace_period.clone(),
    ]
}

fn agent_arguments(data_dir: &Path, name: &str, settings: &Settings, endpoints: &Endpoints) -> Vec<String> {
    vec![
        "--name".into(),
        name.to_owned(),
        "--hub".into(),
        endpoints.hub.clone(),
        "--token-file".into(),
        data_dir.join("join-token").display().to_string(),
        "--data-dir".into(),
        data_dir.join("phones").join(name).display().to_string(),
        "--memory".into(),
        settings.phone_memory.clone(),
        "--backend".into(),
        settings.backend.clone(),
    ]
}

async fn fetch_phones(server: &Server) -> Result<(Vec<Value>, Vec<Value>), crate::failure::Failure> {
    let phones = server.list(&format!("/apis/{}/{}/phones", polyphony_api::GROUP, polyphony_api::VERSION)).await?;
    let leases = server.list(&format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", polyphony_api::SYSTEM_NAMESPACE)).await?;
    Ok((phones, leases))
}

/// Whether a phone is Ready by what it said after `since`: a control plane that was killed remembers phones as Ready.
fn readiness(name: &str, phones: &[Value], leases: &[Value], since: Option<jiff::Timestamp>) -> Result<(), String> {
    let named = |object: &&Value| object["metadata"]["name"] == name;
    let Some(phone) = phones.iter().find(named) else {
        return Err("it has not joined".to_owned());
    };
    let conditions = phone["status"]["conditions"].as_array();
    let Some(ready) = conditions.and_then(|conditions| conditions.iter().find(|condition| condition["type"] == "Ready")) else {
        return Err("it has joined and says nothing of itself yet".to_owned());
    };
    let text = |field: &str| ready[field].as_str().unwrap_or_default();
    if text("status") != "True" {
        return Err(format!("Ready={} ({}): {}", text("status"), text("reason"), text("message")));
    }
    let renewed = leases.iter().find(named).and_then(|lease| lease["spec"]["renewTime"].as_str()?.parse::<jiff::Timestamp>().ok());
    match (renewed, since) {
        // Lease times may be cut to whole seconds.
        (Some(renewed), Some(since)) if renewed.as_second() < since.as_second() => {
            Err("it has not been heard of since it was started".to_owned())
        }
        _ => Ok(()),
    }
}

/// Every process that runs, for `down`: the controller first, so that no phone's end is taken for a loss.
pub(crate) fn in_stopping_order(running: &[Process]) -> (Vec<String>, Vec<String>) {
    let names = running.iter().map(|process| process.name.clone());
    names.partition(|name| name == CONTROLLER)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn up(line: &[&str]) -> Up {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            up: Up,
        }
        <Line as clap::Parser>::try_parse_from(std::iter::once(&"up").chain(line)).unwrap().up
    }

    #[test]
    fn settings_are_flags_then_the_last_time_then_defaults() {
        let first = up(&["--phones", "2", "--gateway-port", "0"]).settings(None);
        assert_eq!((first.phones, first.gateway_port, first.api_port, first.phone_memory.as_str()), (2, 0, 7443, "80Mi"));
        let last = Settings { gateway_port: 4567, ..first };
        let second = up(&["--phone-memory", "1Gi", "--backend", "cpu"]).settings(Some(&last));
        assert_eq!((second.phones, second.gateway_port, second.phone_memory.as_str(), second.backend.as_str()), (2, 4567, "1Gi", "cpu"));
        assert_eq!(up(&["--gateway-port", "0"]).settings(Some(&last)).gateway_port, 4567);
    }

    #[test]
    fn a_phone_counts_as_ready_only_by_what_it_said_since_its_start() {
        let phone = |status: &str| json!({"metadata": {"name": "phone-1"}, "status": {"conditions": [
            {"type": "Ready", "status": status, "reason": "Joined", "message": "hello"}]}});
        let lease = |time: &str| json!({"metadata": {"name": "phone-1"}, "spec": {"renewTime": time}});
        let since: Option<jiff::Timestamp> = Some("2026-01-01T00:00:10.7Z".parse().unwrap());
        let (early, late) = (lease("2026-01-01T00:00:09.000000Z"), lease("2026-01-01T00:00:10.000000Z"));
        for (phones, leases, expected) in [
            (vec![], vec![], Err("it has not joined")),
            (vec![json!({"metadata": {"name": "phone-1"}})], vec![], Err("it has joined and says nothing of itself yet")),
            (vec![phone("Unknown")], vec![late.clone()], Err("Ready=Unknown (Joined): hello")),
            (vec![phone("True")], vec![early], Err("it has not been heard of since it was started")),
            (vec![phone("True")], vec![late], Ok(())),
            (vec![phone("True")], vec![], Ok(())),
        ] {
            assert_eq!(readiness("phone-1", &phones, &leases, since), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn memory_that_is_no_quantity_is_refused_at_the_flag() {
        assert_eq!(parse_memory("80Mi"), Ok("80Mi".to_owned()));
        assert!(parse_memory("lots").unwrap_err().contains("80Mi"));
        assert!(parse_memory("0").is_err());
    }
}
