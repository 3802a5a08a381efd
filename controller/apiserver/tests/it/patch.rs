//! The patches that are no apply.

use serde_json::json;

use crate::harness::{JSON_PATCH, MERGE, STRATEGIC, Server, WIDGETS, version};

#[tokio::test]
async fn the_finalizer_of_kube_goes_on_and_off() {
    let server = Server::start();
    server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    let on = json!([
        {"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": ["example.dev/hold"]},
    ]);
    server.patch(&path, JSON_PATCH, &on).await.is(200);
    server.patch(&path, JSON_PATCH, &on).await.fails(422, "Invalid");
    let off = json!([
        {"op": "test", "path": "/metadata/finalizers/0", "value": "example.dev/hold"},
        {"op": "remove", "path": "/metadata/finalizers/0"},
    ]);
    let object = server.patch(&path, JSON_PATCH, &off).await.is(200);
    assert_eq!(object["metadata"]["finalizers"].as_array().map_or(0, Vec::len), 0);
    server.patch(&path, JSON_PATCH, &json!([{"op": "jump"}])).await.fails(400, "BadRequest");
    server.patch(&path, JSON_PATCH, &json!([{"op": "remove", "path": "/spec/none"}])).await.fails(422, "Invalid");
}

#[tokio::test]
async fn a_merge_patch_may_carry_the_version_that_it_read() {
    let server = Server::start();
    let a = server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    let mut patch = json!({"metadata": {"resourceVersion": a["metadata"]["resourceVersion"]}, "spec": {"size": 4}});
    let patched = server.patch(&path, MERGE, &patch).await.is(200);
    assert_eq!(version(&patched), version(&a) + 1);
    patch["spec"]["size"] = json!(5);
    server.patch(&path, MERGE, &patch).await.fails(409, "Conflict");
    server.patch(&path, MERGE, &json!({"spec": {"size": "big"}})).await.fails(422, "Invalid");
    server.patch(&path, MERGE, &json!({"metadata": {"name": "b"}})).await.fails(400, "BadRequest");
    server.patch(&format!("{WIDGETS}/b"), MERGE, &json!({})).await.fails(404, "NotFound");
    server.patch(&path, MERGE, &json!([1])).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn strategic_patches_are_for_built_in_kinds_alone() {
    let server = Server::start();
    server.widget("a", "red").await;
    let status = server.patch(&format!("{WIDGETS}/a"), STRATEGIC, &json!({})).await.fails(415, "UnsupportedMediaType");
    assert!(status["message"].as_str().unwrap().contains("application/merge-patch+json"));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}});
    server.post("/api/v1/namespaces/default/configmaps", &map).await.is(201);
    let path = "/api/v1/namespaces/default/configmaps/m";
    let patched = server.patch(path, STRATEGIC, &json!({"data": {"a": null, "c": "3"}})).await.is(200);
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));
}
