//! Flags of the controller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};

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
    /// Let addresses beyond loopback be listened on, without encryption: for closed lab networks only.
    #[arg(long)]
    pub insecure: bool,
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

/// Reads `1500ms`, `30s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write a whole number with ms, s or m, such as 30s");
    let (number, unit_milliseconds) = match (text.strip_suffix("ms"), text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _, _) => (number, 1),
        (_, Some(number), _) => (number, 1_000),
        (_, _, Some(number)) => (number, 60_000),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "30", "-1s", "1h", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
