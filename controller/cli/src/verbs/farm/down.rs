//! `farm down`: the agents of a farm are ended, and nothing of it is left on its devices. Needs no control plane that runs.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use futures::{StreamExt, stream};
use polyphony_adb::Adb;
use polyphony_journal::tell;

use super::control_plane::ControlPlane;
use super::file::Farm;
use super::member::{Member, MemberError, Owner, find};
use super::twins::{same_as, twins};
use super::{AT_ONCE, FOLDER, FileFlag, blocking, say, turn};
use crate::connection::ClusterFlags;

/// End the agents of a file's phones and remove all that was put on them; their Phones are kept
#[derive(Debug, Args)]
pub(super) struct FarmDown {
    #[command(flatten)]
    file: FileFlag,
    /// Clear devices of another farm, or of another control plane, too
    #[arg(long)]
    force: bool,
}

/// What became of a device.
enum Outcome {
    Cleared,
    /// It has nothing of this farm's, or is another member, too.
    Left(String),
}

// === impl FarmDown ===

impl FarmDown {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let farm = Farm::read(&self.file.file)?;
        let plane = ControlPlane::of(cluster).await?;
        let owner = Owner::new(&farm.name, plane.id().await?);
        let _turn = turn(&plane.folder)?;
        let adb = Adb::from_environment();
        let members = blocking(move || find(&farm, &adb)).await??;
        if members.is_empty() {
            writeln!(io::stdout(), "adb lists no device of this farm")?;
            return Ok(ExitCode::SUCCESS);
        }
        let width = members.iter().map(|member| member.phone.len()).max().unwrap_or(0);
        let twins = twins(&members).await?;
        let cleared = stream::iter(&members).map(async |member| {
            if let Some(first) = twins.get(&member.serial) {
                return (member, Ok(Ok(Outcome::Left(format!("is left out: {}", same_as(first))))));
            }
            let (own, owner, force) = (member.clone(), owner.clone(), self.force);
            (member, blocking(move || clear(&own, &owner, force)).await)
        });
        let mut cleared = cleared.buffer_unordered(AT_ONCE);
        let (mut forgotten, mut failed): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        while let Some((member, outcome)) = cleared.next().await {
            match outcome? {
                Ok(Outcome::Cleared) => {
                    say(width, &member.phone, "has ended, and nothing of it is left on its device");
                    forgotten.push(member.phone.clone());
                }
                Ok(Outcome::Left(why)) => say(width, &member.phone, &why),
                Err(error) => {
                    tell!("{}: {error}", member.title());
                    failed.push(member.title());
                }
            }
        }
        if !forgotten.is_empty() {
            forgotten.sort_unstable();
            writeln!(
                io::stdout(),
                "\nThe Phones are kept for the next `farm up`. To forget them:  polyctl delete phones {}",
                forgotten.join(" ")
            )?;
        }
        if !failed.is_empty() {
            bail!(
                "{FOLDER} may be left on {} of {} devices, for the reasons above: {}",
                failed.len(),
                members.len(),
                failed.join(", ")
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn clear(member: &Member, owner: &Owner, force: bool) -> Result<Outcome, MemberError> {
    member.check()?;
    match member.owner()? {
        None => Ok(Outcome::Left("has nothing on its device".to_owned())),
        Some(other) if !other.is(owner) && !force => Ok(Outcome::Left(left_alone(&other, owner))),
        Some(_) => {
            member.remove()?;
            Ok(Outcome::Cleared)
        }
    }
}

fn left_alone(other: &Owner, ours: &Owner) -> String {
    let unsure = if other.may_be(ours) {
        ", and no control plane runs here, nor was `farm up` said here, by which to know whether that is this one"
    } else {
        ""
    };
    format!("is left alone: its device is of {other}{unsure}; `polyctl farm down --force` clears it all the same")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_left_alone_has_its_remedy() {
        let shelf = |cluster: Option<&str>| Owner::new("shelf", cluster.map(str::to_owned));
        let said = left_alone(&shelf(Some("u-2")), &shelf(Some("u-1")));
        assert_eq!(
            said,
            "is left alone: its device is of the farm shelf of the control plane u-2; `polyctl farm down --force` clears it all the same"
        );
        let said = left_alone(&shelf(Some("u-2")), &shelf(None));
        assert!(said.contains("no control plane runs here") && said.contains("--force"), "{said}");
    }
}
