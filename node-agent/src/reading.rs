//! A reading: all that a phone's sensors say at a time, and its person with them.

use crate::platform::Battery;
use crate::told::{Network, Wishes};

/// What sensors say now. A value that cannot be read is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    pub battery: Battery,
    pub shell_celsius: Option<f64>,
    /// Android's judgement of heat: 0 (none) to 6 (shutdown).
    pub thermal_status: Option<u8>,
    /// Android's forecast of heat: 1 is where throttling is severe.
    pub thermal_headroom: Option<f64>,
    /// Memory that all programs together could still take, and below what the system ends programs.
    pub available_bytes: Option<u64>,
    pub low_memory_bytes: Option<u64>,
    pub network: Option<Network>,
    /// Whether somebody pays for each byte of it.
    pub metered: Option<bool>,
    pub wishes: Wishes,
}

/// How warm a phone is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmth {
    pub of: WarmPart,
    pub celsius: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmPart {
    Shell,
    Battery,
}

// === impl Reading ===

impl Reading {
    /// Of the shell, or else of the battery: a phone that keeps its zones to itself may still tell how warm that is.
    pub fn warmth(&self) -> Option<Warmth> {
        let shell = self.shell_celsius.map(|celsius| Warmth { of: WarmPart::Shell, celsius });
        shell.or(self.battery.temperature_celsius.map(|celsius| Warmth { of: WarmPart::Battery, celsius }))
    }

    /// The warmer of shell and battery: neither is to pass a limit.
    pub fn hottest_celsius(&self) -> Option<f64> {
        [self.shell_celsius, self.battery.temperature_celsius].into_iter().flatten().max_by(f64::total_cmp)
    }

    pub fn temperature_celsius(&self) -> Option<f64> {
        self.warmth().map(|warmth| warmth.celsius)
    }
}
