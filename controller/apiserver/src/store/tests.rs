//! What the store promises: order, durability, bounds, and old revisions.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn key(name: &str) -> Key {
    Key::new("widgets.example.dev", "default", name)
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.objects.iter().map(|(key, _)| key.name.clone()).collect()
}

async fn put(store: &Store, name: &'static str, size: u32) -> Result<u64, StoreError> {
    let change = move |tx: &mut Transaction| tx.put(key(name), json!({"metadata": {"name": name}, "size": size}));
    let object = store.writer().transact(change).await?;
    Ok(object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn what_was_acknowledged_is_in_a_copy_of_the_file_taken_while_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.redb"), Limits::default()).unwrap();
    put(&store, "a", 1).await.unwrap();
    let revision = put(&store, "b", 2).await.unwrap();
    // As SIGKILL would leave it: nothing was closed.
    std::fs::copy(dir.path().join("a.redb"), dir.path().join("b.redb")).unwrap();
    let again = Store::open(&dir.path().join("b.redb"), Limits::default()).unwrap();
    assert_eq!(again.reader().revision(), revision);
    assert_eq!(names(&again.reader().list("widgets.example.dev", None)), ["a", "b"]);
    assert!(put(&again, "c", 3).await.unwrap() > revision);
}

#[tokio::test]
async fn a_failed_or_discarded_job_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.redb"), Limits::default()).unwrap();
    let before = store.reader().revision();
    let failed: Result<(), StoreError> = store
        .writer()
        .transact(|tx| {
            tx.put(key("a"), json!({"metadata": {}}))?;
            Err(StoreError::Closed)
        })
        .await;
    assert_eq!(failed, Err(StoreError::Closed));
    let panicked: Result<(), StoreError> = store.writer().transact(|_| panic!("on purpose")).await;
    assert!(matches!(panicked, Err(StoreError::Failed { detail }) if detail == "on purpose"));
    let kept: Result<(), StoreError> = store
        .writer()
        .transact(|tx| {
            tx.put(key("a"), json!({"metadata": {}}))?;
            tx.discard();
            Ok(())
        })
        .await;
    assert_eq!(kept, Ok(()));
    assert_eq!(store.reader().revision(), before);
    assert!(store.reader().get(&key("a")).is_none());
}

#[tokio::test]
async fn an_old_revision_is_listed_as_it_was_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { history: 3, ..Limits::default() };
    let store = Store::open(&dir.path().join("a.redb"), limits).unwrap();
    put(&store, "a", 1).await.unwrap();
    let old = put(&store, "b", 1).await.unwrap();
    put(&store, "b", 2).await.unwrap();
    let gone = store.writer().transact(|tx| tx.remove(&key("a"))).await.unwrap();
    assert_eq!(gone.unwrap()["metadata"]["resourceVersion"], (old + 2).to_string());
    let then = store.reader().list_at("widgets.example.dev", Some("default"), old).unwrap();
    assert_eq!(names(&then), ["a", "b"]);
    assert_eq!(then.objects[1].1["size"], 1);
    assert_eq!(store.reader().after(old, 9).unwrap().len(), 2);
    for _ in 0..4 {
        put(&store, "c", 1).await.unwrap();
    }
    assert_eq!(store.reader().after(old, 9).unwrap_err().revision, old);
    assert!(store.reader().list_at("widgets.example.dev", None, old).is_err());
}

#[tokio::test]
async fn bounds_are_errors_with_their_figures() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { objects: 1, object_bytes: 100, ..Limits::default() };
    let store = Store::open(&dir.path().join("a.redb"), limits).unwrap();
    put(&store, "a", 1).await.unwrap();
    assert_eq!(put(&store, "b", 1).await, Err(StoreError::Full { limit: 1 }));
    let tight = Limits { total_bytes: 120, ..Limits::default() };
    let small = Store::open(&dir.path().join("b.redb"), tight).unwrap();
    put(&small, "a", 1).await.unwrap();
    put(&small, "b", 1).await.unwrap();
    assert_eq!(put(&small, "c", 1).await, Err(StoreError::FullBytes { limit: 120 }));
    small.writer().transact(|tx| tx.remove(&key("a"))).await.unwrap();
    put(&small, "c", 1).await.unwrap();
    let long = "x".repeat(200);
    let large = store.writer().transact(move |tx| tx.put(key("a"), json!({"metadata": {}, "text": long}))).await;
    assert!(matches!(large, Err(StoreError::TooLarge { limit: 100, .. })));
}

#[tokio::test]
async fn a_locked_a_damaged_and_a_misplaced_file_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.redb");
    let store = Store::open(&path, Limits::default()).unwrap();
    put(&store, "a", 1).await.unwrap();
    let error = Store::open(&path, Limits::default()).err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(store);
    assert!(Store::open(&path, Limits::default()).is_ok());

    let whole = std::fs::read(&path).unwrap();
    for (damage, file) in [("text", b"not a store at all".to_vec()), ("cut", whole[..whole.len() / 3].to_vec())] {
        std::fs::write(&path, file).unwrap();
        let error = Store::open(&path, Limits::default()).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{damage}: {error}");
    }
    let error = Store::open(&dir.path().join("no/such/a.redb"), Limits::default()).err().unwrap();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
}
