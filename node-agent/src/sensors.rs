//! Sensors: battery and heat, from the system or, in labs and tests, from a file that plays them. One task reads them; all others see what it read
//! last, for a driver may take its time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::watch;
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

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Played {
    battery_percent: Option<u8>,
    charging: Option<bool>,
    discharge_watts: Option<f64>,
    temperature_celsius: Option<f64>,
}

// === impl Sensors ===

impl Sensors {
    /// Reads everything each second, and whenever an app says something, until `shutdown`; the first time before it returns. What fails to come
    /// for a moment is as it was.
    pub async fn watch(self, shutdown: CancellationToken) -> (watch::Receiver<Reading>, JoinHandle<()>) {
        let mut said = self.told.clone();
        let (readings, seen) = watch::channel(Reading::default());
        let mut reader = Reader { sensors: self, zones: ShellZones::default(), gaps: Gaps::default() };
        reader = reader.read_apart(&readings).await;
        let task = tokio::spawn(async move {
            loop {
                let news = async {
                    let is_there = match &mut said {
                        Some(said) => said.changed().await.is_ok(),
                        None => false,
                    };
                    // An app that is gone says nothing more.
                    if !is_there {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(READ_EVERY) => {}
                    () = news => {}
                }
                reader = reader.read_apart(&readings).await;
            }
        });
        (seen, task)
    }

    /// Reads everything anew.
    fn read(&self, zones: &mut ShellZones, now: Instant) -> Reading {
        let Some(file) = &self.file else { return self.of_system(zones, now) };
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
                wishes: self.told().wishes(),
                ..Reading::default()
            },
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the file of --sensors cannot be read; nothing is known of battery and heat");
                Reading { wishes: self.told().wishes(), ..Reading::default() }
            }
        }
    }

    /// All that an app says; nothing where there is none.
    fn told(&self) -> Told {
        self.told.as_ref().map(|told| told.borrow().clone()).unwrap_or_default()
    }

    /// What the app says, and for the rest what can be read.
    fn of_system(&self, zones: &mut ShellZones, now: Instant) -> Reading {
        let read = platform::battery();
        let told = self.told();
        let said = told.battery();
        let battery = Battery {
            percent: said.percent.or(read.percent),
            is_charging: said.is_charging.or(read.is_charging),
            temperature_celsius: said.temperature_celsius.or(read.temperature_celsius),
            // Of whom it is told whether it charges, what another says of that does not count.
            discharge_watts: said.discharge_watts.or(read.discharge_watts).filter(|_| said.is_charging != Some(true)),
        };
        Reading {
            battery,
            shell_celsius: zones.celsius(now),
            thermal_status: told.thermal_status,
            thermal_headroom: told.thermal_headroom.filter(|part| part.is_finite()),
            available_bytes: told.available_bytes.or_else(platform::available_bytes),
            low_memory_bytes: told.low_memory_bytes,
            network: told.network,
            metered: told.metered,
            wishes: told.wishes(),
        }
    }
}

/// What reading takes.
struct Reader {
    sensors: Sensors,
    zones: ShellZones,
    gaps: Gaps,
}

// === impl Reader ===

impl Reader {
    /// On a thread on which it may take its time.
    async fn read_apart(mut self, readings: &watch::Sender<Reading>) -> Self {
        let reading = tokio::task::spawn_blocking(move || {
            let now = Instant::now();
            let reading = self.sensors.read(&mut self.zones, now);
            (self.gaps.bridge(reading, now), self)
        });
        let (reading, reader) = reading.await.expect("reading files does not panic");
        readings.send_replace(reading);
        reader
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
        let (app, told) = watch::channel(told);
        let sensors = Sensors { file: None, told: Some(told) };
        let mut zones = ShellZones::default();
        let mut read = || sensors.read(&mut zones, Instant::now());
        let reading = read();
        assert_eq!((reading.battery.percent, reading.battery.is_charging), (Some(42), Some(true)));
        assert_eq!(reading.battery.temperature_celsius, Some(33.0));
        assert_eq!((reading.thermal_status, reading.thermal_headroom), (Some(2), None));
        assert_eq!((reading.available_bytes, reading.low_memory_bytes), (Some(1000), Some(10)));
        app.send_modify(|told| told.available_bytes = None);
        assert!(read().available_bytes > Some(1000), "the system says it itself");
    }

    #[test]
    fn a_file_plays_the_sensors_and_a_bad_one_plays_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sensors.json");
        let sensors = Sensors { file: Some(file.clone()), told: None };
        let read = || sensors.read(&mut ShellZones::default(), Instant::now());
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
}
