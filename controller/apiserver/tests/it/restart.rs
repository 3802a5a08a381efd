//! What a server finds when it is opened again.

use polyphony_apiserver::BACKUP_PATH;
use polyphony_apiserver::store::backup::Backup;
use serde_json::json;

use crate::harness::{MERGE, Server, WIDGETS, open, version, widget};

#[tokio::test]
async fn a_copy_of_the_store_of_a_running_server_holds_all_that_was_acknowledged() {
    let server = Server::start();
    let a = server.widget("a", "red").await;
    let patched = server.patch(&format!("{WIDGETS}/a"), MERGE, &json!({"spec": {"color": "blue"}})).await.is(200);
    // The file as SIGKILL would leave it: nothing was closed.
    let directory = server.directory.path();
    std::fs::copy(directory.join("store.redb"), directory.join("copy.redb")).unwrap();
    let copy =
        Server { router: open(directory, "copy.redb").router(), api: None, directory: tempfile::tempdir().unwrap() };
    assert_eq!(copy.get(&format!("{WIDGETS}/a")).await.is(200), patched);
    let b = copy.widget("b", "red").await;
    assert!(version(&b) > version(&patched));
    // A watch that lost its server goes on where it was, or is told to list again.
    let mut watch = copy.watch(&format!("{WIDGETS}?watch=true&resourceVersion={}", version(&a))).await;
    let (r#type, status) = watch.next().await.unwrap();
    assert_eq!((r#type.as_str(), &status["code"]), ("ERROR", &json!(410)));
    let exact = format!("resourceVersion={}&resourceVersionMatch=Exact", version(&a));
    copy.get(&format!("{WIDGETS}?{exact}")).await.fails(410, "Expired");
}

#[tokio::test]
async fn a_backup_of_a_running_server_becomes_another_one() {
    let server = Server::start();
    let a = server.widget("a", "red").await;
    let b = server.widget("b", "blue").await;
    let backup: Backup = serde_json::from_value(server.get(BACKUP_PATH).await.is(200)).unwrap();
    server.widget("c", "red").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("store.redb");
    backup.clone().restore(&path).unwrap();
    let restored = Server {
        router: open(elsewhere.path(), "store.redb").router(),
        api: None,
        directory: tempfile::tempdir().unwrap(),
    };
    // The same objects, of the same identity, and a revision that goes on.
    assert_eq!(restored.get(&format!("{WIDGETS}/a")).await.is(200), a);
    restored.get(&format!("{WIDGETS}/c")).await.fails(404, "NotFound");
    assert!(version(&restored.widget("d", "red").await) > version(&b));
    let refused = backup.restore(&path).unwrap_err().to_string();
    assert!(refused.contains("a store already"), "{refused}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_second_start_changes_nothing() {
    let mut server = Server::start();
    let a = server.widget("a", "red").await;
    drop(server.api.take());
    server.router = axum::Router::new();
    let api = open(server.directory.path(), "store.redb");
    server.router = api.router();
    let list = server.get(WIDGETS).await.is(200);
    assert_eq!(list["metadata"]["resourceVersion"], a["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn garbage_of_an_earlier_life_is_collected() {
    let server = Server::start();
    let owner = server.widget("owner", "red").await;
    let mut child = widget("child", "red");
    child["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "example.dev/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"],
    }]);
    child["metadata"]["finalizers"] = json!(["example.dev/hold"]);
    server.post(WIDGETS, &child).await.is(201);
    let directory = server.directory.path();
    // A foreground deletion that the copy has to finish.
    server.delete(&format!("{WIDGETS}/owner"), &json!({"propagationPolicy": "Foreground"})).await.is(200);
    std::fs::copy(directory.join("store.redb"), directory.join("copy.redb")).unwrap();
    let copy =
        Server { router: open(directory, "copy.redb").router(), api: None, directory: tempfile::tempdir().unwrap() };
    copy.until(&format!("{WIDGETS}/owner"), 404).await;
}
