//! What an agent says when it joins, for the tests of the hub.

use polyphony_protocol::hub::Join;
use polyphony_protocol::version;

/// The join of a phone.
pub(super) fn join(phone: &str) -> Join {
    Join {
        version: version::CURRENT,
        phone: phone.into(),
        agent_version: "1".into(),
        hardware: Default::default(),
        ring_address: "127.0.0.1:1".into(),
        capacity_bytes: 2,
        allocatable_bytes: 1,
        backend: "cpu".into(),
        device: "cpu".into(),
        numerics: "cpu-f32".into(),
        speeds: vec![],
        kv_caches: vec![],
        metrics_address: String::new(),
        instance: String::new(),
    }
}
