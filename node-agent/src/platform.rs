//! The platform: what the phone's system says of it, wherever this kind of system says so. A value that cannot be read is absent, never made up.

#[cfg(target_os = "android")]
mod android;
mod linux;

use polyphony_protocol::hub::Hardware;

pub use linux::{ShellZones, available_bytes, battery, memory_bytes};

/// Charge and state of the battery.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Battery {
    pub percent: Option<u8>,
    pub is_charging: Option<bool>,
    pub temperature_celsius: Option<f64>,
    /// What is taken out of it now, for all that the phone does; absent while it charges.
    pub discharge_watts: Option<f64>,
}

// === impl Battery ===

impl Battery {
    /// Whether a device that computes may take so many watts: beyond it a driver counts in another unit.
    pub fn is_a_power(watts: &f64) -> bool {
        (0.05..200.0).contains(watts)
    }
}

/// What the phone is, as its maker names it.
pub fn hardware() -> Hardware {
    #[cfg(target_os = "android")]
    return android::hardware();
    #[cfg(not(target_os = "android"))]
    linux::hardware()
}
