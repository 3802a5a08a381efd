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
