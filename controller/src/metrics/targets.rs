//! Targets: whom Prometheus is to scrape, as its HTTP service discovery wants to be told. Pure.
//!
//! <https://prometheus.io/docs/prometheus/latest/http_sd/>

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::reconcile::observe::{Observed, PhoneLink, PhoneSeen};

/// Where a phone's metrics are shown, of whom they are asked over its link.
pub(super) const OF_PHONES: &str = "/metrics/phones/";

/// The phones that have a link now.
pub(super) fn linked(observed: &Observed) -> impl Iterator<Item = (&String, &PhoneSeen)> {
    observed.phones.iter().filter(|(_, seen)| matches!(seen.link, PhoneLink::Up { .. }))
}

/// The controller and all linked phones, in the form of Prometheus' discovery. All are scraped at this process: no phone has to be reachable.
pub(super) fn listing(own: SocketAddr, phones: &[String]) -> Value {
    let targets = [own.to_string()];
    let scheme = if own.ip().is_loopback() { "http" } else { "https" };
    let controller = json!({ "targets": targets, "labels": { "component": "controller", "__scheme__": scheme } });
    let phones = phones.iter().map(|phone| {
        json!({
            "targets": targets,
            "labels": {
                "component": "agent", "phone": phone, "instance": phone,
                "__metrics_path__": format!("{OF_PHONES}{phone}"), "__scheme__": scheme,
            },
        })
    });
    std::iter::once(controller).chain(phones).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_listing_has_the_form_that_prometheus_reads() {
        for (own, scheme) in [("127.0.0.1:1", "http"), ("10.0.0.1:1", "https")] {
            let expected = json!([
                { "targets": [own], "labels": { "component": "controller", "__scheme__": scheme } },
                { "targets": [own], "labels": {
                    "component": "agent", "phone": "phone-1", "instance": "phone-1",
                    "__metrics_path__": "/metrics/phones/phone-1", "__scheme__": scheme,
                } },
            ]);
            assert_eq!(listing(own.parse().unwrap(), &["phone-1".into()]), expected);
        }
    }
}
