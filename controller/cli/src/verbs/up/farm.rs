//! The processes of `up` while they are brought up: started where missing, restarted where different, left alone else.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use polyphony_identity::{JoinToken, write_private};

use super::readiness::{fetch_phones, readiness};
use crate::processes::endpoints::{Endpoints, port_of};
use crate::processes::log_file::LogFile;
use crate::processes::program::MissingProgram;
use crate::processes::{ProcessError, Processes, Settings, ports};
use crate::server::Server;
use crate::shell;
use crate::verbs::join_command::routed_address;
use crate::verbs::token;

/// The controller's name among the processes.
pub(crate) const CONTROLLER: &str = "controller";
/// Lines of a log that an error shows.
const LAST_WORDS: usize = 12;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const POLL: Duration = Duration::from_millis(150);
/// How long the controller may take to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Prometheus's name among the processes, which no phone has: a phone's name is `phone-N`.
pub(super) const PROMETHEUS: &str = "prometheus";
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// The processes while they are brought up.
pub(crate) struct Farm {
    pub(crate) processes: Processes,
    data_dir: PathBuf,
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

fn phone_name(idx: u32) -> String {
    format!("phone-{}", idx + 1)
}

// === impl Farm ===

impl Farm {
    /// # Errors
    /// When another `up` or `down` is at work there, or the folder cannot be used.
    pub(crate) fn open(data_dir: PathBuf) -> Result<Self, UpError> {
        Ok(Self { processes: Processes::open(&data_dir)?, data_dir })
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What the last `up` was asked for.
    pub(super) fn last_settings(&self) -> Option<&Settings> {
        self.processes.settings()
    }

    /// Starts the controller unless it runs as asked; `settings` gets the ports that it has then.
    pub(crate) async fn start_controller(
        &mut self,
        program: &Path,
        settings: &mut Settings,
        any_port: [bool; 3],
    ) -> Result<Endpoints, UpError> {
        let last = self.processes.settings().cloned();
        if let Some(running) = self.processes.running(CONTROLLER).cloned() {
            let as_asked = last.is_some_and(|last| {
                let of = |settings: &Settings| {
                    let ports = (settings.api_port, settings.gateway_port, settings.hub_port);
                    let open = (settings.listen, settings.no_auth);
                    (
                        ports,
                        open,
                        settings.grace_period.clone(),
                        settings.cors_origins.clone(),
                        settings.fetching.clone(),
                    )
                };
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

    pub(crate) fn check_alive(&mut self, name: &str) -> Result<(), UpError> {
        let Some(how) = self.processes.ended(name) else { return Ok(()) };
        let log = self.processes.log(name).path().to_owned();
        Err(UpError::Ended { name: name.to_owned(), how, log, words: self.processes.last_words(name, LAST_WORDS) })
    }

    /// Makes the phones those that are asked for: starts the missing, restarts the different, stops the surplus.
    pub(crate) async fn start_agents(
        &mut self,
        program: &Path,
        settings: &Settings,
        endpoints: &Endpoints,
        server: &Server,
    ) -> anyhow::Result<()> {
        let names: Vec<String> = (0..settings.phones).map(phone_name).collect();
        let surplus: Vec<String> = self
            .processes
            .all_running()
            .into_iter()
            .map(|process| process.name)
            .filter(|name| name != CONTROLLER && name != PROMETHEUS && !names.contains(name))
            .collect();
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
            // It joins by it where it has not joined yet, or was deleted meanwhile.
            self.give_token(&name, &token::for_phone(server.client(), &name).await?)?;
            let pid = self.processes.start(&name, program, arguments)?.pid;
            say(&name, &format!("started (pid {pid})"));
        }
        Ok(())
    }

    /// Writes a phone's join token where its agent reads it.
    fn give_token(&self, phone: &str, token: &JoinToken) -> anyhow::Result<()> {
        let path = token_path(&self.data_dir, phone);
        let written = || {
            std::fs::create_dir_all(path.parent().unwrap_or(&self.data_dir))?;
            write_private(&path, token.reveal().as_bytes())
        };
        written().with_context(|| format!("cannot write the join token {}", path.display()))
    }

    pub(super) async fn await_ready(
        &mut self,
        server: &Server,
        settings: &Settings,
        timeout: Duration,
    ) -> anyhow::Result<()> {
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

    pub(super) fn summarise(
        &self,
        settings: &Settings,
        endpoints: &Endpoints,
        prometheus_url: Option<&str>,
        names_data_dir: bool,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let phones =
            if settings.phones == 1 { "1 phone is".to_owned() } else { format!("{} phones are", settings.phones) };
        let kubeconfig = shell::path(&self.data_dir.join("kubeconfig"));
        writeln!(out, "\n{phones} Ready, each with {} for segments.", settings.phone_memory)?;
        writeln!(out, "Gateway (OpenAI-compatible):  {}/v1", endpoints.gateway.trim_end_matches('/'))?;
        if let Some(url) = prometheus_url {
            writeln!(out, "Prometheus:                   {url}")?;
        }
        writeln!(out, "For polyctl and kubectl:      export KUBECONFIG={kubeconfig}")?;
        writeln!(out, "Next:                         polyctl apply -f manifests/smollm2.yaml")?;
        let flag = if names_data_dir { format!(" --data-dir {}", shell::path(&self.data_dir)) } else { String::new() };
        writeln!(out, "To stop it:                   polyctl down{flag}")
    }
}

/// A line about a process, told as it happens.
pub(super) fn say(name: &str, what: &str) {
    let mut out = io::stdout().lock();
    // A reader that has gone must not stop what is being started.
    let _ = writeln!(out, "{name:<12} {what}").and_then(|()| out.flush());
}

fn controller_arguments(data_dir: &Path, settings: &Settings) -> Vec<String> {
    let mut arguments = vec![
        "--data-dir".into(),
        data_dir.display().to_string(),
        "--api-address".into(),
        format!("127.0.0.1:{}", settings.api_port),
        "--gateway-address".into(),
        SocketAddr::new(settings.listen.unwrap_or(LOOPBACK), settings.gateway_port).to_string(),
        "--hub-address".into(),
        SocketAddr::new(settings.listen.unwrap_or(LOOPBACK), settings.hub_port).to_string(),
        "--grace-period".into(),
        settings.grace_period.clone(),
        "--log-file".into(),
        log_path(data_dir, CONTROLLER),
    ];
    // Who has just made a shelf makes keys next.
    let of_keys = if settings.no_auth { "--no-auth" } else { "--await-keys" };
    arguments.push(of_keys.into());
    arguments.extend(settings.cors_origins.iter().flat_map(|origin| ["--cors-origin".to_owned(), origin.clone()]));
    arguments.extend(settings.fetching.arguments());
    arguments
}

fn agent_arguments(data_dir: &Path, name: &str, settings: &Settings, endpoints: &Endpoints) -> Vec<String> {
    let mut arguments = vec![
        "--name".into(),
        name.to_owned(),
        "--hub".into(),
        endpoints.hub.clone(),
        "--token-file".into(),
        token_path(data_dir, name).display().to_string(),
        "--ca-hash".into(),
        endpoints.ca_hash.to_string(),
        "--data-dir".into(),
        data_dir.join("phones").join(name).display().to_string(),
        "--memory".into(),
        settings.phone_memory.clone(),
        "--backend".into(),
        settings.backend.clone(),
        "--threads".into(),
        threads_a_phone(settings.phones).to_string(),
        "--log-file".into(),
        log_path(data_dir, name),
    ];
    // Phones of other machines are their neighbours then.
    let reached = settings.listen.map(|listen| if listen.is_unspecified() { routed_address() } else { Some(listen) });
    if let Some(address) = reached.flatten() {
        arguments.extend(["--ring-address".into(), SocketAddr::new(address, 0).to_string()]);
    }
    arguments
}

/// A phone alone takes the big cores; several share them, however many there are, so that one more changes nothing of the others.
fn threads_a_phone(phones: u32) -> u32 {
    u32::from(phones > 1)
}

fn token_path(data_dir: &Path, phone: &str) -> PathBuf {
    data_dir.join("phones").join(format!("{phone}.join-token"))
}

/// The file that the process's output goes to in any case; it keeps that file within bounds when it knows of it.
fn log_path(data_dir: &Path, name: &str) -> String {
    LogFile::new(data_dir, name).path().display().to_string()
}
