//! Readiness: whether the phones that were started are there. Believes nothing that is older than their start.

use serde_json::Value;

use crate::failure::Failure;
use crate::server::Server;

/// All Phones, and the Leases by which they are heard of.
pub(crate) async fn fetch_phones(server: &Server) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let phones = server.list(&format!("/apis/{}/{}/phones", polyphony_api::GROUP, polyphony_api::VERSION)).await?;
    let leases = server
        .list(&format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", polyphony_api::SYSTEM_NAMESPACE))
        .await?;
    Ok((phones, leases))
}

/// Whether a phone is Ready by what it said after `since`: a control plane that was killed remembers phones as Ready.
pub(crate) fn readiness(
    name: &str,
    phones: &[Value],
    leases: &[Value],
    since: Option<jiff::Timestamp>,
) -> Result<(), String> {
    let named = |object: &&Value| object["metadata"]["name"] == name;
    let Some(phone) = phones.iter().find(named) else {
        return Err("it has not joined".to_owned());
    };
    let conditions = phone["status"]["conditions"].as_array();
    let Some(ready) =
        conditions.and_then(|conditions| conditions.iter().find(|condition| condition["type"] == "Ready"))
    else {
        return Err("it has joined and says nothing of itself yet".to_owned());
    };
    let text = |field: &str| ready[field].as_str().unwrap_or_default();
    if text("status") != "True" {
        return Err(format!("Ready={} ({}): {}", text("status"), text("reason"), text("message")));
    }
    let renewed = leases
        .iter()
        .find(named)
        .and_then(|lease| lease["spec"]["renewTime"].as_str()?.parse::<jiff::Timestamp>().ok());
    match (renewed, since) {
        // Lease times may be cut to whole seconds.
        (Some(renewed), Some(since)) if renewed.as_second() < since.as_second() => {
            Err("it has not been heard of since it was started".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_phone_counts_as_ready_only_by_what_it_said_since_its_start() {
        let phone = |status: &str| {
            json!({"metadata": {"name": "phone-1"}, "status": {"conditions": [
            {"type": "Ready", "status": status, "reason": "Joined", "message": "hello"}]}})
        };
        let lease = |time: &str| json!({"metadata": {"name": "phone-1"}, "spec": {"renewTime": time}});
        let since: Option<jiff::Timestamp> = Some("2026-01-01T00:00:10.7Z".parse().unwrap());
        let (early, late) = (lease("2026-01-01T00:00:09.000000Z"), lease("2026-01-01T00:00:10.000000Z"));
        for (phones, leases, expected) in [
            (vec![], vec![], Err("it has not joined")),
            (
                vec![json!({"metadata": {"name": "phone-1"}})],
                vec![],
                Err("it has joined and says nothing of itself yet"),
            ),
            (vec![phone("Unknown")], vec![late.clone()], Err("Ready=Unknown (Joined): hello")),
            (vec![phone("True")], vec![early], Err("it has not been heard of since it was started")),
            (vec![phone("True")], vec![late], Ok(())),
            (vec![phone("True")], vec![], Ok(())),
        ] {
            assert_eq!(readiness("phone-1", &phones, &leases, since), expected.map_err(str::to_owned));
        }
    }
}
