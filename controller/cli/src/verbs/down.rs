//! `down`: stops exactly the processes that `up` started; objects stay in the data directory.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::connection::ClusterFlags;
use crate::duration;
use crate::processes::endpoints::Endpoints;
use crate::processes::{Process, Processes};
use crate::verbs::up::farm::CONTROLLER;

/// Stop what `up` started. The objects are kept: the next `up` finds them again.
#[derive(Debug, Args)]
pub struct Down {
    /// How long a process may take to end by itself before it is killed
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration::parse)]
    timeout: Duration,
}

// === impl Down ===

impl Down {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = std::path::absolute(cluster.data_dir()?)?;
        if !data_dir.join("processes.json").exists() {
            writeln!(io::stdout(), "nothing was started in {}", data_dir.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut processes = Processes::open(&data_dir)?;
        let running = processes.all_running();
        if running.is_empty() {
            writeln!(io::stdout(), "nothing runs in {}", data_dir.display())?;
        }
        let (controller, phones) = in_stopping_order(&running);
        for names in [controller, phones] {
            for (process, how) in processes.stop(&names, self.timeout).await? {
                writeln!(io::stdout(), "{:<12} {how} (pid {})", process.name, process.pid)?;
            }
        }
        Endpoints::forget(&data_dir);
        Ok(ExitCode::SUCCESS)
    }
}

/// Every process that runs, for `down`: the controller first, so that no phone's end is taken for a loss.
fn in_stopping_order(running: &[Process]) -> (Vec<String>, Vec<String>) {
    let names = running.iter().map(|process| process.name.clone());
    names.partition(|name| name == CONTROLLER)
}
