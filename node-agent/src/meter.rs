//! The meter: at each reading of the battery, notes on the board what that and the work since the last say of energy.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::board::Board;
use crate::energy::{Energy, Sample};
use crate::reading::Reading;

/// Until nobody reads the sensors any more.
pub async fn run(mut readings: watch::Receiver<Reading>, board: Arc<Board>) {
    let mut energy = Energy::default();
    let mut before = board.at_work().until(Instant::now());
    while readings.changed().await.is_ok() {
        let watts = readings.borrow_and_update().battery.discharge_watts;
        let now = Instant::now();
        let done = board.at_work().until(now);
        let since = done.since(&before);
        before = done;
        let sample = Sample { watts, computing: since.computed, otherwise: since.busy_otherwise, tokens: since.tokens };
        board.set_energy(energy.note(&sample, now));
    }
}
