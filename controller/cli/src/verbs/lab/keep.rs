//! `lab keep`: the process that holds a lab. It has the phones, and ends with them when it is told to.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use polyphony_farm::lab::Lab;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use super::AGENT;
use super::keeper::{ControlPlane, Keeper};
use super::question::{answer, socket};
use super::terms::Terms;
use crate::connection::ClusterFlags;
use crate::processes::endpoints::{Endpoints, port_of};
use crate::processes::program;
use crate::verbs::token;

#[derive(Debug, Args)]
pub(super) struct Keep {
    #[arg(short, long)]
    file: PathBuf,
    #[command(flatten)]
    terms: Terms,
}

// === impl Keep ===

impl Keep {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = super::data_dir(&cluster)?;
        let lab = Lab::read(&self.file)?;
        let endpoints =
            Endpoints::read(&data_dir).context("no control plane runs here: start it with `polyctl lab up`")?;
        let (Some(hub_port), Some(weights_port)) = (port_of(&endpoints.hub), port_of(&endpoints.weights)) else {
            bail!("the control plane does not say where its hub and its weights are: is it of another version?");
        };
        let own = ClusterFlags { data_dir: Some(data_dir.clone()), ..ClusterFlags::default() };
        let server = own.connect().await?.server;
        let mut tokens = BTreeMap::new();
        for phone in &lab.phones {
            tokens.insert(phone.name.clone(), token::for_phone(server.client(), &phone.name).await?);
        }
        let control_plane = ControlPlane { hub_port, weights_port, ca_hash: endpoints.ca_hash, tokens };
        let agent = program::find(AGENT)?;
        // Asked for now, so that one that comes while phones are measured ends it in order.
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut keeper = Keeper::start((lab, &self.file), &data_dir, agent, &control_plane, &self.terms)?;
        let place = socket(&data_dir);
        // Of a keeper that was killed.
        let _ = std::fs::remove_file(&place);
        let listener = UnixListener::bind(&place).with_context(|| format!("cannot listen at {}", place.display()))?;
        // Whoever started it may have gone, and its log may be full.
        let _ = writeln!(io::stdout(), "the lab runs");
        loop {
            tokio::select! {
                // Whoever asks and goes away before the answer has it no more.
                _ = answer(&listener, |question| keeper.answer(question)) => {}
                _ = terminated.recv() => break,
                _ = interrupted.recv() => break,
            }
        }
        let _ = std::fs::remove_file(&place);
        drop(keeper);
        Ok(ExitCode::SUCCESS)
    }
}
