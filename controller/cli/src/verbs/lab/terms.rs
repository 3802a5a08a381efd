//! Terms: the flags on how a lab is held, as `lab up` takes them and passes them on to the keeper.

use std::path::PathBuf;

use clap::Args;

use crate::numbers;

/// On what terms a lab is held; `lab up` passes them on.
#[derive(Clone, Debug, Args)]
pub(super) struct Terms {
    /// How far a phone's measured time for one layer may be off its profile
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, value_parser = numbers::finite)]
    pub(super) tolerance: f64,
    /// Give agents so many times the memory of the file: for a bench that holds several deployments at once
    #[arg(long, value_name = "TIMES", default_value_t = 1, hide = true, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(super) room: u64,
    /// A folder of weights, named by their digests, that every phone has already
    #[arg(long, value_name = "DIR", hide = true)]
    pub(super) weights: Option<PathBuf>,
}

impl Terms {
    /// As they are written on a command line.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--tolerance={}", self.tolerance), format!("--room={}", self.room)];
        arguments.extend(self.weights.as_ref().map(|folder| format!("--weights={}", folder.display())));
        arguments
    }
}
