//! `up`: a control plane and phones on this machine, as processes that outlive this one.

pub(crate) mod farm;
mod memory;
mod prometheus;
pub(crate) mod readiness;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::connection::ClusterFlags;
use crate::duration;
use crate::processes::{Fetching, Settings, program};
use farm::{Farm, UpError};

/// The most phones on one machine.
const MAX_PHONES: u32 = 64;

/// Start a control plane and phones on this machine. What runs already is left alone; a flag that changes it restarts it.
#[derive(Debug, Args)]
pub struct Up {
    /// How many phones (3, or as many as last time)
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_phones)]
    phones: Option<u32>,
    /// Memory that each phone gives to segments, such as 80Mi (a share of half of what is free, or as much as last time)
    #[arg(long, value_name = "QUANTITY", value_parser = parse_memory)]
    phone_memory: Option<String>,
    /// What the phones compute with (auto, or the same as last time)
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Backend>,
    /// The Kubernetes API's port (7443, or the last one); 0 takes any free one
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// The OpenAI-compatible gateway's port (8080, or the last one); 0 takes any free one
    #[arg(long, value_name = "PORT")]
    gateway_port: Option<u16>,
    /// The port that phones dial (7700, or the last one); 0 takes any free one
    #[arg(long, value_name = "PORT")]
    hub_port: Option<u16>,
    /// The address that phones of a network are to reach this machine at; 0.0.0.0 is all that it has (loopback alone, or as last time)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<IpAddr>,
    /// Let everybody who reaches --listen's address ask the gateway without a key (as last time)
    #[arg(long)]
    no_auth: bool,
    /// A site whose pages may ask the gateway from a browser, such as http://localhost:3000 (none, or those of last time)
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// The hub that hf:// sources of Models are fetched from (that of last time, or huggingface.co)
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    model_endpoint: Option<String>,
    /// A host that models may be fetched from beside the endpoint's, redirects included (any, or those of last time)
    #[arg(long, value_name = "HOST")]
    model_host: Vec<String>,
    /// Let sources of Models lie on this machine and in its private network (as last time)
    #[arg(long)]
    model_private_addresses: bool,
    /// How long a silent phone keeps its segments (5s, or as long as last time)
    #[arg(long, value_name = "DURATION", value_parser = parse_grace_period)]
    grace_period: Option<String>,
    /// Start Prometheus as well, where it is installed; it scrapes the controller and every phone
    #[arg(long)]
    with_prometheus: bool,
    /// Prometheus' port [default: 9090]; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    prometheus_port: Option<u16>,
    /// How long the phones may take to be Ready
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Backend {
    Auto,
    Vulkan,
    /// Vulkan in the arithmetic Int8 alone
    VulkanInt8,
    Cpu,
    /// The processor in the arithmetic Int8 alone
    #[value(name = "cpu-int8")]
    CpuInt8,
}

fn parse_phones(text: &str) -> Result<u32, String> {
    let phones = text.parse().ok().filter(|phones| *phones <= MAX_PHONES);
    phones.ok_or_else(|| format!("it has to be a whole number from 0 to {MAX_PHONES}"))
}

fn parse_memory(text: &str) -> Result<String, String> {
    match polyphony_api::quantity::parse_bytes(text) {
        Ok(0) => Err("a phone needs some memory, such as 80Mi".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// In the one form that the controller reads.
fn parse_grace_period(text: &str) -> Result<String, duration::DurationError> {
    duration::parse(text).map(|grace_period| format!("{}ms", grace_period.as_millis()))
}

// === impl Up ===

impl Up {
    pub async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let data_dir = std::path::absolute(cluster.data_dir()?)?;
        let controller = program::find("polyphony-controller").map_err(UpError::from)?;
        let agent = program::find("polyphony-agent").map_err(UpError::from)?;
        let mut farm = Farm::open(data_dir)?;
        // One that runs is kept in step with the controller, asked for or not.
        let prometheus = match self.with_prometheus || self.prometheus_port.is_some() || farm.has_prometheus() {
            true => Some(prometheus::find()?),
            false => None,
        };
        let mut settings = self.settings(farm.last_settings());
        let endpoints = farm.start_controller(&controller, &mut settings, self.any_port()).await?;
        // This control plane, whatever else the flags or the environment name.
        let own = ClusterFlags { data_dir: Some(farm.data_dir().to_owned()), ..ClusterFlags::default() };
        let server = own.connect().await?.server;
        farm.start_agents(&agent, &settings, &endpoints, &server).await?;
        farm.await_ready(&server, &settings, self.timeout).await?;
        let prometheus_url = match prometheus {
            Some(program) => Some(farm.start_prometheus(&program, &endpoints, self.prometheus_port).await?),
            None => None,
        };
        farm.summarise(&settings, &endpoints, prometheus_url.as_deref(), cluster.data_dir.is_some())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Flags, else what the last `up` had, else the defaults.
    fn settings(&self, last: Option<&Settings>) -> Settings {
        let text = |flag: &Option<String>, last: Option<&String>, default: &str| {
            flag.clone().or(last.cloned()).unwrap_or_else(|| default.to_owned())
        };
        let backend =
            self.backend.and_then(|backend| backend.to_possible_value()).map(|value| value.get_name().to_owned());
        // Any free port may as well be the last one, which agents dial still.
        let port = |flag: Option<u16>, last: Option<u16>, default: u16| match flag {
            Some(0) => last.unwrap_or(0),
            Some(port) => port,
            None => last.unwrap_or(default),
        };
        let phones = self.phones.or(last.map(|last| last.phones)).unwrap_or(3);
        let phone_memory = self.phone_memory.clone().or(last.map(|last| last.phone_memory.clone()));
        Settings {
            phones,
            phone_memory: phone_memory.unwrap_or_else(|| memory::default_memory(phones)),
            backend: text(&backend, last.map(|last| &last.backend), "auto"),
            grace_period: text(&self.grace_period, last.map(|last| &last.grace_period), "5000ms"),
            api_port: port(self.api_port, last.map(|last| last.api_port), 7443),
            gateway_port: port(self.gateway_port, last.map(|last| last.gateway_port), 8080),
            hub_port: port(self.hub_port, last.map(|last| last.hub_port), 7700),
            listen: self.listen.or(last.and_then(|last| last.listen)),
            no_auth: self.no_auth || last.is_some_and(|last| last.no_auth),
            cors_origins: match last {
                Some(last) if self.cors_origin.is_empty() => last.cors_origins.clone(),
                _ => self.cors_origin.clone(),
            },
            fetching: self.fetching(last.map(|last| last.fetching.clone()).unwrap_or_default()),
        }
    }

    fn fetching(&self, last: Fetching) -> Fetching {
        Fetching {
            endpoint: self.model_endpoint.clone().filter(|url| !url.is_empty()).or(last.endpoint),
            hosts: if self.model_host.is_empty() { last.hosts } else { self.model_host.clone() },
            private_addresses: self.model_private_addresses || last.private_addresses,
        }
    }

    /// Which of API, gateway and hub may have any free port.
    fn any_port(&self) -> [bool; 3] {
        [self.api_port, self.gateway_port, self.hub_port].map(|flag| flag == Some(0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn up(line: &[&str]) -> Up {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            up: Up,
        }
        <Line as clap::Parser>::try_parse_from(std::iter::once(&"up").chain(line)).unwrap().up
    }

    #[test]
    fn settings_are_flags_then_the_last_time_then_defaults() {
        let first = up(&["--phones", "2", "--gateway-port", "0"]).settings(None);
        assert_eq!((first.phones, first.gateway_port, first.api_port), (2, 0, 7443));
        assert!(parse_memory(&first.phone_memory).is_ok(), "{}", first.phone_memory);
        assert!(first.cors_origins.is_empty());
        let cors_origins = vec!["http://localhost:3000".to_owned()];
        let phone_memory = "96Mi".to_owned();
        let last = Settings { gateway_port: 4567, phone_memory, cors_origins: cors_origins.clone(), ..first };
        assert_eq!(up(&[]).settings(Some(&last)).cors_origins, cors_origins);
        assert_eq!(up(&["--cors-origin", "*"]).settings(Some(&last)).cors_origins, ["*"]);
        let second = up(&["--phone-memory", "1Gi", "--backend", "cpu"]).settings(Some(&last));
        assert_eq!(
            (second.phones, second.gateway_port, second.phone_memory.as_str(), second.backend.as_str()),
            (2, 4567, "1Gi", "cpu")
        );
        assert_eq!(second.listen, None);
        let open = up(&["--listen", "0.0.0.0"]).settings(Some(&last));
        assert_eq!(up(&[]).settings(Some(&open)).listen, "0.0.0.0".parse().ok());
        let third = up(&["--gateway-port", "0"]).settings(Some(&last));
        assert_eq!((third.gateway_port, third.phone_memory.as_str()), (4567, "96Mi"));
    }

    #[test]
    fn memory_that_is_no_quantity_is_refused_at_the_flag() {
        assert_eq!(parse_memory("80Mi"), Ok("80Mi".to_owned()));
        assert!(parse_memory("lots").unwrap_err().contains("80Mi"));
        assert!(parse_memory("0").is_err());
    }
}
