//! Watches: from any version, through selectors, with bookmarks, and past what is remembered.

use serde_json::{Value, json};

use crate::harness::{MERGE, Server, WIDGETS, named, version};

#[tokio::test]
async fn a_watch_sees_every_change_after_its_version() {
    let server = Server::start();
    let a = server.widget("a", "red").await;
    let mut watch = server.watch(&format!("{WIDGETS}?watch=1&resourceVersion={}", version(&a))).await;
    server.widget("b", "blue").await;
    server.patch(&format!("{WIDGETS}/a"), MERGE, &json!({"spec": {"color": "green"}})).await.is(200);
    server.delete(&format!("{WIDGETS}/b"), &Value::Null).await.is(200);
    assert_eq!(watch.named().await, named("ADDED", "b"));
    assert_eq!(watch.named().await, named("MODIFIED", "a"));
    let (r#type, b) = watch.next().await.unwrap();
    assert_eq!(r#type, "DELETED");
    assert_eq!(version(&b), version(&a) + 3);
}

#[tokio::test]
async fn a_watch_from_any_version_begins_with_what_is_there() {
    let server = Server::start();
    server.widget("a", "red").await;
    server.widget("b", "blue").await;
    for query in ["watch=true", "watch=true&resourceVersion=0"] {
        let mut watch = server.watch(&format!("{WIDGETS}?{query}")).await;
        assert_eq!(watch.named().await, named("ADDED", "a"));
        assert_eq!(watch.named().await, named("ADDED", "b"));
    }
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = Server::start();
    server.widget("a", "red").await;
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true";
    let path = format!("{WIDGETS}?{query}&resourceVersionMatch=NotOlderThan&resourceVersion=");
    let mut watch = server.watch(&path).await;
    assert_eq!(watch.named().await, named("ADDED", "a"));
    let (r#type, bookmark) = watch.next().await.unwrap();
    assert_eq!(r#type, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["kind"], "Widget");
    let b = server.widget("b", "red").await;
    assert!(version(&b) > version(&bookmark));
    assert_eq!(watch.named().await, named("ADDED", "b"));
    server.get(&format!("{WIDGETS}?watch=true&sendInitialEvents=true")).await.fails(422, "Invalid");
}

#[tokio::test]
async fn entering_and_leaving_a_selection_is_adding_and_deleting() {
    let server = Server::start();
    let a = server.widget("a", "red").await;
    let from = format!("watch=true&resourceVersion={}", version(&a));
    let mut by_label = server.watch(&format!("{WIDGETS}?{from}&labelSelector=color%3Dblue")).await;
    let mut by_field = server.watch(&format!("{WIDGETS}?{from}&fieldSelector=spec.color%3Dblue")).await;
    let path = format!("{WIDGETS}/a");
    for (color, size) in [("blue", 1), ("blue", 2), ("red", 3)] {
        let patch = json!({"metadata": {"labels": {"color": color}}, "spec": {"color": color, "size": size}});
        server.patch(&path, MERGE, &patch).await.is(200);
    }
    for watch in [&mut by_label, &mut by_field] {
        assert_eq!(watch.named().await, named("ADDED", "a"));
        assert_eq!(watch.named().await, named("MODIFIED", "a"));
        let (r#type, object) = watch.next().await.unwrap();
        assert_eq!((r#type.as_str(), version(&object)), ("DELETED", version(&a) + 3));
        assert_eq!(object["spec"]["size"], 2, "as it last was when selected");
    }
}

#[tokio::test]
async fn a_version_of_the_future_is_an_error_in_the_stream() {
    let server = Server::start();
    let from = version(&server.widget("a", "red").await) + 100;
    let mut watch = server.watch(&format!("{WIDGETS}?watch=true&resourceVersion={from}")).await;
    let (r#type, status) = watch.next().await.unwrap();
    assert_eq!(r#type, "ERROR");
    assert_eq!(status["code"], 410);
    assert_eq!(status["reason"], "Expired");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_after_its_time_with_a_bookmark() {
    let server = Server::start();
    server.widget("a", "red").await;
    let query = "watch=true&timeoutSeconds=1&allowWatchBookmarks=true";
    let now = server.get(WIDGETS).await.is(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut watch = server.watch(&format!("{WIDGETS}?{query}&resourceVersion={now}")).await;
    let (r#type, bookmark) = watch.next().await.unwrap();
    assert_eq!(r#type, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["resourceVersion"], now.as_str());
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_stops_no_writer_and_is_told_to_list_again() {
    let server = Server::start();
    let a = server.widget("a", "red").await;
    let mut slow = server.watch(&format!("{WIDGETS}?watch=true&resourceVersion={}", version(&a))).await;
    let path = format!("{WIDGETS}/a");
    // More bytes than the history remembers: each change is near the bound of one object.
    let long = "x".repeat(900 << 10);
    for size in 0..80 {
        let patch = json!({"spec": {"color": long, "size": size}});
        server.patch(&path, MERGE, &patch).await.is(200);
    }
    let (r#type, status) = slow.next().await.unwrap();
    assert_eq!((r#type.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn rows_are_watched_as_tables() {
    let server = Server::start();
    server.widget("a", "red").await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut watch = server.watch_as(&format!("{WIDGETS}?watch=true"), accept).await;
    let (r#type, table) = watch.next().await.unwrap();
    assert_eq!(r#type, "ADDED");
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red"]));
}
