//! `lab set`: changes a phone or a link of a lab while it runs.

use std::process::ExitCode;

use clap::Args;
use polyphony_farm::lab::{LinkChange, Sensors, parse_bytes};

use super::question::{Change, Question};
use crate::connection::ClusterFlags;
use crate::numbers;

/// Change a phone or a link while it runs; what is not named stays
#[derive(Debug, Args)]
pub(super) struct LabSet {
    /// The phone
    phone: String,
    /// Share of one core, 0.1 to 1
    #[arg(long, value_name = "CORES", value_parser = numbers::finite)]
    cpu: Option<f64>,
    /// Memory that its agent may have in all, such as 128Mi; over it, it is killed
    #[arg(long, value_name = "QUANTITY", value_parser = parse_bytes)]
    memory_limit: Option<u64>,
    /// Change the link to this phone alone, rather than the link to everybody
    #[arg(long, value_name = "PHONE")]
    to: Option<String>,
    /// A link profile: good-wifi, crowded-wifi, hotspot
    #[arg(long, value_name = "PROFILE")]
    link: Option<String>,
    /// What the link carries, in each direction
    #[arg(long, value_name = "MEGABITS", value_parser = numbers::finite)]
    rate: Option<f64>,
    /// How long a packet takes, in each direction
    #[arg(long, value_name = "MILLISECONDS", value_parser = numbers::finite)]
    delay: Option<f64>,
    /// By how much the delay varies, up and down
    #[arg(long, value_name = "MILLISECONDS", value_parser = numbers::finite)]
    jitter: Option<f64>,
    /// The packets that are lost
    #[arg(long, value_name = "PERCENT", value_parser = numbers::finite)]
    loss: Option<f64>,
    /// Let nothing pass
    #[arg(long, conflicts_with = "heal")]
    cut: bool,
    /// Let pass again what a cut stopped
    #[arg(long)]
    heal: bool,
    /// Charge that its sensors say
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    battery: Option<u8>,
    /// Whether its sensors say that it charges
    #[arg(long, value_name = "true|false")]
    charging: Option<bool>,
    /// Temperature that its sensors say
    #[arg(long, value_name = "CELSIUS", value_parser = numbers::finite)]
    temperature: Option<f64>,
}

// === impl LabSet ===

impl LabSet {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let phone = self.phone.clone();
        let change = self.change();
        if change == Change::default() {
            anyhow::bail!(
                "nothing to change: name it, such as --cpu 0.25 or --cut; `polyctl lab set --help` lists all"
            );
        }
        super::tell(&cluster, Question::Set { phone: phone.clone(), change: Box::new(change) }, &phone, "changed").await
    }

    fn change(self) -> Change {
        let sensors =
            Sensors { battery_percent: self.battery, charging: self.charging, temperature_celsius: self.temperature };
        Change {
            cpu: self.cpu,
            memory_bytes: self.memory_limit,
            to: self.to,
            profile: self.link,
            link: LinkChange {
                megabits_per_second: self.rate,
                delay_milliseconds: self.delay,
                jitter_milliseconds: self.jitter,
                loss_percent: self.loss,
                cut: if self.cut { Some(true) } else { self.heal.then_some(false) },
            },
            sensors: (sensors != Sensors::default()).then_some(sensors),
        }
    }
}
