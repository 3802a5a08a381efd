//! Discovery in both forms, reviews, and the documents of the schema.

use serde_json::{Value, json};

use crate::harness::{Server, WIDGETS};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

fn group<'a>(list: &'a Value, name: &str) -> &'a Value {
    list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name).unwrap()
}

#[tokio::test]
async fn the_aggregated_form_lists_every_resource() {
    let server = Server::start();
    let answer = server.get_as("/apis", AGGREGATED).await;
    let content_type = answer.headers["content-type"].to_str().unwrap().to_owned();
    assert_eq!(content_type, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let list = answer.is(200);
    let version = &group(&list, "example.dev")["versions"][0];
    assert_eq!(version["version"], "v1");
    let widgets = &version["resources"][0];
    assert_eq!(widgets["resource"], "widgets");
    assert_eq!(widgets["scope"], "Namespaced");
    assert_eq!(widgets["shortNames"], json!(["wd"]));
    assert_eq!(
        widgets["subresources"][1]["responseKind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
    group(&list, "authorization.k8s.io");
    let core = server.get_as("/api", AGGREGATED).await.is(200);
    assert_eq!(core["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_older_form_lists_the_same() {
    let server = Server::start();
    assert_eq!(server.get("/api").await.is(200)["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.is(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "example.dev"));
    let group = server.get("/apis/example.dev").await.is(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "example.dev/v1");
    let resources = server.get("/apis/example.dev/v1").await.is(200);
    let names: Vec<_> =
        resources["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    let core = server.get("/api/v1").await.is(200);
    assert_eq!(core["groupVersion"], "v1");
    server.get("/apis/nowhere.dev/v1").await.fails(404, "NotFound");
    server.get("/apis/nowhere.dev").await.fails(404, "NotFound");
}

#[tokio::test]
async fn whoever_asks_may_do_everything() {
    let server = Server::start();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let spec = json!({"resourceAttributes": {"verb": "delete", "resource": "widgets"}});
    let review = server.post(path, &json!({"spec": spec})).await.is(201);
    assert_eq!(review["status"]["allowed"], true);
    assert_eq!(review["spec"], spec);
    let protobuf = server.call("POST", path, "application/vnd.kubernetes.protobuf", &json!({})).await.is(201);
    assert_eq!(protobuf["status"]["allowed"], true);
}

#[tokio::test]
async fn the_schema_documents_name_every_group_version() {
    let server = Server::start();
    let index = server.get("/openapi/v3").await.is(200);
    for path in ["api/v1", "apis/example.dev/v1", "apis/events.k8s.io/v1", "apis/coordination.k8s.io/v1"] {
        assert!(index["paths"][path]["serverRelativeURL"].is_string(), "{path}");
        server.get(&format!("/openapi/v3/{path}")).await.is(200);
    }
    server.get("/openapi/v3/apis/nowhere.dev/v1").await.fails(404, "NotFound");
    server.get(WIDGETS).await.is(200);
}

#[tokio::test]
async fn the_document_of_version_2_names_every_kind_in_both_encodings() {
    let server = Server::start();
    let document = server.get("/openapi/v2").await.is(200);
    assert_eq!(document["swagger"], "2.0");
    let widget = &document["definitions"]["dev.example.v1.Widget"];
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{"group": "example.dev", "kind": "Widget", "version": "v1"}])
    );
    // As kubectl asks before it checks a list by itself.
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = server.get_as("/openapi/v2", accept).await;
    assert_eq!(answer.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    // Field 1, `swagger`, is the text "2.0"; field 2, `info`, begins with field 1, `title`.
    assert_eq!(answer.bytes[..5], [0x0a, 3, b'2', b'.', b'0']);
    assert_eq!(answer.bytes[5], 0x12);
    assert_eq!(answer.bytes[7..19], *b"\x0a\x0aKubernetes");
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(text.contains("dev.example.v1.Widget"), "{text}");
}
