//! Titles: whose a Phone is, by the key that it records: a device's, nobody's any more, or another's that answers. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use polyphony_identity::Papers;
use serde_json::Value;

use crate::verbs::up::readiness::readiness;

/// The host takes a phone for one that answers, and says so, for as long after it has heard of it.
const ECHO: Duration = Duration::from_secs(6);

/// Who has the Phone of a name, as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Title {
    /// It is the device's own, or whoever has it does not answer, or there is none.
    Free,
    /// Another device answers by it.
    Anothers,
    /// It is another's, of which nothing was heard since.
    Unclear,
}

// === impl Title ===

impl Title {
    /// For a device with the key `own`, of whom nothing runs since `since`.
    pub(super) fn of(
        phone: &str,
        found: Option<&Value>,
        lease: Option<&Value>,
        own: Option<&str>,
        since: jiff::Timestamp,
    ) -> Self {
        let Some(recorded) = found.and_then(recorded_key) else { return Self::Free };
        if own == Some(recorded) || readiness(phone, as_slice(found), as_slice(lease), None).is_err() {
            return Self::Free;
        }
        let renewed = lease.and_then(|lease| lease["spec"]["renewTime"].as_str()?.parse::<jiff::Timestamp>().ok());
        match renewed {
            Some(renewed) if renewed > since + ECHO => Self::Anothers,
            _ => Self::Unclear,
        }
    }
}

fn as_slice(object: Option<&Value>) -> &[Value] {
    object.map(std::slice::from_ref).unwrap_or_default()
}

/// The serials of those of a farm's devices by whose keys names answer that are other devices' of it now. `named` are serials with their names, `keys` the
/// devices' by their serials, `recorded` those of Phones by their names.
pub(super) fn holders_of_others_names(
    named: &[(String, String)],
    keys: &BTreeMap<String, String>,
    recorded: &BTreeMap<String, String>,
) -> BTreeSet<String> {
    let holders_of = |(serial, phone): &(String, String)| {
        let key = recorded.get(phone);
        let serial = serial.clone();
        keys.iter()
            .filter(move |(other, theirs)| **other != serial && Some(*theirs) == key)
            .map(|(other, _)| other.clone())
    };
    named.iter().flat_map(holders_of).collect()
}

/// The key of the device that a Phone belongs to.
pub(super) fn recorded_key(phone: &Value) -> Option<&str> {
    phone["status"]["publicKey"].as_str()
}

/// The key of a device, by the papers that its agent keeps; none where they say none.
pub(super) fn key_of(papers: &str) -> Option<String> {
    let written: Value = serde_json::from_str(papers).ok()?;
    let holder = Papers::from_pem(written["chain"].as_str()?, "").ok()?.holder().ok()?;
    Some(holder.key.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Authority, Clock, DEFAULT_DOMAIN, Key, Lifetimes, Name, Role};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_anothers_by_what_was_heard_since_and_by_no_memory() {
        let phone = |status: &str| {
            json!({"metadata": {"name": "kitchen"}, "status": {"publicKey": "sha256:a",
                "conditions": [{"type": "Ready", "status": status}]}})
        };
        let unnamed =
            json!({"metadata": {"name": "kitchen"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let lease = |time: &str| json!({"metadata": {"name": "kitchen"}, "spec": {"renewTime": time}});
        let since: jiff::Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let (early, echo, late) = (
            lease("2026-01-01T00:00:02.000000Z"),
            lease("2026-01-01T00:00:15.000000Z"),
            lease("2026-01-01T00:00:17.000000Z"),
        );
        for (found, lease, own, expected) in [
            (None, None, None, Title::Free),
            (Some(unnamed), Some(&late), None, Title::Free),
            (Some(phone("True")), Some(&late), Some("sha256:a"), Title::Free),
            (Some(phone("False")), Some(&late), None, Title::Free),
            (Some(phone("Unknown")), Some(&late), Some("sha256:b"), Title::Free),
            (Some(phone("True")), None, None, Title::Unclear),
            (Some(phone("True")), Some(&early), None, Title::Unclear),
            (Some(phone("True")), Some(&echo), Some("sha256:b"), Title::Unclear),
            (Some(phone("True")), Some(&late), Some("sha256:b"), Title::Anothers),
            (Some(phone("True")), Some(&late), None, Title::Anothers),
        ] {
            assert_eq!(
                Title::of("kitchen", found.as_ref(), lease, own, since),
                expected,
                "{found:?} {lease:?} {own:?}"
            );
        }
    }

    #[test]
    fn devices_that_swap_names_or_hand_one_on_are_known() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
        };
        let keys = pairs(&[("A", "k-a"), ("B", "k-b"), ("D", "k-d")]).into_iter().collect();
        let recorded = pairs(&[("kitchen", "k-a"), ("hall", "k-b"), ("attic", "k-x")]).into_iter().collect();
        let holders = |named: &[(&str, &str)]| -> Vec<String> {
            holders_of_others_names(&pairs(named), &keys, &recorded).into_iter().collect()
        };
        assert_eq!(holders(&[("A", "kitchen"), ("B", "hall"), ("D", "attic")]), [""; 0], "as they were");
        assert_eq!(holders(&[("A", "hall"), ("B", "kitchen")]), ["A", "B"]);
        assert_eq!(holders(&[("C", "kitchen"), ("A", "cellar")]), ["A"]);
    }

    #[test]
    fn a_devices_key_is_read_out_of_its_papers() {
        let now = Clock::system().now();
        let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now).unwrap();
        let key = Key::generate().unwrap();
        let name = Name::of_controller(Role::Api, DEFAULT_DOMAIN);
        let papers = authority.certify_server(&key, &name, &["127.0.0.1".into()], now).unwrap();
        let written = json!({"chain": papers.chain_pem(), "roots": papers.roots_pem(), "timeSeconds": 1}).to_string();
        assert_eq!(key_of(&written), Some(papers.holder().unwrap().key.to_string()));
        for none in ["", "{}", "{\"chain\": \"\"}"] {
            assert_eq!(key_of(none), None, "{none}");
        }
    }
}
