//! Sensors: battery and heat, from the system or, in labs and tests, from a file that plays them. One task reads them; all others see what it read
//! last, for a driver may take its time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gaps::Gaps;
use crate::platform::{self, Battery, ShellZones};
use crate::reading::Reading;
use crate::told::Told;

/// Where battery and temperature are read.
#[derive(Debug, Default)]
pub struct Sensors {
    /// JSON with `batteryPercent`, `charging`, `dischargeWatts` and `temperatureCelsius`, each of which may be missing; `None` reads the system.
    pub file: Option<PathBuf>,
    /// What an app says besides, where the agent runs in one.
    pub told: Option<watch::Receiver<Told>>,
}

const READ_EVERY: Duration = Duration::from_secs(1);
/// A driver that has not answered for so long has not answered.
const OVERDUE: Duration = Duration::from_secs(3);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Played {
    battery_percent: Option<u8>,
    charging: Option<bool>,
    discharge_watts: Option<f64>,
    temperature_celsius: Option<f64>,
}

/// What is read, on a thread on which it may take its time.
struct Source {
    file: Option<PathBuf>,
    zones: ShellZones,
}

/// The task that reads.
struct Watching {
    told: Option<watch::Receiver<Told>>,
    is_played: bool,
    /// What was read last; nothing while a driver does not answer.
    read: Reading,
    gaps: Gaps,
    readings: watch::Sender<Reading>,
    /// Waits for the first reading.
    awaits: Option<oneshot::Sender<()>>,
}

// === impl Sensors ===

impl Sensors {
    /// Reads everything each second until `shutdown`, and takes in at once what an app says; the first reading is there when it returns. What fails
    /// to come for a moment is as it was, and a driver that does not answer holds up nothing else.
    pub async fn watch(self, shutdown: CancellationToken) -> (watch::Receiver<Reading>, JoinHandle<()>) {
        let (readings, seen) = watch::channel(Reading::default());
        let (awaits, first) = oneshot::channel();
        let watching = Watching {
            told: self.told,
            is_played: self.file.is_some(),
            read: Reading::default(),
            gaps: Gaps::default(),
            readings,
            awaits: Some(awaits),
        };
        let source = Source { file: self.file, zones: ShellZones::default() };
        let task = tokio::spawn(watching.run(source, shutdown));
        // Of a task that has ended already there is none.
        let _ = first.await;
        (seen, task)
    }
}

// === impl Source ===

impl Source {
    /// Reads everything anew.
    fn read(&mut self, now: Instant) -> Reading {
        let read = match &self.file {
            Some(file) => of_file(file),
            None => {
                Reading { battery: platform::battery(), shell_celsius: self.zones.celsius(now), ..Reading::default() }
            }
        };
        Reading { available_bytes: platform::available_bytes(), ..read }
    }
}

/// Battery and heat, as a file plays them.
fn of_file(file: &Path) -> Reading {
    let played = std::fs::read(file).map_err(|error| error.to_string());
    match played.and_then(|bytes| serde_json::from_slice::<Played>(&bytes).map_err(|error| error.to_string())) {
        Ok(played) => Reading {
            battery: Battery {
                percent: played.battery_percent.filter(|percent| *percent <= 100),
                is_charging: played.charging,
                temperature_celsius: None,
                discharge_watts: played.discharge_watts.filter(|watts| watts.is_finite() && *watts >= 0.0),
            },
            shell_celsius: played.temperature_celsius.filter(|celsius| celsius.is_finite()),
            ..Reading::default()
        },
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the file of --sensors cannot be read; nothing is known of battery and heat");
            Reading::default()
        }
    }
}

// === impl Watching ===

impl Watching {
    async fn run(mut self, mut source: Source, shutdown: CancellationToken) {
        loop {
            let mut reading = tokio::task::spawn_blocking(move || {
                let read = source.read(Instant::now());
                (source, read)
            });
            let overdue = tokio::time::sleep(OVERDUE);
            tokio::pin!(overdue);
            let mut is_overdue = false;
            source = loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    done = &mut reading => {
                        let (source, read) = done.expect("reading files does not panic");
                        self.read = read;
                        break source;
                    }
                    () = news(&mut self.told) => self.publish(),
                    () = &mut overdue, if !is_overdue => {
                        is_overdue = true;
                        tracing::warn!("the sensors have not answered for {} s: what they say is not known until they do", OVERDUE.as_secs());
                        self.read = Reading::default();
                        self.publish();
                        self.awaits = None;
                    }
                    // What was known is forgotten in time, though nothing comes.
                    () = tokio::time::sleep(READ_EVERY), if is_overdue => self.publish(),
                }
            };
            self.publish();
            self.awaits = None;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(READ_EVERY) => {}
                () = news(&mut self.told) => self.publish(),
            }
        }
    }

    fn publish(&mut self) {
        let told = self.told.as_ref().map(|told| told.borrow().clone()).unwrap_or_default();
        let reading =
            if self.is_played { Reading { wishes: told.wishes(), ..self.read } } else { together(&told, self.read) };
        self.readings.send_replace(self.gaps.bridge(reading, Instant::now()));
    }
}

/// Waits until the app says something.
async fn news(told: &mut Option<watch::Receiver<Told>>) {
    let is_there = match told {
        Some(told) => told.changed().await.is_ok(),
        None => false,
    };
    // An app that is gone says nothing more.
    if !is_there {
        std::future::pending().await
    }
}

/// What the app says, and for the rest what was read.
fn together(told: &Told, read: Reading) -> Reading {
    let said = told.battery();
    let battery = Battery {
        percent: said.percent.or(read.battery.percent),
        is_charging: said.is_charging.or(read.battery.is_charging),
        temperature_celsius: said.temperature_celsius.or(read.battery.temperature_celsius),
        // Of whom it is told whether it charges, what another says of that does not count.
        discharge_watts: said
            .discharge_watts
            .or(read.battery.discharge_watts)
            .filter(|_| said.is_charging != Some(true)),
    };
    Reading {
        battery,
        shell_celsius: read.shell_celsius,
        thermal_status: told.thermal_status,
        thermal_headroom: told.thermal_headroom.filter(|part| part.is_finite()),
        available_bytes: told.available_bytes.or(read.available_bytes),
        low_memory_bytes: told.low_memory_bytes,
        network: told.network,
        metered: told.metered,
        wishes: told.wishes(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_an_app_says_comes_before_what_can_be_read() {
        let told = Told {
            battery_percent: Some(42.0),
            charging: Some(true),
            battery_celsius: Some(33.0),
            thermal_status: Some(2),
            thermal_headroom: Some(f64::NAN),
            available_bytes: Some(1000),
            low_memory_bytes: Some(10),
            ..Told::default()
        };
        let read = Reading {
            battery: Battery {
                percent: Some(5),
                is_charging: Some(false),
                temperature_celsius: Some(20.0),
                discharge_watts: Some(3.0),
            },
            shell_celsius: Some(31.0),
            available_bytes: Some(7),
            ..Reading::default()
        };
        let reading = together(&told, read);
        assert_eq!((reading.battery.percent, reading.battery.is_charging), (Some(42), Some(true)));
        assert_eq!(reading.battery.temperature_celsius, Some(33.0));
        assert_eq!((reading.thermal_status, reading.thermal_headroom), (Some(2), None));
        assert_eq!((reading.available_bytes, reading.low_memory_bytes), (Some(1000), Some(10)));
        assert_eq!((reading.shell_celsius, reading.battery.discharge_watts), (Some(31.0), None), "it charges");
        assert_eq!(together(&Told::default(), read), read, "the system says it itself");
    }

    #[test]
    fn a_file_plays_the_sensors_and_a_bad_one_plays_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sensors.json");
        let mut source = Source { file: Some(file.clone()), zones: ShellZones::default() };
        let mut read = || Reading { available_bytes: None, ..source.read(Instant::now()) };
        assert_eq!(read(), Reading::default(), "there is no file yet");
        std::fs::write(
            &file,
            r#"{ "batteryPercent": 12, "charging": false, "dischargeWatts": 3, "temperatureCelsius": 51.5 }"#,
        )
        .unwrap();
        let battery = Battery {
            percent: Some(12),
            is_charging: Some(false),
            temperature_celsius: None,
            discharge_watts: Some(3.0),
        };
        assert_eq!(read(), Reading { battery, shell_celsius: Some(51.5), ..Reading::default() });
        std::fs::write(&file, r#"{ "temperatureCelsius": 30 }"#).unwrap();
        assert_eq!(read().shell_celsius, Some(30.0), "it is read each time");
        for bad in ["{", r#"{ "batterypercent": 1 }"#, r#"{ "batteryPercent": 300 }"#] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(read(), Reading::default(), "{bad}");
        }
    }

    #[tokio::test]
    async fn all_see_what_was_read_last_and_an_app_is_heard_at_once() {
        let (app, told) = watch::channel(Told::default());
        let shutdown = CancellationToken::new();
        let (mut readings, task) = Sensors { file: None, told: Some(told) }.watch(shutdown.clone()).await;
        assert!(readings.borrow_and_update().available_bytes.is_some(), "the first reading is there");
        app.send_modify(|told| told.paused = true);
        let paused = readings.wait_for(|reading| reading.wishes.is_paused);
        tokio::time::timeout(Duration::from_secs(60), paused).await.unwrap().unwrap();
        drop(app);
        // It goes on without the app.
        readings.changed().await.unwrap();
        shutdown.cancel();
        task.await.unwrap();
        assert!(readings.wait_for(|_| false).await.is_err(), "whoever looks hears that nobody reads");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_driver_that_does_not_answer_holds_up_neither_a_person_s_word_nor_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("sensors.json");
        // Who opens it to read waits until somebody writes.
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let (app, told) = watch::channel(Told::default());
        let shutdown = CancellationToken::new();
        let sensors = Sensors { file: Some(fifo.clone()), told: Some(told) };
        // An app that says something all the time is no answer of the driver's.
        let patience = Duration::from_secs(60);
        let talks = async {
            loop {
                app.send_modify(|told| told.paused = !told.paused);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (mut readings, task) = tokio::select! {
            watched = tokio::time::timeout(patience, sensors.watch(shutdown.clone())) => watched.unwrap(),
            never = talks => never,
        };
        app.send_modify(|told| told.paused = true);
        let paused = readings.wait_for(|reading| reading.wishes.is_paused);
        tokio::time::timeout(patience, paused).await.unwrap().unwrap();
        shutdown.cancel();
        tokio::time::timeout(patience, task).await.unwrap().unwrap();
        // The thread that reads ends, too, and with it this test's runtime.
        std::fs::write(&fifo, "{}").unwrap();
    }
}
