//! Tests of the model store, on the tiny model files.
#![allow(clippy::unwrap_used)]

use super::*;

#[path = "tests/fetching.rs"]
mod fetching;

const TINY: &[u8] = b"not a model";

fn store() -> (tempfile::TempDir, Arc<ModelStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(ModelStore::new(folder.path().join("models")).unwrap());
    (folder, store)
}

fn wanted(source: &str) -> Wanted {
    Wanted { uid: "u".into(), source: source.into(), sha256: None, commit: None, token: None }
}

async fn outcome(store: &Arc<ModelStore>, path: &Path) -> Progress {
    store.resolve(wanted(&format!("file://{}", path.display())));
    let done = async {
        loop {
            match store.progress("u") {
                Some(Progress::Verifying) | None => store.changed.notified().await,
                Some(progress) => return progress,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), done).await.unwrap()
}

/// Tends the store as the reconcile loop does, until something is so.
async fn until(store: &Arc<ModelStore>, is_so: impl Fn(&ModelStore) -> bool) {
    let uids: BTreeSet<String> = ["u", "v"].map(str::to_owned).into();
    let mut now = Instant::now();
    let looks = async {
        while !is_so(store) {
            // Time goes by faster than the disk answers.
            now += LOOK_EVERY;
            store.tend(&uids, now);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looks).await.unwrap();
}

#[tokio::test]
async fn a_source_that_hangs_holds_back_no_other_and_is_called_off_when_its_model_is_deleted() {
    let (folder, store) = store();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, model_file::tiny()).unwrap();
    // Readings that hang, as of a mount that answers no more: more of them than are read side by side.
    let (release, hang) = std::sync::mpsc::channel::<()>();
    let hang = Arc::new(Mutex::new(hang));
    let mut told = Vec::new();
    for idx in 0..6 {
        let (hang, called_off) = (hang.clone(), std::sync::mpsc::channel());
        let mut state = store.lock();
        let id = state.readings.add(Box::new(move |pace| {
            let _ = hang.lock().unwrap().recv();
            called_off.0.send(!pace.note(1)).unwrap();
        }));
        told.push(called_off.1);
        state.entries.insert(format!("hangs-{idx}"), Entry::Reading { id, path: Some("/mnt/m.gguf".into()) });
    }
    store.resolve(wanted(&format!("file://{}", path.display())));
    let mut uids: BTreeSet<String> = (0..6).map(|idx| format!("hangs-{idx}")).collect();
    uids.insert("u".into());
    let now = Instant::now();
    for seconds in [0, 10, 20] {
        store.tend(&uids, now + Duration::from_secs(seconds));
    }
    assert_eq!(store.progress("hangs-0"), Some(Progress::Stalled { path: "/mnt/m.gguf".into() }));
    until(&store, |store| matches!(store.progress("u"), Some(Progress::Resolved(_)))).await;
    assert_eq!(store.progress("hangs-0"), None, "its model is no more");
    drop(release);
    for called_off in told {
        assert!(called_off.recv_timeout(Duration::from_secs(30)).unwrap());
    }
}

#[tokio::test]
async fn a_pipe_is_no_file() {
    let (folder, store) = store();
    let pipe = folder.path().join("m.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let Progress::Refused(refusal) = outcome(&store, &pipe).await else { panic!("resolved") };
    assert_eq!(refusal.reason, Reason::NotAFile);
    assert!(refusal.message.contains("it is a pipe"), "{}", refusal.message);
}

#[tokio::test]
async fn a_missing_file_and_a_damaged_one_have_different_reasons() {
    let (folder, store) = store();
    let path = folder.path().join("m.gguf");
    let Progress::Refused(missing) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(missing.reason, Reason::FileNotFound);
    assert!(missing.message.contains("m.gguf"), "{}", missing.message);

    std::fs::write(&path, TINY).unwrap();
    until(&store, |store| store.progress("u").is_none()).await;
    let Progress::Refused(damaged) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(damaged.reason, Reason::InvalidFile);
}

#[path = "../../tests/it/model_file.rs"]
mod model_file;

#[tokio::test]
async fn a_wrong_digest_is_refused_with_both_digests() {
    let (folder, store) = store();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, model_file::tiny()).unwrap();
    let Progress::Resolved(resolved) = outcome(&store, &path).await else { panic!("refused") };
    assert_eq!(resolved.digest, resolved.manifest.digest());
    let actual = resolved.manifest.file_sha256();
    assert_eq!(store.by_digest(&resolved.digest), Some(resolved));

    let expected = "ab".repeat(32);
    let refused = store.verify(&path, None, Some(&expected), &Pace::new(0)).unwrap_err();
    assert_eq!(refused.reason, Reason::DigestMismatch);
    assert!(refused.message.contains(&actual) && refused.message.contains(&expected), "{}", refused.message);
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let (folder, store) = store();
    let path = folder.path().join("m.gguf");
    let whole = model_file::tiny();
    std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let Progress::Refused(refusal) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(refusal.reason, Reason::InvalidFile);
    assert!(refusal.message.contains("truncated"), "{}", refusal.message);
}

#[tokio::test]
async fn a_verified_file_is_not_read_again_after_a_restart() {
    let (folder, store) = store();
    let path = folder.path().join("m.gguf");
    let whole = model_file::tiny();
    std::fs::write(&path, &whole).unwrap();
    let before = outcome(&store, &path).await;
    // Zeros of the same length and time: had it been read, it would be no model.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, vec![0; whole.len()]).unwrap();
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
    let store = Arc::new(ModelStore::new(folder.path().join("models")).unwrap());
    assert_eq!(outcome(&store, &path).await, before);
}

#[tokio::test]
async fn a_model_with_an_encoder_is_served_as_any_other() {
    let (_folder, store) = store();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/t5.gguf");
    let Progress::Resolved(resolved) = outcome(&store, &path).await else { panic!("refused") };
    let encoder = resolved.manifest.hyperparameters.encoder.unwrap();
    assert_eq!((encoder.n_layers, layer_bytes(&resolved.manifest).len()), (4, 8));
}

#[tokio::test]
async fn a_part_that_comes_later_makes_the_model_whole() {
    let (folder, store) = store();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny");
    let names = ["split2-00001-of-00002.gguf", "split2-00002-of-00002.gguf"];
    let bring = |name: &str| std::fs::copy(golden.join(name), folder.path().join(name)).map(|_| ()).unwrap();
    bring(names[1]);
    let path = folder.path().join("split2-*.gguf");
    let Progress::Refused(missing) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(missing.reason, Reason::FileNotFound);
    assert!(missing.message.contains("split2-00001-of-00002.gguf: part 1 of 2 is missing"), "{}", missing.message);
    bring(names[0]);
    until(&store, |store| store.progress("u").is_none()).await;
    let Progress::Resolved(resolved) = outcome(&store, &path).await else { panic!("refused") };
    assert_eq!(resolved.manifest.files.len(), 2);
    // Any of the parts being another one is a change.
    std::fs::write(folder.path().join(names[1]), TINY).unwrap();
    until(&store, |store| store.progress("u").is_none()).await;
    let Progress::Refused(damaged) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(damaged.reason, Reason::InvalidFile);
}
