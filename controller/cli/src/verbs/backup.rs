//! `backup` and `restore`: the authority and the store of a host in one file, and a new host made of it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use polyphony_controller::backup::{BACKUP_PATH, Backup};
use polyphony_controller::door::place::{Place, path_in};
use polyphony_identity::write_private;

use crate::connection::ClusterFlags;

/// Keep the authority and all objects of a host that runs here in one file, which only you can read: who has it can be that host. Model files
/// are not in it
#[derive(Debug, Args)]
pub struct BackupVerb {
    /// The file to write; none may be there
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Make a folder of a backup, for `polyctl up` to start from: phones that joined the host which was lost come back by themselves, where it
/// listens at the same address
#[derive(Debug, Args)]
pub struct RestoreVerb {
    /// A file that `polyctl backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

// === impl BackupVerb ===

impl BackupVerb {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let file = &self.file;
        if file.exists() {
            anyhow::bail!("{} is there already: name another file", file.display());
        }
        let place = Place::File(path_in(&cluster.data_dir_of_cluster()?));
        let sealed = place.read().await?;
        let sealed = sealed.with_context(|| {
            format!("there is no authority in {place}: back up on the machine where the control plane runs, or name its folder with --data-dir. In a cluster back up etcd, which has everything")
        })?;
        let store = cluster.connect().await?.server.get(BACKUP_PATH).await?;
        let store = serde_json::from_value(store).context("the server answered with something else than a backup")?;
        let backup = Backup::new(sealed, store);
        write_private(file, &serde_json::to_vec(&backup)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let n_objects = backup.n_objects();
        writeln!(
            io::stdout(),
            "{n_objects} objects and the authority are in {}: keep it as you keep keys",
            file.display()
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

// === impl RestoreVerb ===

impl RestoreVerb {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = std::path::absolute(cluster.data_dir()?)?;
        let bytes = std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let backup = Backup::read(&self.file, &bytes)?;
        let n_objects = backup.n_objects();
        backup.restore(&data_dir).await?;
        writeln!(io::stdout(), "{n_objects} objects and the authority are in {}", data_dir.display())?;
        writeln!(
            io::stdout(),
            "start it as the lost one was started, with the same `polyctl up --listen`, and put model files where they were"
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
