//! Models: what `GET /v1/models` and `/readyz` say of the route table. Pure.

use serde_json::{Value, json};

use crate::routes::{DeploymentRoute, RouteTable};

/// Every model that is to be seen, ready or not.
pub(crate) fn list(table: &RouteTable, sees: impl Fn(&str) -> bool) -> Value {
    let shown = table.deployments.iter().filter(|(id, _)| sees(id));
    let data: Vec<Value> = shown.map(|(id, route)| model_object(id, route)).collect();
    json!({"object": "list", "data": data})
}

/// One model; `max_model_len` as vLLM has it, `ready` is ours.
pub(crate) fn model_object(id: &str, route: &DeploymentRoute) -> Value {
    json!({
        "id": id,
        "object": "model",
        "created": route.created_seconds,
        "owned_by": "polyphony",
        "max_model_len": route.context_length,
        "ready": route.is_ready(),
    })
}

/// `None` when any model can answer.
pub(crate) fn why_not_ready(table: &RouteTable) -> Option<String> {
    if table.deployments.values().any(DeploymentRoute::is_ready) {
        return None;
    }
    if table.deployments.is_empty() {
        return Some("there is no deployment yet: apply an InferenceDeployment\n".to_owned());
    }
    let reason = |(id, route): (&String, &DeploymentRoute)| {
        let reason = route.unavailable_reason.as_deref().unwrap_or("no ring of phones is ready yet");
        format!("{id}: {reason}\n")
    };
    Some(table.deployments.iter().map(reason).collect())
}
