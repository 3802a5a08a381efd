//! `token`: join tokens. One lets a device in once; the device keeps a key of its own from then on.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use polyphony_controller::door::tokens::{self, Terms};
use polyphony_identity::{JoinToken, is_dns_label};

use crate::connection::ClusterFlags;
use crate::duration;
use crate::records::delete_all;
use crate::table::align;

/// Join tokens: each lets devices in, for a while.
#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    Create(Create),
    List(List),
    Delete(Delete),
}

/// Make a token and print it, this once: what is kept of it is a hash. `polyctl join-command` prints the whole line
#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    terms: TermsFlags,
}

/// What a token is good for.
#[derive(Clone, Debug, Args)]
pub struct TermsFlags {
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    ttl: Duration,
    /// How many devices it lets in
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    uses: u32,
    /// The one phone that it is for; a device that has the name, and was lost, loses it by that
    #[arg(long, value_name = "NAME", value_parser = phone_name, conflicts_with = "uses")]
    phone: Option<String>,
    /// A label of phones that join by it, such as shelf=left; can be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// List the tokens: what each is good for, and who has used it. Never the tokens themselves
#[derive(Debug, Args)]
struct List;

/// Take tokens away by their ids: `token delete abc123`
#[derive(Debug, Args)]
struct Delete {
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// Tokens that live longer are forgotten about.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// Keys of labels are a name of so many characters, and values too.
const MAX_LABEL: usize = 63;

fn lifetime(text: &str) -> Result<Duration, String> {
    match duration::lifetime(text)? {
        long if long > LONGEST => Err("a token is good for 30 days at most".to_owned()),
        ttl => Ok(ttl),
    }
}

fn phone_name(text: &str) -> Result<String, String> {
    match is_dns_label(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("a phone's name is 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end".into())
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let form = || format!("{text:?} is no label: write KEY=VALUE, as Kubernetes has labels");
    let (key, value) = text.split_once('=').ok_or_else(form)?;
    let is_part = |part: &str| {
        let ends = |part: &str| {
            part.starts_with(|one: char| one.is_ascii_alphanumeric())
                && part.ends_with(|one: char| one.is_ascii_alphanumeric())
        };
        let inner = |one: u8| one.is_ascii_alphanumeric() || b"-_.".contains(&one);
        part.len() <= MAX_LABEL && ends(part) && part.bytes().all(inner)
    };
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_key = is_part(name) && prefix.is_none_or(|prefix| prefix.split('.').all(is_dns_label));
    match is_key && (value.is_empty() || is_part(value)) {
        true => Ok((key.to_owned(), value.to_owned())),
        false => Err(form()),
    }
}

// === impl Token ===

impl Token {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let server = cluster.connect().await?.server;
        match self.verb {
            TokenVerb::Create(Create { terms }) => {
                let token = terms.create(server.client()).await?;
                writeln!(io::stdout(), "{}", token.reveal())?;
            }
            TokenVerb::List(List) => list(server.client()).await?,
            TokenVerb::Delete(Delete { ids }) => {
                // A whole token is taken for its id, and not shown again.
                let ids: Vec<_> = ids.iter().map(|id| id.split('.').next().unwrap_or_default().to_owned()).collect();
                delete_all("token", &ids, async |id| tokens::delete(server.client(), id).await).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl TermsFlags ===

impl TermsFlags {
    /// Makes a token of these terms.
    ///
    /// # Errors
    /// When the API takes it not.
    pub async fn create(&self, client: &kube::Client) -> anyhow::Result<JoinToken> {
        let terms = Terms {
            expires: Timestamp::now() + self.ttl,
            uses: self.uses,
            phone: self.phone.clone(),
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        };
        Ok(tokens::create(client, &terms).await?)
    }
}

/// A token for a phone of this machine, which is started at once.
///
/// # Errors
/// When the API takes it not.
pub async fn for_phone(client: &kube::Client, name: &str) -> anyhow::Result<JoinToken> {
    // Whoever has the folder of a control plane may say which device a name belongs to.
    let expires = Timestamp::now() + Duration::from_secs(3600);
    let terms = Terms { expires, uses: 1, phone: Some(name.to_owned()), labels: BTreeMap::new() };
    Ok(tokens::create(client, &terms).await?)
}

async fn list(client: &kube::Client) -> anyhow::Result<()> {
    let (mut tokens, now) = (tokens::list(client).await?, Timestamp::now());
    tokens.sort_by_key(|kept| kept.terms.expires);
    let mut lines = vec![["ID", "TTL", "USES LEFT", "PHONE", "LABELS"].map(str::to_owned).to_vec()];
    for kept in &tokens {
        let left = kept.terms.expires.as_second() - now.as_second();
        let ttl = if left > 0 { duration::human(left) } else { "<expired>".to_owned() };
        let labels: Vec<String> = kept.terms.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let labels = if labels.is_empty() { "<none>".to_owned() } else { labels.join(",") };
        let phone = kept.terms.phone.clone().unwrap_or_else(|| "<any>".to_owned());
        lines.push(vec![kept.id.clone(), ttl, kept.uses_left().to_string(), phone, labels]);
    }
    match tokens.is_empty() {
        true => writeln!(io::stderr(), "No join tokens found.")?,
        false => io::stdout().write_all(align(&lines, &mut Vec::new(), 6, 3).as_bytes())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_token_is_refused_at_the_flag() {
        assert_eq!(label("shelf=left"), Ok(("shelf".into(), "left".into())));
        assert_eq!(label("trust.polyphony.dev/owner=us"), Ok(("trust.polyphony.dev/owner".into(), "us".into())));
        for wrong in ["shelf", "=left", "-a=b", "a=b c", "A.B/c=d", &format!("{}=x", "a".repeat(64))] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
        assert!(lifetime("0s").is_err() && lifetime("31d").is_err() && lifetime("soon").is_err());
        assert_eq!(lifetime("90m"), Ok(Duration::from_secs(5400)));
        assert!(phone_name("Phone 1").is_err());
    }
}
