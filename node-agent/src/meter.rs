//! The meter: samples battery and work each second, and notes on the board what that says of energy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::energy::{Energy, Sample};
use crate::sensors::Sensors;

const EVERY: Duration = Duration::from_secs(1);

/// Until `shutdown`.
pub async fn run(sensors: Sensors, board: Arc<Board>, shutdown: CancellationToken) {
    let mut energy = Energy::default();
    let mut seen = board.at_work().until(Instant::now());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = Instant::now();
        let (computed, tokens) = board.at_work().until(now);
        let sample = Sample {
            watts: sensors.read().battery.discharge_watts,
            computing: computed.saturating_sub(seen.0),
            tokens: tokens.saturating_sub(seen.1),
        };
        seen = (computed, tokens);
        board.set_energy(energy.note(&sample, now));
    }
}
