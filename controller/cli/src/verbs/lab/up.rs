//! `lab up`: a control plane as `up` starts it, then the keeper with the phones of a file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use polyphony_farm::NamespaceFarm;
use polyphony_farm::lab::Lab;

use super::LAB;
use super::question::{Question, ask};
use super::status::table;
use super::terms::Terms;
use crate::connection::ClusterFlags;
use crate::duration;
use crate::processes::endpoints::Endpoints;
use crate::processes::{Fetching, Settings, program};
use crate::server::Server;
use crate::shell;
use crate::verbs::up::farm::{Farm, UpError};
use crate::verbs::up::readiness::{fetch_phones, readiness};

const POLL: Duration = Duration::from_millis(150);
const LAST_WORDS: usize = 12;

/// Start a control plane and the phones of a file, in namespaces of this machine
#[derive(Debug, Args)]
pub(super) struct LabUp {
    /// The lab: phones and their links, as in manifests/lab
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    terms: Terms,
    /// The Kubernetes API's port; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 7443)]
    api_port: u16,
    /// The OpenAI-compatible gateway's port; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    gateway_port: u16,
    /// The port that phones dial; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 7700)]
    hub_port: u16,
    /// How long a silent phone keeps its segments
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    grace_period: Duration,
    /// How long all may take until every phone is Ready
    #[arg(long, value_name = "DURATION", default_value = "180s", value_parser = duration::parse)]
    timeout: Duration,
}

// === impl LabUp ===

impl LabUp {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = super::data_dir(&cluster)?;
        let file = std::path::absolute(&self.file)?;
        // What a person wrote wrongly is told before anything is started.
        let lab = Lab::read(&file)?;
        if let Some(why) = NamespaceFarm::obstacle() {
            bail!("this machine cannot hold a lab: {why}");
        }
        let controller = program::find("polyphony-controller")?;
        let agent = program::find("polyphony-agent")?;
        let deadline = Instant::now() + self.timeout;
        let mut farm = Farm::open(data_dir.clone())?;
        if farm.processes.running(LAB).is_some() {
            bail!("a lab runs in {} already: `polyctl lab down` ends it", data_dir.display());
        }
        let mut settings = self.settings();
        let any_port = [self.api_port, self.gateway_port, self.hub_port].map(|port| port == 0);
        let endpoints = farm.start_controller(&controller, &mut settings, any_port).await?;
        let own = ClusterFlags { data_dir: Some(data_dir.clone()), ..ClusterFlags::default() };
        let server = own.connect().await?.server;
        // Phones of an earlier `up` would be Ready beside those of the lab.
        farm.start_agents(&agent, &settings, &endpoints, &server).await?;
        self.start_keeper(&mut farm, &file, &data_dir, deadline).await?;
        await_ready(&mut farm, &server, &lab, deadline).await?;
        if let super::Answer::Status { status } = ask(&data_dir, &Question::Status).await? {
            write!(io::stdout(), "\n{}", table(&status))?;
        }
        summarise(&endpoints, &data_dir, cluster.data_dir.is_some())?;
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self) -> Settings {
        Settings {
            phones: 0,
            // For phones that a later `up` starts beside the lab's.
            phone_memory: "112Mi".to_owned(),
            backend: "cpu".to_owned(),
            grace_period: format!("{}ms", self.grace_period.as_millis()),
            api_port: self.api_port,
            gateway_port: self.gateway_port,
            hub_port: self.hub_port,
            listen: None,
            no_auth: false,
            cors_origins: Vec::new(),
            fetching: Fetching::default(),
        }
    }

    async fn start_keeper(
        &self,
        farm: &mut Farm,
        file: &Path,
        data_dir: &Path,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        // One that was killed leaves it, and it must not be taken for the new one's.
        let _ = std::fs::remove_file(super::question::socket(data_dir));
        let polyctl = std::env::current_exe().context("this program does not know where it is")?;
        let arguments = [
            "lab".to_owned(),
            "keep".to_owned(),
            "--data-dir".to_owned(),
            data_dir.display().to_string(),
            "--file".to_owned(),
            file.display().to_string(),
        ];
        let arguments = arguments.into_iter().chain(self.terms.arguments()).collect();
        farm.processes.start(LAB, &polyctl, arguments)?;
        writeln!(io::stdout(), "{LAB:<12} measures its phones")?;
        while ask(data_dir, &Question::Status).await.is_err() {
            if farm.processes.ended(LAB).is_some() {
                // What it wrote is the error; it says itself what was expected and what to do.
                let words = farm.processes.last_words(LAB, LAST_WORDS).join("\n");
                bail!("{}", words.trim_start_matches("error: "));
            }
            if Instant::now() > deadline {
                bail!("the lab is not there after {} s: look at `polyctl logs lab`", self.timeout.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

async fn await_ready(farm: &mut Farm, server: &Server, lab: &Lab, deadline: Instant) -> anyhow::Result<()> {
    let since = farm.processes.running(LAB).map(|process| process.started_at);
    loop {
        farm.check_alive(LAB)?;
        let answer = fetch_phones(server).await;
        let waiting: Vec<String> = lab
            .phones
            .iter()
            .filter_map(|phone| {
                let why = match &answer {
                    Ok((phones, leases)) => readiness(&phone.name, phones, leases, since).err()?,
                    Err(failure) => failure.to_string(),
                };
                Some(format!("{}: {why}", phone.name))
            })
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(UpError::NotReady { seconds: 0, phones: waiting }.into());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn summarise(endpoints: &Endpoints, data_dir: &Path, names_data_dir: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let flag = if names_data_dir { format!(" --data-dir {}", shell::path(data_dir)) } else { String::new() };
    writeln!(out, "\nGateway (OpenAI-compatible):  {}/v1", endpoints.gateway.trim_end_matches('/'))?;
    writeln!(out, "For polyctl and kubectl:      export KUBECONFIG={}", shell::path(&data_dir.join("kubeconfig")))?;
    writeln!(out, "Next:                         polyctl apply -f manifests/smollm2.yaml")?;
    writeln!(out, "To change it while it runs:   polyctl lab set PHONE --cpu 0.25{flag}")?;
    writeln!(out, "To stop it:                   polyctl lab down{flag}")
}
