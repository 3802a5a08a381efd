//! Calibration: whether every phone of a lab computes as fast as its share says, measured before anything else runs.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use polyphony_farm::lab::Phone;
use polyphony_farm::namespaces::SHARE_FILE;
use polyphony_farm::{Device, Launch, State};
use serde::{Deserialize, Serialize};

use super::keeper::AGENT;

/// How long an agent may take to measure itself; an old phone starts slowly.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rounds of measuring, if the machine is not left alone.
const MOST_ROUNDS: u32 = 8;
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
    #[error(
        "this machine's own speed changed by {changed_percent:.0} % while the phones were measured; {tolerance_percent} % are allowed: end what else runs on it, or give --tolerance PERCENT"
    )]
    Unsteady { changed_percent: f64, tolerance_percent: f64 },
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
    /// The least time of a layer so far.
    layer_seconds: f64,
}

/// Measures every phone and a whole core in turn, until all phones are within `tolerance_percent` of their shares.
///
/// Whatever else runs on the machine only ever slows them, so the fastest of all rounds counts.
///
/// # Errors
/// When a phone, or the machine, is still off after the last round; it names the first.
pub(super) fn calibrate(
    phones: &[Phone],
    devices: &mut [Box<dyn Device>],
    reference: &mut dyn Device,
    tolerance_percent: f64,
) -> anyhow::Result<Vec<(String, Calibration)>> {
    let mut references = vec![measure(reference)?];
    let unmeasured = |phone: &Phone| Measured {
        phone: phone.name.clone(),
        share: phone.shape.cpu_cores.unwrap_or(1.0),
        layer_seconds: f64::INFINITY,
    };
    let mut found: Vec<Measured> = phones.iter().map(unmeasured).collect();
    for round in 1.. {
        for (measured, device) in found.iter_mut().zip(devices.iter_mut()) {
            measured.layer_seconds = measured.layer_seconds.min(measure(device.as_mut())?);
        }
        references.push(measure(reference)?);
        match judge(&references, &found, tolerance_percent) {
            Err(_) if round < MOST_ROUNDS => {}
            judged => return Ok(judged?),
        }
    }
    unreachable!("the last round returns")
}

/// What was measured of each phone, if all are within the tolerance of their shares; `references` are a whole core's times for one
/// layer.
fn judge(
    references: &[f64],
    phones: &[Measured],
    tolerance_percent: f64,
) -> Result<Vec<(String, Calibration)>, CalibrationError> {
    let mut sorted = references.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let [reference, next, ..] = sorted[..] else { unreachable!("a whole core is measured before phones and after") };
    // A speed that was seen but once may be no more than luck.
    let changed_percent = (next / reference - 1.0) * 100.0;
    if changed_percent > tolerance_percent {
        return Err(CalibrationError::Unsteady { changed_percent, tolerance_percent });
    }
    let judged = phones.iter().map(|Measured { phone, share, layer_seconds }| {
        let found = Calibration { layer_seconds: *layer_seconds, expected_seconds: reference / share };
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

/// Runs the agent on a device until it has measured itself, and ends it. Seconds of one layer.
///
/// # Errors
/// When it does not start or says nothing of its speed.
fn measure(device: &mut dyn Device) -> anyhow::Result<f64> {
    // It measures itself before it dials; nothing listens there.
    let arguments = ["--name", "calibration", "--hub", "127.0.0.1:1", "--token", "none", "--data-dir", "calibration"];
    let device_flags = ["--memory", "1Mi", "--backend", "cpu", "--threads", "1", "--cpu-share-file", SHARE_FILE];
    let earlier = device.logs(AGENT).map_or(0, |log| log.len());
    device.run(&Launch::of(AGENT, arguments.into_iter().chain(device_flags)))?;
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
        let phone = |name: &str, share, ms: f64| Measured { phone: name.to_owned(), share, layer_seconds: ms / 1000.0 };
        let fit = [phone("a", 0.5, 2.1), phone("b", 0.25, 3.7)];
        let judged = judge(&[0.001, 0.001], &fit, 10.0).unwrap();
        assert_eq!(judged[1].0, "b");
        assert!((judged[1].1.off() + 0.075).abs() < 1e-9);
        let slow = [phone("a", 0.5, 2.0), phone("b", 0.25, 4.5)];
        let error = judge(&[0.001, 0.001], &slow, 10.0).unwrap_err().to_string();
        for words in ["b takes 4.50 ms", "+12 %", "4.00 ms", "0.25 of a core", "--tolerance"] {
            assert!(error.contains(words), "{words} is not in {error}");
        }
        assert!(judge(&[0.001, 0.001], &slow, 15.0).is_ok());
        assert!(judge(&[0.0015, 0.001, 0.0013, 0.001], &fit, 10.0).is_ok(), "what was slowed does not count");
        let error = judge(&[0.0012, 0.001, 0.0013], &fit, 10.0).unwrap_err().to_string();
        assert!(error.contains("changed by 20 %"), "{error}");
    }

    #[test]
    fn the_speed_is_found_in_the_agents_log() {
        let line = "2026-11-24T00:00:00Z  INFO polyphony_agent::agent: measured backend=cpu device=Xeon gflops=\"12.34\"\nmore";
        assert_eq!(gflops_of(line), Some(12.34));
        assert_eq!(gflops_of("measured gflops=7"), Some(7.0));
        assert_eq!(gflops_of("agent started"), None);
    }
}
