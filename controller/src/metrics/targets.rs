//! Targets: whom Prometheus is to scrape, as its HTTP service discovery wants to be told. Pure.
//!
//! <https://prometheus.io/docs/prometheus/latest/http_sd/>

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::reconcile::observe::{Observed, PhoneLink, PhoneSeen};

/// An agent's `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) phone: String,
    pub(super) address: SocketAddr,
}

/// The phones that have a link now.
pub(super) fn linked(observed: &Observed) -> impl Iterator<Item = (&String, &PhoneSeen)> {
    observed.phones.iter().filter(|(_, seen)| matches!(seen.link, PhoneLink::Up { .. }))
}

/// Every linked phone that shows its metrics somewhere.
pub(super) fn agents(observed: &Observed) -> Arc<[Target]> {
    let target = |(phone, seen): (&String, &PhoneSeen)| {
        // What is no address is nothing to scrape: the agent may be older, or tell tales.
        let address = seen.join.as_ref()?.metrics_address.parse().ok()?;
        Some(Target { phone: phone.clone(), address })
    };
    linked(observed).filter_map(target).collect()
}

/// The controller and all agents, in the form of Prometheus' discovery.
pub(super) fn listing(own: SocketAddr, agents: &[Target]) -> Value {
    let own = json!({ "targets": [own.to_string()], "labels": { "component": "controller" } });
    let agents = agents.iter().map(|agent| {
        json!({
            "targets": [agent.address.to_string()],
            "labels": { "component": "agent", "phone": agent.phone },
        })
    });
    std::iter::once(own).chain(agents).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_listing_has_the_form_that_prometheus_reads() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let agents = [Target { phone: "phone-1".into(), address: address(2) }];
        let expected = json!([
            { "targets": ["127.0.0.1:1"], "labels": { "component": "controller" } },
            { "targets": ["127.0.0.1:2"], "labels": { "component": "agent", "phone": "phone-1" } },
        ]);
        assert_eq!(listing(address(1), &agents), expected);
    }
}
