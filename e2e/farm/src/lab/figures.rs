//! The figures of a lab's file, as they are written: every one may be absent.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Link;

/// A lab's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabFile {
    pub(super) phones: Vec<PhoneEntry>,
    #[serde(default)]
    pub(super) links: Vec<Between>,
    /// Added to those that there are, or in their place.
    #[serde(default)]
    pub(super) profiles: Profiles,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Profiles {
    pub(super) phones: BTreeMap<String, PhoneFigures>,
    pub(super) links: BTreeMap<String, LinkFigures>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PhoneEntry {
    pub(super) name: String,
    pub(super) profile: Option<String>,
    /// The profile of its link to everybody.
    pub(super) link: Option<String>,
    pub(super) sensors: Option<Sensors>,
    // Those of a profile once more: a flattened struct would lose the lines of its errors.
    cpu: Option<f64>,
    memory: Option<String>,
    backend: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PhoneFigures {
    /// Share of one core.
    pub(super) cpu: Option<f64>,
    /// What the agent gives to segments, such as `96Mi`.
    pub(super) memory: Option<String>,
    pub(super) backend: Option<String>,
}

/// A link of two phones alone, in both directions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Between {
    pub(super) between: [String; 2],
    pub(super) profile: Option<String>,
    megabits_per_second: Option<f64>,
    delay_milliseconds: Option<f64>,
    jitter_milliseconds: Option<f64>,
    loss_percent: Option<f64>,
    cut: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct LinkFigures {
    megabits_per_second: Option<f64>,
    delay_milliseconds: Option<f64>,
    jitter_milliseconds: Option<f64>,
    loss_percent: Option<f64>,
    cut: Option<bool>,
}

/// What a phone's sensors say; the agent reads it from a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sensors {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery_percent: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charging: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
}

/// What is to be different about a link; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LinkChange {
    pub megabits_per_second: Option<f64>,
    pub delay_milliseconds: Option<f64>,
    pub jitter_milliseconds: Option<f64>,
    pub loss_percent: Option<f64>,
    pub cut: Option<bool>,
}

// === impl PhoneEntry ===

impl PhoneEntry {
    /// What is written here, whatever the profile says.
    pub(super) fn figures(&self) -> PhoneFigures {
        PhoneFigures { cpu: self.cpu, memory: self.memory.clone(), backend: self.backend.clone() }
    }
}

// === impl Between ===

impl Between {
    /// What is written here, whatever the profile says.
    pub(super) fn figures(&self) -> LinkFigures {
        LinkFigures {
            megabits_per_second: self.megabits_per_second,
            delay_milliseconds: self.delay_milliseconds,
            jitter_milliseconds: self.jitter_milliseconds,
            loss_percent: self.loss_percent,
            cut: self.cut,
        }
    }
}

// === impl LinkFigures ===

impl LinkFigures {
    /// These, and what they do not say as `other` says it.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self {
            megabits_per_second: self.megabits_per_second.or(other.megabits_per_second),
            delay_milliseconds: self.delay_milliseconds.or(other.delay_milliseconds),
            jitter_milliseconds: self.jitter_milliseconds.or(other.jitter_milliseconds),
            loss_percent: self.loss_percent.or(other.loss_percent),
            cut: self.cut.or(other.cut),
        }
    }

    /// # Errors
    /// When a figure is none that a link can have.
    pub(super) fn link(&self) -> Result<Link, String> {
        LinkChange {
            megabits_per_second: self.megabits_per_second,
            delay_milliseconds: self.delay_milliseconds,
            jitter_milliseconds: self.jitter_milliseconds,
            loss_percent: self.loss_percent,
            cut: self.cut,
        }
        .of(&Link::default())
    }
}

// === impl LinkChange ===

impl LinkChange {
    /// The link with the change.
    ///
    /// # Errors
    /// When a figure is none that a link can have.
    pub fn of(&self, link: &Link) -> Result<Link, String> {
        let within = |name: &str, value: Option<f64>, most: f64| match value {
            Some(value) if !(0.0..=most).contains(&value) => Err(format!("{name}: {value}; give 0 to {most}")),
            value => Ok(value),
        };
        let rate = within("megabitsPerSecond", self.megabits_per_second, 100_000.0)?;
        if rate == Some(0.0) {
            return Err("megabitsPerSecond: 0; a link that carries nothing is `cut: true`".to_owned());
        }
        let milliseconds = |name, value, old: Duration| {
            Ok::<_, String>(within(name, value, 30_000.0)?.map_or(old, |ms| Duration::from_secs_f64(ms / 1000.0)))
        };
        Ok(Link {
            bits_per_second: rate.map(|rate| (rate * 1e6).max(1.0) as u64).or(link.bits_per_second),
            delay: milliseconds("delayMilliseconds", self.delay_milliseconds, link.delay)?,
            jitter: milliseconds("jitterMilliseconds", self.jitter_milliseconds, link.jitter)?,
            loss: within("lossPercent", self.loss_percent, 100.0)?.map_or(link.loss, |percent| percent / 100.0),
            is_cut: self.cut.unwrap_or(link.is_cut),
        })
    }
}

/// A quantity such as `96Mi` in bytes.
///
/// # Errors
/// When it is none, or nothing.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no quantity of memory: write a whole number and Ki, Mi or Gi, such as 96Mi");
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match &text[split..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = text[..split].parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let link = Link { delay: Duration::from_millis(3), loss: 0.1, ..Link::default() };
        let change = LinkChange { megabits_per_second: Some(5.0), cut: Some(true), ..LinkChange::default() };
        let changed = change.of(&link).unwrap();
        assert_eq!(changed, Link { bits_per_second: Some(5_000_000), is_cut: true, ..link.clone() });
        assert!(!LinkChange { cut: Some(false), ..LinkChange::default() }.of(&changed).unwrap().is_cut);
        for bad in [-1.0, f64::NAN, f64::INFINITY, 101.0] {
            let change = LinkChange { loss_percent: Some(bad), ..LinkChange::default() };
            assert!(change.of(&link).unwrap_err().contains("lossPercent"), "{bad}");
        }
    }

    #[test]
    fn memory_is_a_whole_number_with_a_unit() {
        assert_eq!(parse_bytes("96Mi"), Ok(96 << 20));
        assert_eq!(parse_bytes("1024"), Ok(1024));
        for bad in ["", "Mi", "0", "-1Mi", "1.5Gi", "5GB", "99999999999Gi", "ü"] {
            assert!(parse_bytes(bad).unwrap_err().contains("96Mi"), "{bad}");
        }
    }
}
