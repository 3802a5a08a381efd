//! Server-side apply through the endpoint: creation, ownership, conflicts, status.

use serde_json::{Value, json};

use crate::harness::{APPLY, MERGE, Server, WIDGETS, version};

fn config(spec: Value) -> Value {
    json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec})
}

#[tokio::test]
async fn an_apply_creates_then_owns_then_conflicts() {
    let server = Server::start();
    let path = format!("{WIDGETS}/a");
    let created =
        server.patch(&format!("{path}?fieldManager=one"), APPLY, &config(json!({"color": "red"}))).await.is(201);
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "one");
    assert_eq!(created["spec"]["size"], 3);
    let same = server.patch(&format!("{path}?fieldManager=one"), APPLY, &config(json!({"color": "red"}))).await.is(200);
    assert_eq!(version(&same), version(&created));
    let blue = config(json!({"color": "blue"}));
    let status = server.patch(&format!("{path}?fieldManager=two"), APPLY, &blue).await.fails(409, "Conflict");
    assert_eq!(status["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.color");
    let forced = server.patch(&format!("{path}?fieldManager=two&force=true"), APPLY, &blue).await.is(200);
    assert_eq!(forced["spec"]["color"], "blue");
    assert_eq!(forced["metadata"]["generation"], 2);
    let gone = server.patch(&format!("{path}?fieldManager=two"), APPLY, &config(json!({}))).await.is(200);
    assert!(gone["spec"]["color"].is_null(), "who owned it alone takes it away");
}

#[tokio::test]
async fn status_is_applied_without_a_name_in_the_body() {
    let server = Server::start();
    server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a/status?fieldManager=controller&force=true");
    let body = json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {}, "status": {"phase": "Ready"}});
    let first = server.patch(&path, APPLY, &body).await.is(200);
    assert_eq!(first["status"]["phase"], "Ready");
    assert_eq!(first["spec"]["color"], "red");
    assert_eq!(first["metadata"]["generation"], 1);
    let second = server.patch(&path, APPLY, &body).await.is(200);
    assert_eq!(version(&second), version(&first), "a status that says the same wakes nobody");
    let spec = config(json!({"color": "blue"}));
    let unchanged = server.patch(&path, APPLY, &spec).await.is(200);
    assert_eq!(unchanged["spec"]["color"], "red", "a status apply changes no spec");
    let absent = format!("{WIDGETS}/b/status?fieldManager=controller");
    server.patch(&absent, APPLY, &body).await.fails(404, "NotFound");
}

#[tokio::test]
async fn an_apply_needs_a_manager_and_a_whole_object() {
    let server = Server::start();
    let path = format!("{WIDGETS}/a");
    server.patch(&path, APPLY, &config(json!({}))).await.fails(422, "Invalid");
    server.patch(&format!("{path}?fieldManager=m"), APPLY, &json!([1])).await.fails(400, "BadRequest");
    server.patch(&format!("{path}?fieldManager=m"), APPLY, &json!({"spec": {}})).await.fails(400, "BadRequest");
    let mut managed = config(json!({}));
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    server.patch(&format!("{path}?fieldManager=m"), APPLY, &managed).await.fails(400, "BadRequest");
    let mut born = config(json!({}));
    born["metadata"]["uid"] = json!("x");
    server.patch(&format!("{path}?fieldManager=m"), APPLY, &born).await.fails(409, "Conflict");
    let mut unknown = config(json!({"colour": "red"}));
    unknown["metadata"]["labels"] = json!({"a": "b"});
    server
        .patch(&format!("{path}?fieldManager=m&fieldValidation=Strict"), APPLY, &unknown)
        .await
        .fails(400, "BadRequest");
}

#[tokio::test]
async fn updates_take_ownership_for_the_program_that_writes() {
    let server = Server::start();
    let created = server.widget("a", "red").await;
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "it");
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Update");
    let patched = server
        .patch(&format!("{WIDGETS}/a?fieldManager=editor"), MERGE, &json!({"spec": {"color": "blue"}}))
        .await
        .is(200);
    let managers: Vec<_> = patched["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["manager"].as_str().unwrap())
        .collect();
    assert!(managers.contains(&"editor"), "{managers:?}");
}
