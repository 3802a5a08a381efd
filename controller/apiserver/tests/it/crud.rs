//! Create, read, replace: identity, preconditions, status, generation.

use serde_json::json;

use crate::harness::{MERGE, STRATEGIC, Server, WIDGETS, version, widget};

#[tokio::test]
async fn a_new_object_gets_its_identity_and_defaults() {
    let server = Server::start();
    let mut body = widget("a", "red");
    body["status"] = json!({"phase": "Done"});
    body["metadata"]["uid"] = json!("mine");
    let created = server.post(WIDGETS, &body).await.is(201);
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["metadata"]["namespace"], "default");
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(created["metadata"]["creationTimestamp"].is_string());
    assert_eq!(created["spec"]["size"], 3);
    assert!(created["status"].is_null(), "status is written through its own endpoint");
    assert_eq!(server.get(&format!("{WIDGETS}/a")).await.is(200), created);
    let status = server.post(WIDGETS, &body).await.fails(409, "AlreadyExists");
    assert_eq!(status["message"], "widgets.example.dev \"a\" already exists");
}

#[tokio::test]
async fn a_generated_name_ends_in_five_letters() {
    let server = Server::start();
    let mut body = widget("", "red");
    body["metadata"] = json!({"generateName": "w-"});
    let first = server.post(WIDGETS, &body).await.is(201);
    let second = server.post(WIDGETS, &body).await.is(201);
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("w-") && name.len() == 7, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn wrong_objects_are_told_what_is_wrong() {
    let server = Server::start();
    server.widget("a", "red").await;
    let missing = "/apis/example.dev/v1/namespaces/nowhere/widgets";
    let status = server.post(missing, &widget("a", "red")).await.fails(404, "NotFound");
    assert_eq!(status["message"], "namespaces \"nowhere\" not found");
    let status = server.get(&format!("{WIDGETS}/b")).await.fails(404, "NotFound");
    assert_eq!(status["message"], "widgets.example.dev \"b\" not found");
    assert_eq!(status["details"], json!({"name": "b", "group": "example.dev", "kind": "widgets"}));

    let mut other = widget("b", "red");
    other["kind"] = json!("Gadget");
    server.post(WIDGETS, &other).await.fails(400, "BadRequest");
    let mut unnamed = widget("b", "red");
    unnamed["metadata"] = json!({});
    let status = server.post(WIDGETS, &unnamed).await.fails(422, "Invalid");
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.name");
    let mut elsewhere = widget("b", "red");
    elsewhere["metadata"]["namespace"] = json!("other");
    server.post(WIDGETS, &elsewhere).await.fails(400, "BadRequest");
    server.post(WIDGETS, &json!([1])).await.fails(400, "BadRequest");
    server
        .call("POST", WIDGETS, "application/vnd.kubernetes.protobuf", &json!({}))
        .await
        .fails(415, "UnsupportedMediaType");
    server.call("POST", &format!("{WIDGETS}/a"), "application/json", &json!({})).await.fails(405, "MethodNotAllowed");
    server.post("/apis/example.dev/v1/widgets", &widget("b", "red")).await.fails(405, "MethodNotAllowed");
    server.get("/apis/example.dev/v1/namespaces/default/gadgets").await.fails(404, "NotFound");
    server.post(WIDGETS, &json!({"big": "x".repeat(4 << 20)})).await.fails(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn a_replacement_needs_the_version_that_it_read() {
    let server = Server::start();
    let first = server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    let mut second = first.clone();
    second["spec"]["color"] = json!("blue");
    let second = server.put(&path, &second).await.is(200);
    assert_eq!(second["metadata"]["generation"], 2);
    let status = server.put(&path, &first).await.fails(409, "Conflict");
    assert!(status["message"].as_str().unwrap().contains("please apply your changes to the latest version"));
    let mut unread = second.clone();
    unread["metadata"]["resourceVersion"] = json!("");
    server.put(&path, &unread).await.fails(422, "Invalid");
    let mut stranger = second.clone();
    stranger["metadata"]["uid"] = json!("other");
    server.put(&path, &stranger).await.fails(409, "Conflict");
    server.put(&format!("{WIDGETS}/b"), &second).await.is(404);
    let mut renamed = second.clone();
    renamed["metadata"]["name"] = json!("c");
    server.put(&path, &renamed).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn a_write_that_changes_nothing_leaves_the_version_alone() {
    let server = Server::start();
    let created = server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    let same = server.put(&path, &created).await.is(200);
    assert_eq!(version(&same), version(&created));
    let same = server.patch(&path, MERGE, &json!({"spec": {"color": "red"}})).await.is(200);
    assert_eq!(same, created);
    let status = json!({"status": {"phase": "Ready"}});
    let ready = server.patch(&format!("{path}/status"), MERGE, &status).await.is(200);
    let again = server.patch(&format!("{path}/status"), MERGE, &status).await.is(200);
    assert!(version(&ready) > version(&created));
    assert_eq!(again, ready);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = Server::start();
    let created = server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    let mut body = created.clone();
    body["status"] = json!({"phase": "Ready"});
    body["spec"]["color"] = json!("blue");
    body["metadata"]["labels"]["new"] = json!("x");
    let through_status = server.put(&format!("{path}/status"), &body).await.is(200);
    assert_eq!(through_status["status"]["phase"], "Ready");
    assert_eq!(through_status["spec"]["color"], "red");
    assert!(through_status["metadata"]["labels"]["new"].is_null());
    assert_eq!(through_status["metadata"]["generation"], 1);

    body["metadata"]["resourceVersion"] = through_status["metadata"]["resourceVersion"].clone();
    body["status"] = json!({"phase": "Broken"});
    let through_main = server.put(&path, &body).await.is(200);
    assert_eq!(through_main["status"]["phase"], "Ready");
    assert_eq!(through_main["spec"]["color"], "blue");
    assert_eq!(through_main["metadata"]["generation"], 2);
    assert_eq!(server.get(&format!("{path}/status")).await.is(200), through_main);
}

#[tokio::test]
async fn metadata_alone_does_not_raise_the_generation() {
    let server = Server::start();
    server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    let patched = server.patch(&path, MERGE, &json!({"metadata": {"labels": {"x": "y"}, "uid": "z"}})).await;
    patched.fails(409, "Conflict");
    let patched =
        server.patch(&path, MERGE, &json!({"metadata": {"labels": {"x": "y"}, "generation": 9}})).await.is(200);
    assert_eq!(patched["metadata"]["generation"], 1);
    assert_eq!(patched["metadata"]["labels"]["x"], "y");
}

#[tokio::test]
async fn unknown_and_repeated_fields_are_refused_warned_of_or_ignored() {
    let server = Server::start();
    let text = r#"{"apiVersion":"example.dev/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"color":"red","color":"blue","colour":"x"}}"#;
    let send = async |mode: &str| {
        let request = crate::harness::request("POST", &format!("{WIDGETS}?dryRun=All&fieldValidation={mode}"));
        server.send(request.body(text.into()).unwrap()).await
    };
    let message = send("Strict").await.fails(400, "BadRequest")["message"].to_string();
    assert!(message.contains("strict decoding error"), "{message}");
    assert!(message.contains("spec.colour") && message.contains("duplicate field"), "{message}");
    let warned = send("Warn").await;
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.starts_with("299 - \"")), "{warnings:?}");
    assert!(warned.is(201)["spec"]["colour"].is_null());
    let ignored = send("Ignore").await;
    assert!(ignored.headers.get("warning").is_none());
    ignored.is(201);
    server.get(&format!("{WIDGETS}/a")).await.is(404);
}

#[tokio::test]
async fn yaml_bodies_are_read() {
    let server = Server::start();
    let yaml = "apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: a}\nspec:\n  color: red\n";
    let request = crate::harness::request("POST", WIDGETS).header("content-type", "application/yaml");
    let created = server.send(request.body(yaml.into()).unwrap()).await.is(201);
    assert_eq!(created["spec"]["color"], "red");
}

#[tokio::test]
async fn secrets_are_encoded_and_namespaces_are_labelled() {
    let server = Server::start();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}});
    let created = server.post("/api/v1/namespaces/default/secrets", &secret).await.is(201);
    assert_eq!(created["data"]["k"], "dg==");
    assert!(created["stringData"].is_null());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let created = server.post("/api/v1/namespaces", &namespace).await.is(201);
    assert_eq!(created["status"]["phase"], "Active");
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
}

#[tokio::test]
async fn an_event_is_read_in_both_groups() {
    let server = Server::start();
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"generateName": "e-"}, "type": "Normal",
        "eventTime": jiff::Timestamp::now().to_string(), "reason": "Moved", "action": "Move", "note": "moved to b",
        "reportingController": "it", "reportingInstance": "it-0", "regarding": {"kind": "Widget", "name": "a"},
    });
    let created = server.post("/apis/events.k8s.io/v1/namespaces/default/events", &event).await.is(201);
    let name = created["metadata"]["name"].as_str().unwrap();
    let core = server.get(&format!("/api/v1/namespaces/default/events/{name}")).await.is(200);
    assert_eq!(core["involvedObject"]["name"], "a");
    assert_eq!(core["message"], "moved to b");
    let selector = "fieldSelector=involvedObject.name%3Da%2CinvolvedObject.kind%3DWidget";
    let found = server.get(&format!("/api/v1/namespaces/default/events?{selector}")).await.is(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let path = format!("/apis/events.k8s.io/v1/namespaces/default/events/{name}");
    let series = json!({"series": {"count": 2, "lastObservedTime": jiff::Timestamp::now().to_string()}});
    let patched = server.patch(&path, STRATEGIC, &series).await.is(200);
    assert_eq!(patched["regarding"]["name"], "a");
    assert_eq!(patched["series"]["count"], 2);
}

#[tokio::test]
async fn scale_reads_and_writes_the_replicas() {
    let server = Server::start();
    server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    server
        .patch(&format!("{path}/status"), MERGE, &json!({"status": {"replicas": 2, "selector": "app=a"}}))
        .await
        .is(200);
    let scale = server.get(&format!("{path}/scale")).await.is(200);
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"]["replicas"], 0);
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = json!(4);
    let scaled = server.put(&format!("{path}/scale"), &wanted).await.is(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    server.put(&format!("{path}/scale"), &wanted).await.fails(409, "Conflict");
    server.patch(&format!("{path}/scale"), MERGE, &json!({"spec": {"replicas": 5}})).await.is(200);
    server.patch(&format!("{path}/scale"), MERGE, &json!({"spec": {"replicas": -1}})).await.fails(422, "Invalid");
    let object = server.get(&path).await.is(200);
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(object["metadata"]["generation"], 3);
}

#[tokio::test]
async fn a_namespace_in_protobuf_is_created() {
    let server = Server::start();
    let mut body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x07\x0a\x05\x0a\x03foo".to_vec();
    let send = async |body: Vec<u8>| {
        let request = crate::harness::request("POST", "/api/v1/namespaces");
        let request = request.header("content-type", "application/vnd.kubernetes.protobuf");
        server.send(request.body(body.into()).unwrap()).await
    };
    assert_eq!(send(body.clone()).await.is(201)["metadata"]["name"], "foo");
    body.truncate(28);
    send(body).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn what_was_made_immutable_stays() {
    let server = Server::start();
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}, "immutable": true});
    server.post(maps, &map).await.is(201);
    server.patch(&format!("{maps}/m"), MERGE, &json!({"data": {"a": "2"}})).await.fails(422, "Invalid");
    server.patch(&format!("{maps}/m"), MERGE, &json!({"immutable": null})).await.fails(422, "Invalid");
    server.patch(&format!("{maps}/m"), MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await.is(200);
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.dev";
    server.patch(crd, MERGE, &json!({"spec": {"scope": "Cluster"}})).await.fails(422, "Invalid");
}

#[tokio::test]
async fn a_dry_run_shows_the_outcome_and_the_version_that_is_there() {
    let server = Server::start();
    let fresh = server.post(&format!("{WIDGETS}?dryRun=All"), &widget("a", "red")).await.is(201);
    assert!(fresh["metadata"]["resourceVersion"].is_null());
    let created = server.widget("a", "red").await;
    let path = format!("{WIDGETS}/a");
    let tried = server.patch(&format!("{path}?dryRun=All"), MERGE, &json!({"spec": {"color": "blue"}})).await.is(200);
    assert_eq!(tried["spec"]["color"], "blue");
    assert_eq!(version(&tried), version(&created));
    assert_eq!(server.get(&path).await.is(200), created);
    server.post(&format!("{WIDGETS}?dryRun=Some"), &widget("b", "red")).await.fails(400, "BadRequest");
}
