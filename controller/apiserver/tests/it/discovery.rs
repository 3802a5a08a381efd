//! Discovery in both forms, reviews, and the documents of the schema.

use axum::body::Body;
use http::Request;
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
async fn whoever_asks_is_told_who_they_are_and_what_they_may_do() {
    let server = Server::start();
    let review = async |token: &str, plural: &str, spec: &Value| {
        let group = if plural == "selfsubjectreviews" { "authentication" } else { "authorization" };
        let request = Request::post(format!("/apis/{group}.k8s.io/v1/{plural}")).header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json");
        let review = server.send(request.body(Body::from(json!({"spec": spec}).to_string())).unwrap()).await.is(201);
        assert_eq!(review["spec"], *spec);
        review["status"].clone()
    };
    let who = |status: Value| status["userInfo"]["username"].clone();
    assert_eq!(who(review("token", "selfsubjectreviews", &json!({})).await), "polyphony");
    assert_eq!(who(review("look", "selfsubjectreviews", &json!({})).await), "looker");
    let resource = |verb: &str, resource: &str| json!({"resourceAttributes": {"verb": verb, "resource": resource}});
    let path = |verb: &str, path: &str| json!({"nonResourceAttributes": {"verb": verb, "path": path}});
    for (asked, viewer_may) in [
        (resource("list", "widgets"), true),
        (resource("watch", "pods"), true),
        (resource("delete", "widgets"), false),
        (resource("get", "secrets"), false),
        (resource("get", "*"), false),
        (resource("*", "widgets"), false),
        (resource("get", "*.*"), false),
        (resource("create", "selfsubjectaccessreviews"), true),
        (json!({}), false),
        (path("get", "/version"), true),
        (path("post", "/version"), false),
        (path("get", "/backup"), false),
        (path("get", "*"), false),
        (path("get", "/back*"), false),
        (path("get", "/apis/*"), true),
    ] {
        for (token, may) in [("token", true), ("look", viewer_may)] {
            assert_eq!(review(token, "selfsubjectaccessreviews", &asked).await["allowed"], may, "{token}: {asked}");
        }
    }
    let rules = review("look", "selfsubjectrulesreviews", &json!({})).await["resourceRules"].clone();
    let rules = rules.as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["resources"][0] == "widgets"));
    assert!(
        rules.iter().all(|rule| rule["resources"][0] != "secrets" && rule["verbs"] == json!(["get", "list", "watch"]))
    );
    let all = review("token", "selfsubjectrulesreviews", &json!({})).await;
    assert_eq!(all["resourceRules"][0]["verbs"], json!(["*"]));
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
