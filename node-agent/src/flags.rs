//! The agent's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use polyphony_identity::{Digest, is_dns_label};

use crate::hub_address::{self, HubAddressError};

/// Runs segments of large language models on this phone, as the host assigns them.
#[derive(Parser, Clone, Debug)]
#[command(name = "polyphony-agent", version)]
pub struct Flags {
    /// The phone's name: lower-case letters, digits and hyphens
    #[arg(long, value_parser = parse_name)]
    pub name: String,
    /// The host's address for agents
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_hub)]
    pub hub: String,
    /// File that holds the join token; else it is taken from $POLYPHONY_JOIN_TOKEN. A phone that has joined needs none
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The digest of the host's root, by which a phone that joins knows it; a phone that has joined needs none
    #[arg(long, value_name = "sha256:…", env = "POLYPHONY_CA_HASH")]
    pub ca_hash: Option<Digest>,
    /// Folder for this device's key and cached weights
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Memory that segments may take, such as 80Mi; the default is half of the phone's
    #[arg(long, value_name = "QUANTITY", value_parser = parse_bytes)]
    pub memory: Option<u64>,
    /// What segments may run on; plans choose among what is left, in the arithmetic that their deployment asks for
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
    /// Threads of the CPU backend; 0 takes one for each big core, and keeps to these
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Where previous stages dial this phone; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub ring_address: SocketAddr,
    /// Where this machine reads the agent's `/metrics`, on loopback; from elsewhere the controller shows them. Port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub metrics_address: SocketAddr,
    /// File that plays battery and heat in labs and tests: JSON with batteryPercent, charging, dischargeWatts, temperatureCelsius
    #[arg(long, value_name = "FILE")]
    pub sensors: Option<PathBuf>,
    /// A battery below this many percent that no charger keeps up with takes the phone out of every ring, also where its host wants otherwise
    #[arg(long, value_name = "PERCENT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub min_battery: u8,
    /// The same from this temperature of its shell or battery on
    #[arg(long, value_name = "CELSIUS", default_value_t = 60.0, value_parser = celsius)]
    pub max_temperature: f64,
    /// The phone computes in a part of its time where it would get this warm otherwise
    #[arg(long, value_name = "CELSIUS", default_value_t = 43.0, value_parser = celsius)]
    pub hold_temperature: f64,
    /// Disk space for cached weights
    #[arg(long, value_name = "QUANTITY", default_value = "4Gi", value_parser = parse_bytes)]
    pub cache_size: u64,
    /// Seconds that a ring may take for one step before its session is given back to the host
    #[arg(long, default_value_t = 60.0, value_parser = step_deadline)]
    pub step_deadline_seconds: f64,
    /// File with the share of one core that this phone is, such as 0.25, read before each step; for a lab only
    #[arg(long, value_name = "FILE", hide = true)]
    pub cpu_share_file: Option<PathBuf>,
    /// File that says which backend goes wrong and how, such as `vulkan flip`, read before each step; for tests only
    #[arg(long, value_name = "FILE", hide = true, env = "POLYPHONY_SABOTAGE_FILE", hide_env = true)]
    pub sabotage_file: Option<PathBuf>,
    /// Write the log to this file in place of stderr; it is set aside as FILE.1 whenever it has grown to 8 MiB
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// The choice of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    Auto,
    Vulkan,
    /// Vulkan in the arithmetic `Int8` alone
    #[value(name = "vulkan-int8")]
    VulkanInt8,
    Cpu,
    /// The processor in the arithmetic `Int8` alone
    #[value(name = "cpu-int8")]
    CpuInt8,
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_dns_label(text) {
        return Ok(text.to_owned());
    }
    Err("a phone's name is 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end".to_owned())
}

fn parse_hub(text: &str) -> Result<String, HubAddressError> {
    hub_address::parse(text, None)
}

/// From a second to a day.
fn step_deadline(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (1.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds from 1 to 86400 is wanted".to_owned())
}

/// What a hand may bear, and what a battery does.
fn celsius(text: &str) -> Result<f64, String> {
    let celsius = text.parse().ok().filter(|celsius| (10.0..=150.0).contains(celsius));
    celsius.ok_or_else(|| "a temperature from 10 to 150 °C is wanted".to_owned())
}

/// A quantity of memory as Kubernetes writes it, a fraction too.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let form =
        || format!("{text:?} is no quantity of memory: write a number and Ki, Mi, Gi, Ti, k, M, G or T, such as 80Mi");
    let split = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    let factor = match &text[split..] {
        "" => 1.0,
        "Ki" => 1_024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return Err(form()),
    };
    let number = &text[..split];
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(form());
    }
    let bytes = number.parse::<f64>().map_err(|_| form())? * factor;
    // Beyond this an f64 skips some.
    if bytes > 9_007_199_254_740_992.0 {
        return Err(format!("{text} is more than can be counted"));
    }
    Ok(bytes.round() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_deadline_is_a_number_of_seconds() {
        for text in ["nan", "inf", "0.5", "-3", "86401", "soon"] {
            assert!(step_deadline(text).is_err(), "{text}");
        }
        assert_eq!(step_deadline("2.5"), Ok(2.5));
    }

    #[test]
    fn a_temperature_is_one_that_phones_have() {
        for text in ["nan", "9", "151", "warm"] {
            assert!(celsius(text).is_err(), "{text}");
        }
        assert_eq!(celsius("42.5"), Ok(42.5));
    }

    #[test]
    fn names_are_dns_labels_and_memory_is_a_quantity() {
        assert!(parse_name("phone-1").is_ok());
        for bad in ["", "-a", "a-", "Phone", "a_b", &"a".repeat(64)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        for (text, bytes) in [("80Mi", 80 << 20), ("1.5Gi", 3 << 29), ("1Ti", 1 << 40), ("2k", 2000), ("7", 7)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "Mi", "1.5.5Gi", "8XB", "-1", "99999999999Gi"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
