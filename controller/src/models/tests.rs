//! Tests of the model store, on the tiny model files.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;

const TINY: &[u8] = b"not a model";

fn store() -> (tempfile::TempDir, Arc<ModelStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(ModelStore::new(folder.path().join("models")).unwrap());
    (folder, store)
}

async fn outcome(store: &Arc<ModelStore>, path: &Path) -> Progress {
    store.resolve(Wanted { uid: "u".into(), source: format!("file://{}", path.display()), sha256: None });
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

#[tokio::test]
async fn a_missing_file_and_a_damaged_one_have_different_reasons() {
    let (folder, store) = store();
    let path = folder.path().join("m.gguf");
    let Progress::Refused(missing) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(missing.reason, "FileNotFound");
    assert!(missing.message.contains("m.gguf"), "{}", missing.message);

    std::fs::write(&path, TINY).unwrap();
    assert_eq!(store.progress("u"), None, "a file that appeared is looked at again");
    let Progress::Refused(damaged) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(damaged.reason, "InvalidFile");
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
    let actual = resolved.manifest.file_sha256.clone();
    assert_eq!(store.by_digest(&resolved.digest), Some(resolved));

    let expected = "ab".repeat(32);
    let refused = store.verify(&path, None, Some(&expected)).unwrap_err();
    assert_eq!(refused.reason, "DigestMismatch");
    assert!(refused.message.contains(&actual) && refused.message.contains(&expected), "{}", refused.message);
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let (folder, store) = store();
    let path = folder.path().join("m.gguf");
    let whole = model_file::tiny();
    std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let Progress::Refused(refusal) = outcome(&store, &path).await else { panic!("resolved") };
    assert_eq!(refusal.reason, "InvalidFile");
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
