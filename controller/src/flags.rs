//! Flags of the controller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use polyphony_identity::DEFAULT_DOMAIN;

use crate::models::fetch::{DEFAULT_ENDPOINT, FetchSettings, parse_endpoint};

/// Runs one large language model over many phones: places its layers, and answers for it.
#[derive(Clone, Debug, Parser)]
#[command(name = "polyphony-controller", version)]
pub struct Flags {
    /// Folder for the store, tokens, kubeconfig and manifests; made when it is not there.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Where the embedded Kubernetes API listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7443")]
    pub api_address: SocketAddr,
    /// Where the OpenAI-compatible gateway listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub gateway_address: SocketAddr,
    /// Where agents dial.
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub hub_address: SocketAddr,
    /// Where agents fetch manifests and weights; by default a free port of the hub's address.
    #[arg(long)]
    pub weights_address: Option<SocketAddr>,
    /// Where Prometheus scrapes this process, and is told whom else; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub metrics_address: SocketAddr,
    /// File with the token that who scrapes has to show (`Authorization: Bearer`); it has to be given where metrics are shown beyond loopback.
    #[arg(long, value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,
    /// A name beside `localhost` that requests to API, gateway, weights and metrics may be for, such as one behind a proxy; `.lab.svc` is all
    /// names that end so. Can be given several times.
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// A site whose pages may ask the gateway from a browser (CORS), such as http://localhost:3000; `*` is every site. None may by default.
    /// Can be given several times.
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// Let the names of control tokens in chat messages become those tokens, as vLLM does: whoever writes a message can then pose as system
    /// or assistant.
    #[arg(long)]
    pub control_tokens_in_messages: bool,
    /// Whether the local network hears by mDNS where phones may join; auto: when the hub listens beyond loopback.
    #[arg(long, value_enum, default_value_t = Advertise::Auto)]
    pub advertise: Advertise,
    /// How long a phone may be silent before its layers are placed anew, such as 30s or 1m.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub grace_period: Duration,
    /// The hub that `hf://` sources of Models are fetched from.
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL", default_value = DEFAULT_ENDPOINT, hide_env_values = true)]
    pub model_endpoint: String,
    /// A host that models may be fetched from beside the endpoint's, redirects included; `.example.com` is all names that end so. Any may
    /// when none is given. Can be given several times.
    #[arg(long, value_name = "HOST")]
    pub model_host: Vec<String>,
    /// Let sources of Models, and where they lead on to, lie on this machine and in its private network.
    #[arg(long)]
    pub model_private_addresses: bool,
    /// Use this cluster in place of the embedded API.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Write the log to this file in place of stderr; it is set aside as FILE.1 whenever it has grown to 8 MiB.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Keep the authority in this Secret rather than in the data folder: of the cluster that --kubeconfig names.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = secret_name, conflicts_with = "authority_dir", requires = "kubeconfig")]
    pub authority_secret: Option<(String, String)>,
    /// Take the authority from a folder that somebody else fills, such as cert-manager: its `tls.crt` and `tls.key` are the issuer, `ca.crt`
    /// the roots to trust.
    #[arg(long, value_name = "DIR")]
    pub authority_dir: Option<PathBuf>,
    /// The domain of names in certificates; phones keep theirs, so it is chosen once.
    #[arg(long, default_value = DEFAULT_DOMAIN, value_name = "DOMAIN")]
    pub trust_domain: String,
    /// How long a certificate is good; it is renewed after two thirds of that, such as 24h.
    #[arg(long, default_value = "24h", value_parser = lifetime, value_name = "DURATION")]
    pub certificate_lifetime: Duration,
    /// How long after its certificate has run out a phone that slept may still renew it, such as 30d.
    #[arg(long, default_value = "30d", value_parser = duration, value_name = "DURATION")]
    pub rejoin_window: Duration,
    /// Bytes a second that each direction of a way between two phones may carry that cannot dial each other and are led over this host; 0 leads
    /// none.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub relay_bytes_per_second: u64,
    /// Let everybody who reaches the gateway ask it. Without this a gateway beyond loopback answers who shows a key alone (`polyctl key create`), and
    /// does not start where there is none.
    #[arg(long)]
    pub no_auth: bool,
    /// Start beyond loopback though no client has a key yet: whoever asks is refused until one has.
    #[arg(long, conflicts_with = "no_auth")]
    pub await_keys: bool,
}

// === impl Flags ===

impl Flags {
    /// How models are fetched.
    ///
    /// # Errors
    /// When the endpoint is no address.
    pub fn fetch_settings(&self) -> anyhow::Result<FetchSettings> {
        // An empty variable is as none.
        let endpoint = Some(self.model_endpoint.trim()).filter(|text| !text.is_empty()).unwrap_or(DEFAULT_ENDPOINT);
        let endpoint = parse_endpoint(endpoint).context("--model-endpoint, or HF_ENDPOINT")?;
        Ok(FetchSettings {
            endpoint,
            hosts: self.model_host.clone(),
            private_addresses: self.model_private_addresses,
            ..FetchSettings::default()
        })
    }
}

/// Whether the hub is said on the local network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Advertise {
    #[default]
    Auto,
    Always,
    Never,
}

/// The units of durations, in milliseconds; `ms` before what it ends with.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Who renews has some time for it.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(5);

/// Reads `1500ms`, `30s`, `2m`, `24h`, `30d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write a whole number with ms, s, m, h or d, such as 30s");
    let split = |(unit, milliseconds): (&str, u64)| Some((text.strip_suffix(unit)?, milliseconds));
    let (number, unit_milliseconds) = UNITS.into_iter().find_map(split).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

fn secret_name(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) = parts.ok_or_else(|| format!("{text:?} is no name of a Secret: write NAMESPACE/NAME"))?;
    Ok((namespace.to_owned(), name.to_owned()))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    match lifetime >= SHORTEST_LIFETIME {
        true => Ok(lifetime),
        false => Err(format!("{text} is too short to be renewed in: write {} s or more", SHORTEST_LIFETIME.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(2_592_000)));
        for text in ["", "s", "30", "-1s", "1w", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(lifetime("4s").is_err_and(|why| why.contains("too short")) && lifetime("5s").is_ok());
    }
}
