//! Shapes: what a device is given of the machine it runs on, and what its links are like.

use std::collections::BTreeMap;
use std::time::Duration;

/// A share of a machine, and links. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Processor time in cores: 0.5 is half of one.
    pub cpu_cores: Option<f64>,
    /// Memory that all programs of the device may have together.
    pub memory_bytes: Option<u64>,
    /// What leaves and enters the device.
    pub link: Option<Link>,
    /// Links to single devices, by name, in place of `link`.
    pub links: BTreeMap<String, Link>,
}

/// What a packet meets, in each direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    pub bits_per_second: Option<u64>,
    /// From one end to the other: half of what it adds to a round trip.
    pub delay: Duration,
    /// The delay varies by as much, up and down.
    pub jitter: Duration,
    /// The share of packets that is lost, 0 to 1.
    pub loss: f64,
    /// Nothing passes: a partition.
    pub is_cut: bool,
}

// === impl Shape ===

impl Shape {
    /// What this shape limits, in words; nothing for the default.
    pub fn limits(&self) -> Vec<&'static str> {
        let mut limits = Vec::new();
        if self.cpu_cores.is_some() {
            limits.push("a CPU share");
        }
        if self.memory_bytes.is_some() {
            limits.push("a memory limit");
        }
        if self.link.is_some() || !self.links.is_empty() {
            limits.push("links");
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_names_what_it_limits() {
        assert!(Shape::default().limits().is_empty());
        let slow = Shape { cpu_cores: Some(0.5), link: Some(Link::default()), ..Shape::default() };
        assert_eq!(slow.limits(), ["a CPU share", "links"]);
        let cut = Link { is_cut: true, ..Link::default() };
        let parted = Shape { links: [("phone-2".to_owned(), cut)].into(), ..Shape::default() };
        assert_eq!(parted.limits(), ["links"]);
    }
}
