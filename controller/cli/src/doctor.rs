//! What `doctor` says of phones: their backends, and whatever is wrong with them, as their status has it. Pure.

use kube::ResourceExt;
use polyphony_api::Phone;
use polyphony_api::phone::BackendSpeed;

/// Conditions that are well when they are false; a phone has one that is well when it is true.
const ILLS: [&str; 3] = ["BackendFaulty", "ThermalPressure", "BatteryLow"];

/// One line a backend of a phone, after the headers.
pub fn backends(phones: &[Phone]) -> Vec<Vec<String>> {
    let headers = ["PHONE", "CLASS", "ANSWERS", "GFLOP/S", "OF 4 ROWS", "OF A PROMPT", "GB/S", "DEVICE"];
    let mut lines = vec![headers.map(str::to_owned).to_vec()];
    let figure = |figure: f64| if figure > 0.0 { format!("{figure:.2}") } else { "-".to_owned() };
    for phone in phones {
        let backends = phone.status.iter().flat_map(|status| &status.backends);
        lines.extend(backends.map(|backend| {
            let class = backend.numerics.as_ref().unwrap_or(&backend.name);
            let [four, prompt] = [backend.batch_gflops, backend.prefill_gflops].map(Option::unwrap_or_default);
            let [one, four, prompt, bytes] = [backend.gflops, four, prompt, backend.gigabytes_per_second].map(figure);
            let (class, answers, device) = (class.clone(), answers(backend).to_owned(), backend.device.clone());
            vec![phone.name_any(), class, answers, one, four, prompt, bytes, device]
        }));
    }
    lines
}

/// What is wrong, a sentence each, beginning with the phone's name.
pub fn complaints(phones: &[Phone]) -> Vec<String> {
    let mut complaints = Vec::new();
    for phone in phones {
        let (name, status) = (phone.name_any(), phone.status.clone().unwrap_or_default());
        let is_ill = |type_: &str, told: &str| {
            if type_ == "Ready" { told != "True" } else { ILLS.contains(&type_) && told == "True" }
        };
        for condition in status.conditions.iter().filter(|condition| is_ill(&condition.type_, &condition.status)) {
            let not = if condition.type_ == "Ready" { "not Ready" } else { &condition.type_ };
            complaints.push(format!("{name}: {not} ({}): {}", condition.reason, condition.message));
        }
        if status.conditions.is_empty() {
            complaints.push(format!("{name}: it has never joined"));
        }
        for failure in &status.failures {
            let of = match (&failure.peer, &failure.manifest_digest) {
                (Some(peer), _) => format!("its link to {peer}"),
                (None, Some(digest)) => format!("the model with digest {}", digest.get(..12).unwrap_or(digest)),
                (None, None) => "the phone itself".to_owned(),
            };
            let message = failure.message.as_deref().unwrap_or_default();
            complaints.push(format!("{name}: {:?}, {} times in a row, {of}: {message}", failure.reason, failure.count));
        }
    }
    complaints
}

/// How a backend answered what is known.
pub fn answers(backend: &BackendSpeed) -> &'static str {
    match backend.verified {
        Some(true) => "known",
        Some(false) => "WRONG",
        None => "not asked",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_backend_that_failed_is_in_the_table_and_among_the_complaints() {
        let phone: Phone = serde_json::from_value(json!({
            "apiVersion": "polyphony.dev/v1alpha1", "kind": "Phone", "metadata": {"name": "phone-1"}, "spec": {},
            "status": {
                "backends": [
                    {"name": "cpu", "device": "cpu (avx2)", "numerics": "cpu-f32-r1", "gflops": 25.6,
                     "batchGflops": 60.0, "prefillGflops": 150.0, "gigabytesPerSecond": 9.5, "verified": true},
                    {"name": "vulkan", "device": "Mali-G720", "gflops": 0.0, "gigabytesPerSecond": 0.0,
                     "verified": false, "fault": "a layer gives 2 where 1 is right"},
                ],
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "AgentConnected", "message": "",
                     "lastTransitionTime": "2026-11-29T10:00:00Z"},
                    {"type": "BackendFaulty", "status": "True", "reason": "SetAside",
                     "message": "vulkan is set aside", "lastTransitionTime": "2026-11-29T10:00:00Z"},
                ],
            },
        }))
        .unwrap();
        let lines = backends(std::slice::from_ref(&phone));
        assert_eq!(lines[1], ["phone-1", "cpu-f32-r1", "known", "25.60", "60.00", "150.00", "9.50", "cpu (avx2)"]);
        assert_eq!(lines[2], ["phone-1", "vulkan", "WRONG", "-", "-", "-", "-", "Mali-G720"]);
        assert_eq!(complaints(&[phone]), ["phone-1: BackendFaulty (SetAside): vulkan is set aside"]);
    }

    #[test]
    fn a_phone_that_never_came_is_no_healthy_one() {
        let phone: Phone = serde_json::from_value(json!({"metadata": {"name": "phone-9"}, "spec": {}})).unwrap();
        assert_eq!(complaints(&[phone]), ["phone-9: it has never joined"]);
    }
}
