//! Calibration: whether every phone of a lab computes as fast as its share says, measured before anything else runs.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use polyphony_farm::lab::Phone;
use polyphony_farm::namespaces::SHARE_FILE;
use polyphony_farm::{Device, Launch, State};
use serde::{Deserialize, Serialize};

use super::AGENT;

/// How long an agent may take to measure itself; an old phone starts slowly.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rounds of measuring: at least so many, and no more if the machine is not left alone.
const ROUNDS: RangeInclusive<usize> = 3..=15;
/// Multiply-adds of the matrices of one layer of SmolLM2-135M, which the agent measures: query, key and value, gate and up,
/// down (node-agent/src/backend.rs).
const LAYER_PRODUCTS: f64 = (960 * 576 + 3072 * 576 + 576 * 1536) as f64;

/// How fast one phone was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Calibration {
    /// The time of one layer of the example model, for one token.
    pub(super) layer_seconds: f64,
    /// What it was to be by the phone's share.
    pub(super) expected_seconds: f64,
}

/// Why a lab does not start.
#[derive(Debug, PartialEq, thiserror::Error)]
enum CalibrationError {
    #[error(
        "{phone} takes {measured_ms:.2} ms for one layer, {off_percent:+.0} % off the {expected_ms:.2} ms of its profile ({share} of a core); {tolerance_percent} % are allowed: end what else runs on this machine, or give the phone another share (or --tolerance PERCENT, for a lab that need not be exact)"
    )]
    Off { phone: String, measured_ms: f64, expected_ms: f64, off_percent: f64, share: f64, tolerance_percent: f64 },
}

// === impl Calibration ===

impl Calibration {
    /// Measured over expected, from which 1 is taken.
    pub(super) fn off(self) -> f64 {
        self.layer_seconds / self.expected_seconds - 1.0
    }
}

/// What was measured of one phone.
#[derive(Clone, Debug)]
struct Measured {
    phone: String,
    share: f64,
    /// The time of a layer on a whole core and on the phone, of each round.
    rounds: Vec<[f64; 2]>,
}

/// Measures all phones and a whole core at once, until all phones are within `tolerance_percent` of their shares.
///
/// A machine's own speed may drift by more than is allowed here, so each time is compared with the core's of the same moment, and
/// the median of these ratios counts. They hardly disturb each other: agents rest between the steps that they measure.
///
/// # Errors
/// When a phone is still off after the last round; it names the first.
pub(super) fn calibrate(
    phones: &[Phone],
    devices: &mut [Box<dyn Device>],
    reference: &mut dyn Device,
    tolerance_percent: f64,
) -> anyhow::Result<Vec<(String, Calibration)>> {
    let unmeasured = |phone: &Phone| Measured {
        phone: phone.name.clone(),
        share: phone.shape.cpu_cores.unwrap_or(1.0),
        rounds: Vec::new(),
    };
    let mut found: Vec<Measured> = phones.iter().map(unmeasured).collect();
    for round in 1.. {
        let starts = devices.iter_mut().map(|device| start(device.as_mut())).collect::<anyhow::Result<Vec<usize>>>()?;
        let core_seconds = start(reference).and_then(|earlier| finish(reference, earlier))?;
        for ((measured, device), earlier) in found.iter_mut().zip(devices.iter_mut()).zip(starts) {
            measured.rounds.push([core_seconds, finish(device.as_mut(), earlier)?]);
        }
        if !ROUNDS.contains(&round) {
            continue;
        }
        match judge(&found, tolerance_percent) {
            Err(_) if round < *ROUNDS.end() => {}
            judged => return Ok(judged?),
        }
    }
    unreachable!("the last round returns")
}

/// What was measured of each phone, if all are within the tolerance of their shares.
fn judge(phones: &[Measured], tolerance_percent: f64) -> Result<Vec<(String, Calibration)>, CalibrationError> {
    let judged = phones.iter().map(|Measured { phone, share, rounds }| {
        let core_seconds = median(rounds.iter().map(|[core, _]| *core).collect());
        let slowed = median(rounds.iter().map(|[core, phone]| phone / core).collect());
        let found = Calibration { layer_seconds: core_seconds * slowed, expected_seconds: core_seconds / share };
        let off_percent = found.off() * 100.0;
        if off_percent.abs() > tolerance_percent {
            return Err(CalibrationError::Off {
                phone: phone.clone(),
                measured_ms: found.layer_seconds * 1000.0,
                expected_ms: found.expected_seconds * 1000.0,
                off_percent,
                share: *share,
                tolerance_percent,
            });
        }
        Ok((phone.clone(), found))
    });
    judged.collect()
}

/// The middle one of an odd count, the upper of the middle two of an even one; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Runs the agent on a device, which measures itself. How much it had logged before.
///
/// # Errors
/// When it does not start.
fn start(device: &mut dyn Device) -> anyhow::Result<usize> {
    // It measures itself before it dials: nothing listens there, and it has no token.
    let arguments = ["--name", "calibration", "--hub", "127.0.0.1:1", "--data-dir", "calibration"];
    let device_flags = ["--memory", "1Mi", "--backend", "cpu", "--threads", "1", "--cpu-share-file", SHARE_FILE];
    let earlier = device.logs(AGENT).map_or(0, |log| log.len());
    device.run(&Launch::of(AGENT, arguments.into_iter().chain(device_flags)))?;
    Ok(earlier)
}

/// Waits until the agent has measured itself, and ends it. Seconds of one layer.
///
/// # Errors
/// When it says nothing of its speed.
fn finish(device: &mut dyn Device, earlier: usize) -> anyhow::Result<f64> {
    let gflops = await_speed(device, earlier)?;
    // It may just have ended, since nobody takes it in.
    let _ = device.kill(AGENT);
    let seconds = 2.0 * LAYER_PRODUCTS / (gflops * 1e9);
    (seconds.is_finite() && seconds > 0.0).then_some(seconds).context("an agent measured no speed")
}

/// Waits until an agent has said how fast it is, in its log from byte `start` on. In 10^9 operations a second.
///
/// # Errors
/// When it ends, or says nothing for too long; with what it wrote.
pub(super) fn await_speed(device: &mut dyn Device, start: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    loop {
        let log = device.logs(AGENT)?;
        if let Some(gflops) = log.get(start..).and_then(gflops_of) {
            return Ok(gflops);
        }
        if began.elapsed() > PATIENCE || device.state(AGENT)? != State::Running {
            bail!("{}: its agent does not measure its speed; it wrote:\n{log}", device.name());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The figure of the line `measured backend=cpu … gflops="12.34"`.
fn gflops_of(log: &str) -> Option<f64> {
    let line = log.lines().find(|line| line.contains("measured") && line.contains("gflops="))?;
    let figure = line.split("gflops=").nth(1)?.trim_start_matches('"');
    let end = figure.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(figure.len());
    figure[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_phone_that_is_off_is_named_with_by_how_much() {
        // Of three rounds: the core's time as the machine drifts, and the phone's as many times as long.
        let phone = |name: &str, share, slowed: [f64; 3]| Measured {
            phone: name.to_owned(),
            share,
            rounds: [0.001, 0.0014, 0.0009]
                .into_iter()
                .zip(slowed)
                .map(|(core, slowed)| [core, core * slowed])
                .collect(),
        };
        // One round that something else slowed does not count.
        let fit = [phone("a", 0.5, [2.1, 2.1, 5.0]), phone("b", 0.25, [3.7, 3.7, 1.0])];
        let judged = judge(&fit, 10.0).unwrap();
        assert_eq!(judged[1].0, "b");
        assert!((judged[1].1.off() + 0.075).abs() < 1e-9);
        assert!((judged[1].1.expected_seconds - 0.004).abs() < 1e-9, "of the core's median time");
        let slow = [phone("a", 0.5, [2.0; 3]), phone("b", 0.25, [4.5; 3])];
        let error = judge(&slow, 10.0).unwrap_err().to_string();
        for words in ["b takes 4.50 ms", "+12 %", "4.00 ms", "0.25 of a core", "--tolerance"] {
            assert!(error.contains(words), "{words} is not in {error}");
        }
        assert!(judge(&slow, 15.0).is_ok());
    }

    #[test]
    fn the_speed_is_found_in_the_agents_log() {
        let line = "2026-11-24T00:00:00Z  INFO polyphony_agent::agent: measured backend=cpu device=Xeon gflops=\"12.34\"\nmore";
        assert_eq!(gflops_of(line), Some(12.34));
        assert_eq!(gflops_of("measured gflops=7"), Some(7.0));
        assert_eq!(gflops_of("agent started"), None);
    }
}
