//! Lists: selectors, pages, old versions, tables.

use serde_json::{Value, json};

use crate::harness::{MERGE, Server, WIDGETS, version};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn three() -> Server {
    let server = Server::start();
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        server.widget(name, color).await;
    }
    server
}

#[tokio::test]
async fn objects_are_selected_by_label_and_field() {
    let server = three().await;
    let list = server.get(WIDGETS).await.is(200);
    assert_eq!(list["kind"], "WidgetList");
    assert_eq!(names(&list), ["a", "b", "c"]);
    for (query, expected) in [
        ("labelSelector=color%3Dred", vec!["a", "c"]),
        ("labelSelector=color%20in%20(blue)", vec!["b"]),
        ("fieldSelector=spec.color%3Dred", vec!["a", "c"]),
        ("fieldSelector=spec.color!%3Dred", vec!["b"]),
        ("fieldSelector=metadata.name%3Db,metadata.namespace%3Ddefault", vec!["b"]),
        ("fieldSelector=metadata.namespace%3Dother", vec![]),
    ] {
        assert_eq!(names(&server.get(&format!("{WIDGETS}?{query}")).await.is(200)), expected, "{query}");
    }
    assert_eq!(names(&server.get("/apis/example.dev/v1/widgets").await.is(200)), ["a", "b", "c"]);
    let status = server.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D3")).await.fails(400, "BadRequest");
    assert!(status["message"].as_str().unwrap().contains("field label not supported: spec.size"));
}

#[tokio::test]
async fn what_is_no_selector_is_refused_and_selects_nothing_to_delete() {
    let server = three().await;
    let long = format!("labelSelector=a%3D{}", "x".repeat(64));
    for (query, expected) in [
        ("labelSelector=,", "found ',', expected: !, identifier, or 'end of string'"),
        ("labelSelector=!!!!", "unable to parse requirement: found '!', expected: identifier"),
        ("labelSelector=a%3Db%3Dc", "found '=', expected: ',' or 'end of string'"),
        ("labelSelector=a%20b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (long.as_str(), "must be no more than 63 bytes"),
        ("fieldSelector=!!!!", "invalid selector: '!!!!'; can't understand '!!!!'"),
        ("fieldSelector=metadata.name%3Da%3Db", "invalid field selector: unescaped character in value: 61"),
        ("fieldSelector=metadata.name%20%3D%20a", "field label not supported: metadata.name "),
    ] {
        let path = format!("{WIDGETS}?{query}");
        for answer in [server.get(&path).await, server.delete(&path, &Value::Null).await] {
            let status = answer.fails(400, "BadRequest");
            assert!(status["message"].as_str().unwrap().contains(expected), "{query}: {status}");
        }
        server.get(&format!("{WIDGETS}?watch=true&{query}")).await.fails(400, "BadRequest");
    }
    assert_eq!(names(&server.get(WIDGETS).await.is(200)), ["a", "b", "c"]);
}

#[tokio::test]
async fn pages_show_the_list_as_it_was_at_the_first() {
    let server = three().await;
    let first = server.get(&format!("{WIDGETS}?limit=2")).await.is(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    server.delete(&format!("{WIDGETS}/c"), &Value::Null).await.is(200);
    server.widget("d", "red").await;
    let second = server.get(&format!("{WIDGETS}?limit=2&continue={token}")).await.is(200);
    assert_eq!(names(&second), ["c"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"]["continue"].is_null());
    server.get(&format!("{WIDGETS}?continue=nonsense")).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn a_version_can_be_asked_for_exactly_or_at_least() {
    let server = three().await;
    let then = server.get(WIDGETS).await.is(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let patched = server.patch(&format!("{WIDGETS}/a"), MERGE, &json!({"spec": {"color": "green"}})).await.is(200);
    let exact = format!("{WIDGETS}?resourceVersion={then}&resourceVersionMatch=Exact");
    let list = server.get(&exact).await.is(200);
    assert_eq!(list["items"][0]["spec"]["color"], "red");
    assert_eq!(list["metadata"]["resourceVersion"], then);
    let newest = server.get(&format!("{WIDGETS}?resourceVersion=0")).await.is(200);
    assert_eq!(newest["items"][0]["spec"]["color"], "green");
    let future = version(&patched) + 10;
    server.get(&format!("{WIDGETS}?resourceVersion={future}")).await.fails(504, "Timeout");
    server.get(&format!("{WIDGETS}?resourceVersion=x")).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn tables_and_metadata_alone_are_given_to_who_accepts_them() {
    let server = three().await;
    let table = server.get_as(WIDGETS, TABLE).await.is(200);
    assert_eq!(table["kind"], "Table");
    assert!(table["metadata"]["resourceVersion"].is_string());
    let columns: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Color"]);
    assert_eq!(table["rows"][1]["cells"], json!(["b", "blue"]));
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let whole = server.get_as(&format!("{WIDGETS}?includeObject=Object"), TABLE).await.is(200);
    assert_eq!(whole["rows"][1]["object"]["spec"]["color"], "blue");
    let one = server.get_as(&format!("{WIDGETS}/a"), TABLE).await.is(200);
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = server.get_as(WIDGETS, partial).await.is(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0]["spec"].is_null());
    server.get_as(WIDGETS, "application/vnd.kubernetes.protobuf").await.fails(406, "NotAcceptable");
}

#[tokio::test]
async fn the_table_of_events_says_what_they_are_about() {
    let server = Server::start();
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Warning", "reason": "Hot",
        "message": "too hot", "involvedObject": {"kind": "Widget", "name": "a"}, "lastTimestamp": jiff::Timestamp::now().to_string(),
    });
    server.post("/api/v1/namespaces/default/events", &event).await.is(201);
    let table = server.get_as("/api/v1/namespaces/default/events", TABLE).await.is(200);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    for cell in ["Warning", "Hot", "widget/a", "too hot"] {
        assert!(cells.contains(&json!(cell)), "{cell}: {cells:?}");
    }
}
