//! `certs`: the authority that says who is who, how long it lasts, and its rotation. Certificates of a day renew themselves.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use polyphony_controller::door::authority::rotate;
use polyphony_controller::door::place::{Place, path_in};
use polyphony_identity::{Authority, AuthorityError, Lifetimes};

use crate::connection::ClusterFlags;
use crate::duration;
use crate::table::align;

/// The authority of this installation: its root, its issuer, and the devices that it is good for.
#[derive(Debug, Args)]
pub struct Certs {
    #[command(subcommand)]
    verb: CertsVerb,
    /// The Secret that holds the authority, where the controller was started with --authority-secret; else it lies in the data folder
    #[arg(long, global = true, value_name = "NAMESPACE/NAME", value_parser = secret_name)]
    authority_secret: Option<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum CertsVerb {
    List(List),
    Rotate(Rotate),
}

/// Show the authority, and the key of each device that it is good for
#[derive(Debug, Args)]
struct List;

/// Exchange the issuer; with --root the root as well. Nobody has to join again: who trusts the old root believes the new one
#[derive(Debug, Args)]
struct Rotate {
    /// A new root too: after a leak of the authority's file, say. `--ca-hash` is another one from then on
    #[arg(long)]
    root: bool,
    /// Trust roots of before no more. Devices that have not renewed since (a day, where they are linked) have to join again
    #[arg(long)]
    forget_retired: bool,
}

fn secret_name(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) = parts.ok_or_else(|| format!("{text:?} is no name of a Secret: write NAMESPACE/NAME"))?;
    Ok((namespace.to_owned(), name.to_owned()))
}

// === impl Certs ===

impl Certs {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let place = match &self.authority_secret {
            Some((namespace, name)) => {
                let client = cluster.connect().await?.server.client().clone();
                Place::Secret { client, namespace: namespace.clone(), name: name.clone() }
            }
            None => Place::File(path_in(&cluster.data_dir_of_cluster()?)),
        };
        match self.verb {
            CertsVerb::List(List) => list(&place, &cluster).await?,
            CertsVerb::Rotate(how) => how.run(&place).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Rotate ===

impl Rotate {
    async fn run(self, place: &Place) -> anyhow::Result<()> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let change = |authority: &mut Authority| -> Result<(), AuthorityError> {
            match self.root {
                true => authority.rotate_root(now)?,
                false if !self.forget_retired => authority.rotate_issuer(now)?,
                false => {}
            }
            if self.forget_retired {
                authority.forget_retired();
            }
            Ok(())
        };
        let authority = rotate(place, Lifetimes::default(), change).await?;
        let mut out = io::stdout().lock();
        match (self.root, self.forget_retired) {
            (true, _) => writeln!(out, "the root was rotated: --ca-hash is {} now", authority.ca_hash())?,
            (false, false) => writeln!(out, "the issuer was rotated")?,
            (false, true) => {}
        }
        if self.forget_retired {
            writeln!(out, "roots of before are trusted no more")?;
        }
        writeln!(out, "a controller that runs by it takes it up within seconds")?;
        Ok(())
    }
}

async fn list(place: &Place, cluster: &ClusterFlags) -> anyhow::Result<()> {
    let sealed = place.read().await?;
    let sealed = sealed
        .ok_or_else(|| anyhow::anyhow!("there is no authority in {place}: start a control plane with `polyctl up`"))?;
    let authority = Authority::open(&sealed, Lifetimes::default())?;
    let now = Timestamp::now().as_second();
    let left = |end: u64| match i64::try_from(end).unwrap_or(i64::MAX).saturating_sub(now) {
        left if left > 0 => duration::human(left),
        _ => "<expired>".to_owned(),
    };
    let (root_end, issuer_end) = authority.ends();
    let row = |what: &str, name: &str, key: String, ends: String| vec![what.to_owned(), name.to_owned(), key, ends];
    let mut lines = vec![row("WHAT", "NAME", "KEY".to_owned(), "ENDS IN".to_owned())];
    lines.push(row("root", authority.domain(), authority.ca_hash().to_string(), left(root_end)));
    for (key, end) in authority.retired() {
        lines.push(row("retired root", authority.domain(), key.to_string(), left(end)));
    }
    lines.push(row("issuer", authority.domain(), authority.issuer_key().to_string(), left(issuer_end)));
    // Without an API there is the authority still.
    if let Ok(connection) = cluster.connect().await
        && let Ok(phones) = connection.server.get("/apis/polyphony.dev/v1alpha1/phones").await
    {
        for phone in phones["items"].as_array().into_iter().flatten() {
            let name = phone["metadata"]["name"].as_str().unwrap_or_default();
            let key = phone["status"]["publicKey"].as_str().unwrap_or("<none: it has to join>");
            lines.push(row("phone", name, key.to_owned(), "<renews itself>".to_owned()));
        }
    }
    io::stdout().write_all(align(&lines, &mut Vec::new(), 6, 3).as_bytes())?;
    Ok(())
}
