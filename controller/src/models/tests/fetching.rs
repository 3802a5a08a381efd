//! Tests of fetching, from a hub of ours on loopback that fails as it is told to.

use std::path::Path;

use super::super::fetch::parse_endpoint;
use super::*;

#[path = "../../../tests/it/model_hub.rs"]
mod model_hub;
#[path = "web_server.rs"]
mod web_server;

use model_hub::{ModelHub, Repository};

/// A file that is large enough to be broken off, and is no model: fetching does not look into it.
fn weights(n_bytes: usize) -> Vec<u8> {
    (0..n_bytes).map(|idx| (idx * 31 % 251) as u8).collect()
}

struct House {
    folder: tempfile::TempDir,
    hub: ModelHub,
    settings: FetchSettings,
}

impl House {
    fn new() -> Self {
        let (folder, hub) = (tempfile::tempdir().unwrap(), ModelHub::start());
        let settings = FetchSettings {
            endpoint: parse_endpoint(&hub.url).unwrap(),
            hosts: Vec::new(),
            private_addresses: true,
            cache: Some(folder.path().join("cache")),
            first_pause: Duration::from_millis(1),
            roots: Some(Vec::new()),
        };
        Self { folder, hub, settings }
    }

    fn store(&self) -> Arc<ModelStore> {
        let manifests = self.folder.path().join("manifests");
        Arc::new(ModelStore::with_settings(manifests, self.settings.clone()).unwrap())
    }

    fn cached(&self, name: &str) -> PathBuf {
        self.folder.path().join("cache/downloads").join(name)
    }

    async fn outcome(&self, source: &str) -> Progress {
        follow(&self.store(), wanted(source), None).await.0
    }

    async fn refusal(&self, source: &str) -> Refusal {
        match self.outcome(source).await {
            Progress::Refused(refusal) => refusal,
            other => panic!("{source}: {other:?}"),
        }
    }

    /// Ranges that the store was asked for.
    fn ranges(&self) -> Vec<Option<String>> {
        self.hub.asked().into_iter().filter(|asked| asked.of == "store").map(|asked| asked.range).collect()
    }
}

/// Goes on as the reconcile loop does, a commit kept between, until there is an outcome; gives it and the commit.
async fn follow(store: &Arc<ModelStore>, mut wanted: Wanted, token: Option<&str>) -> (Progress, Option<String>) {
    store.resolve_with_token(wanted.clone(), token.map(Secret::new));
    let done = async {
        loop {
            match store.progress("u") {
                Some(Progress::Named { commit }) => {
                    wanted.commit = Some(commit);
                    store.resolve_with_token(wanted.clone(), token.map(Secret::new));
                }
                Some(Progress::Verifying | Progress::Fetching { .. } | Progress::Stalled { .. }) | None => {
                    store.changed.notified().await
                }
                Some(progress) => return (progress, wanted.commit.clone()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), done).await.unwrap()
}

fn tiny() -> Vec<u8> {
    model_file::tiny()
}

#[tokio::test]
async fn a_model_of_a_hub_is_fetched_at_a_commit_and_verified() {
    let house = House::new();
    let files =
        [("README.md", b"read me".to_vec()), ("m-Q4_0.gguf", tiny()), ("m-Q8_0.gguf", weights(9)), ("z", vec![1])];
    house.hub.put("o/n", Repository::new('a', &files));
    let (progress, commit) = follow(&house.store(), wanted("hf://o/n:Q4_0"), None).await;
    let Progress::Resolved(resolved) = progress else { panic!("{progress:?}") };
    assert_eq!(resolved.path, house.cached("o--n@aaaaaaaaaaaa").join("m-Q4_0.gguf"));
    assert_eq!(std::fs::read(&resolved.path).unwrap(), tiny());
    assert_eq!(commit, Some("a".repeat(40)));
    // Nothing else of it came, and nothing half.
    let mut names: Vec<_> =
        std::fs::read_dir(house.cached("o--n@aaaaaaaaaaaa")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".listing.json", ".lock", "m-Q4_0.gguf"]);

    // The branch moves on, and this Model does not; the hub is not even asked.
    house.hub.put("o/n", Repository::new('b', &[("m-Q4_0.gguf", weights(5))]));
    let n_asked = house.hub.asked().len();
    let again = Wanted { commit, ..wanted("hf://o/n:Q4_0") };
    let (progress, _) = follow(&house.store(), again, None).await;
    assert!(matches!(&progress, Progress::Resolved(again) if again.digest == resolved.digest), "{progress:?}");
    assert_eq!(house.hub.asked().len(), n_asked);
    // By its name in the cache it is the same model.
    let progress = house.outcome("cache://o--n@aaaaaaaaaaaa/m-Q4_0.gguf").await;
    assert!(matches!(&progress, Progress::Resolved(again) if again.digest == resolved.digest), "{progress:?}");
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let house = House::new();
    house.hub.put("o/n", Repository::new('a', &[("m.gguf", tiny())]));
    house.hub.fail(|faults| faults.breaks = [5000, 0, 3000].into());
    let progress = house.outcome("hf://o/n").await;
    assert!(matches!(progress, Progress::Resolved(_)), "{progress:?}");
    let ranges = house.ranges();
    assert_eq!(ranges[0], None);
    // Each goes on from what the one before left, of which a part may have been on its way.
    let from: Vec<usize> = ranges[1..]
        .iter()
        .map(|range| {
            range.as_ref().map_or(0, |it| it.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap())
        })
        .collect();
    assert!(from.is_sorted() && *from.last().unwrap() > 0 && *from.last().unwrap() <= 8000, "{from:?}");
}

#[tokio::test]
async fn what_an_earlier_life_left_is_gone_on_with_and_what_is_damaged_comes_anew() {
    let house = House::new();
    house.hub.put("o/n", Repository::new('a', &[("m.gguf", tiny())]));
    let folder = house.cached("o--n@aaaaaaaaaaaa");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("m.gguf.part"), &tiny()[..6000]).unwrap();
    assert!(matches!(house.outcome("hf://o/n").await, Progress::Resolved(_)));
    assert_eq!(house.ranges(), [Some("bytes=6000-".to_owned())]);

    std::fs::remove_file(folder.join("m.gguf")).unwrap();
    std::fs::write(folder.join("m.gguf.part"), weights(6000)).unwrap();
    assert!(matches!(house.outcome("hf://o/n").await, Progress::Resolved(_)));
    assert_eq!(house.ranges()[1..], [Some("bytes=6000-".to_owned()), None]);

    // A store without ranges sends all of it.
    std::fs::remove_file(folder.join("m.gguf")).unwrap();
    std::fs::write(folder.join("m.gguf.part"), weights(6000)).unwrap();
    house.hub.fail(|faults| faults.no_ranges = true);
    assert!(matches!(house.outcome("hf://o/n").await, Progress::Resolved(_)));
}

#[tokio::test]
async fn other_bytes_than_the_hub_says_are_refused_and_not_kept() {
    let house = House::new();
    house.hub.put("o/n", Repository::new('a', &[("m.gguf", tiny())]));
    house.hub.fail(|faults| faults.is_corrupt = true);
    let refusal = house.refusal("hf://o/n").await;
    assert_eq!(refusal.reason, Reason::DigestMismatch);
    assert!(refusal.message.contains("m.gguf has the SHA-256 "), "{}", refusal.message);
    let folder = house.cached("o--n@aaaaaaaaaaaa");
    assert!(!folder.join("m.gguf").exists() && !folder.join("m.gguf.part").exists());
    // A hub that contradicts itself.
    house.hub.fail(|faults| (faults.is_corrupt, faults.etag) = (false, Some("0".repeat(64))));
    let refusal = house.refusal("hf://o/n").await;
    assert!(
        refusal.reason == Reason::DigestMismatch && refusal.message.contains("contradicts itself"),
        "{}",
        refusal.message
    );
}

#[tokio::test]
async fn small_files_are_held_to_their_git_hash_and_a_folder_is_a_model() {
    let house = House::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny/qwen2_hf");
    let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(golden)
        .unwrap()
        .map(|it| it.unwrap())
        .map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap()))
        .collect();
    let mut repository = Repository::new('c', &[]);
    repository.files = files.into_iter().collect();
    house.hub.put("o/folder", repository.clone());
    let progress = house.outcome("hf://o/folder@refs/pr/1").await;
    let Progress::Resolved(resolved) = progress else { panic!("{progress:?}") };
    assert_eq!(resolved.path, house.cached("o--folder@cccccccccccc"));
    // One that was changed on the disk is not taken for the hub's: it comes anew only where it is not whole.
    let config = resolved.path.join("config.json");
    std::fs::remove_file(&config).unwrap();
    let mut other = repository.files["config.json"].clone();
    other[0] ^= 1;
    std::fs::write(resolved.path.join("config.json.part"), other).unwrap();
    assert!(matches!(house.outcome("hf://o/folder").await, Progress::Resolved(_)));
    assert_eq!(std::fs::read(&config).unwrap(), repository.files["config.json"]);
}

#[tokio::test]
async fn absent_gated_and_ambiguous_are_told_apart() {
    let house = House::new();
    let files = [("a-Q4_0.gguf", tiny()), ("b-Q4_0.gguf", tiny())];
    house.hub.put("o/n", Repository::new('a', &files));
    let of = |is_gated| Repository { token: Some("hf_secret".into()), is_gated, ..Repository::new('a', &files) };
    house.hub.put("o/gated", of(true));
    house.hub.put("o/private", of(false));
    house.hub.put("o/none", Repository::new('a', &[("pytorch_model.bin", vec![1])]));
    for (source, reason, words) in [
        ("hf://o/absent", Reason::RepoNotFound, "no repository o/absent"),
        ("hf://o/private", Reason::RepoNotFound, "spec.tokenSecretRef"),
        ("hf://o/n@v9", Reason::RevisionNotFound, "no revision \"v9\""),
        ("hf://o/n:c.gguf", Reason::EntryNotFound, "no file \"c.gguf\"; there are a-Q4_0.gguf, b-Q4_0.gguf"),
        ("hf://o/n:Q8_0", Reason::EntryNotFound, "no GGUF file of \"Q8_0\"; there are a-Q4_0.gguf, b-Q4_0.gguf"),
        ("hf://o/n:Q4_0", Reason::Ambiguous, "several models of \"Q4_0\""),
        ("hf://o/gated:a-Q4_0.gguf", Reason::GatedRepo, "is gated (Access to model is restricted)"),
        ("hf://o/none", Reason::Unsupported, "no GGUF file"),
        ("hf://o", Reason::InvalidSource, "names no repository"),
    ] {
        let refusal = house.refusal(source).await;
        assert_eq!(refusal.reason, reason, "{source}: {}", refusal.message);
        assert!(refusal.message.contains(words), "{source}: {}", refusal.message);
    }
}

#[tokio::test]
async fn a_token_goes_to_the_hub_and_not_to_its_store() {
    let house = House::new();
    let files = [("m.gguf", tiny())];
    let gated = Repository { token: Some("hf_secret".into()), is_gated: true, ..Repository::new('a', &files) };
    house.hub.put("o/gated", gated);
    let (progress, _) = follow(&house.store(), wanted("hf://o/gated"), Some("hf_secret")).await;
    assert!(matches!(progress, Progress::Resolved(_)), "{progress:?}");
    for asked in house.hub.asked() {
        assert_eq!(asked.has_token, asked.of == "hub", "{asked:?}");
    }
    // A wrong one is told of, and so is none.
    std::fs::remove_dir_all(house.cached("")).unwrap();
    let (progress, _) = follow(&house.store(), wanted("hf://o/gated"), Some("other")).await;
    assert!(matches!(&progress, Progress::Refused(refusal) if refusal.reason == Reason::GatedRepo), "{progress:?}");
}

#[tokio::test]
async fn a_busy_hub_is_asked_again_when_it_says() {
    let house = House::new();
    house.hub.put("o/n", Repository::new('a', &[("m.gguf", tiny())]));
    house.hub.fail(|faults| faults.busy = [0, 0].into());
    assert!(matches!(house.outcome("hf://o/n").await, Progress::Resolved(_)));
    // It says how long, and that is what is told meanwhile.
    house.hub.fail(|faults| faults.busy = [3000].into());
    let store = house.store();
    store.resolve(wanted("hf://o/n"));
    until(&store, |store| {
        matches!(store.progress("u"), Some(Progress::Fetching { step: FetchStep::Waiting { reason: "SourceBusy", pause, ref why, .. }, .. })
            if pause.as_secs() == 3000 && why.contains("429"))
    })
    .await;
    // Who deletes the Model meanwhile waits for nobody.
    store.tend(&BTreeSet::new(), Instant::now());
    assert_eq!(store.progress("u"), None);
}

#[tokio::test]
async fn nobody_is_led_into_this_machine_or_beyond_the_list() {
    let mut house = House::new();
    house.hub.put("o/n", Repository::new('a', &[("m.gguf", tiny())]));
    house.settings.private_addresses = false;
    // The endpoint was named by who runs this, and is asked wherever it is; its store at another port was not.
    let refusal = house.refusal("hf://o/n").await;
    assert_eq!(refusal.reason, Reason::NotAllowed, "{}", refusal.message);
    assert!(refusal.message.contains("not encrypted"), "{}", refusal.message);
    for (leads_to, words) in [
        (
            "https://127.0.0.1:1/x",
            "127.0.0.1 leads into this machine or its network (127.0.0.1), where http://127.0.0.1:",
        ),
        ("https://[::ffff:10.0.0.1]/x", "leads into this machine"),
        ("https://169.254.169.254/latest/meta-data", "leads into this machine"),
        // By a name, whose address only the connection shows.
        ("https://localhost:1/x", "localhost leads into this machine or its network ("),
    ] {
        house.hub.fail(|faults| faults.leads_to = Some(leads_to.to_owned()));
        let refusal = house.refusal("hf://o/n").await;
        assert_eq!(refusal.reason, Reason::NotAllowed, "{leads_to}: {}", refusal.message);
        assert!(refusal.message.contains(words), "{leads_to}: {}", refusal.message);
    }
    let refusal = house.refusal("https://localhost:1/m.gguf").await;
    assert!(refusal.reason == Reason::NotAllowed && refusal.message.contains("localhost"), "{}", refusal.message);
    assert!(house.ranges().is_empty(), "the store was asked");

    house.settings.private_addresses = true;
    house.settings.hosts = vec!["cdn.example".to_owned()];
    house.hub.fail(|faults| faults.leads_to = None);
    let refusal = house.refusal("hf://o/n").await;
    assert!(refusal.message.contains("host 127.0.0.1 is not among those"), "{}", refusal.message);
    house.settings.hosts.push("127.0.0.1".to_owned());
    assert!(matches!(house.outcome("hf://o/n").await, Progress::Resolved(_)));
    // Round and round.
    std::fs::remove_dir_all(house.cached("")).unwrap();
    let round = format!("{}/o/n/resolve/{}/m.gguf", house.hub.url, "a".repeat(40));
    house.hub.fail(|faults| faults.leads_to = Some(round));
    let refusal = house.refusal("hf://o/n").await;
    assert!(refusal.message.contains("leads on and on"), "{}", refusal.message);
}

#[tokio::test]
async fn what_the_disk_has_no_room_for_is_not_begun() {
    let house = House::new();
    let repository = Repository { said_size: Some(1 << 60), ..Repository::new('a', &[("m.gguf", tiny())]) };
    house.hub.put("o/n", repository);
    let refusal = house.refusal("hf://o/n").await;
    assert_eq!(refusal.reason, Reason::InsufficientSpace, "{}", refusal.message);
    assert!(refusal.message.contains(&(1_u64 << 60).to_string()), "{}", refusal.message);
    assert!(house.ranges().is_empty(), "the store was asked");
}

#[tokio::test]
async fn one_source_that_waits_holds_back_no_other_and_what_was_refused_is_asked_again() {
    let house = House::new();
    house.hub.put("o/n", Repository::new('a', &[("m.gguf", tiny())]));
    let store = house.store();
    // Nobody answers there: more of them than are fetched side by side.
    let nobody = |idx: usize| Wanted { uid: format!("nobody-{idx}"), ..wanted("https://127.0.0.1:1/m.gguf") };
    (0..FETCHED_SIDE_BY_SIDE + 1).for_each(|idx| store.resolve(nobody(idx)));
    let mut uids: BTreeSet<String> = (0..FETCHED_SIDE_BY_SIDE + 1).map(|idx| format!("nobody-{idx}")).collect();
    uids.insert("u".into());
    store.resolve(wanted("hf://o/n"));
    let mut now = Instant::now();
    let waits = |progress| matches!(progress, Some(Progress::Fetching { step: FetchStep::Waiting { .. }, .. }));
    // Each is seen at some look: who waits is asked again, which is no waiting.
    let (mut was_named, mut has_waited) = (false, false);
    let fetched = async {
        while !(was_named && has_waited) {
            now += LOOK_EVERY;
            store.tend(&uids, now);
            tokio::task::yield_now().await;
            was_named |= matches!(store.progress("u"), Some(Progress::Named { .. }));
            has_waited |= waits(store.progress("nobody-0"));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), fetched).await.unwrap();

    let refused = house.store();
    let (progress, _) = follow(&refused, wanted("hf://o/later"), None).await;
    assert!(matches!(&progress, Progress::Refused(refusal) if refusal.reason == Reason::RepoNotFound), "{progress:?}");
    until(&refused, |store| store.progress("u").is_none()).await;
    house.hub.put("o/later", Repository::new('a', &[("m.gguf", tiny())]));
    let (progress, _) = follow(&refused, wanted("hf://o/later"), None).await;
    assert!(matches!(progress, Progress::Resolved(_)), "{progress:?}");
}

#[tokio::test]
async fn a_file_of_a_web_server_is_fetched_over_tls_and_gone_on_with_by_its_tag() {
    let mut house = House::new();
    let server = web_server::start(tiny(), [Some(5000), None].into());
    house.settings.roots = Some(vec![server.certificate.clone()]);
    let source = format!("https://localhost:{}/files/m.gguf?x=1", server.port);
    let progress = house.outcome(&source).await;
    let Progress::Resolved(resolved) = progress else { panic!("{progress:?}") };
    assert_eq!(std::fs::read(&resolved.path).unwrap(), tiny());
    let heads = server.heads();
    assert!(heads.len() == 2 && !heads[0].contains("range:"), "{heads:?}");
    assert!(heads[1].contains("range: bytes=") && heads[1].contains("if-range: \"tag\""), "{heads:?}");
    // An authority that nobody knows.
    house.settings.roots = Some(Vec::new());
    let store = house.store();
    store.resolve(wanted(&format!("https://localhost:{}/files/other.gguf", server.port)));
    until(&store, |store| {
        matches!(store.progress("u"), Some(Progress::Fetching { step: FetchStep::Waiting { reason: "SourceUnreachable", ref why, .. }, .. })
            if why.contains("certificate"))
    })
    .await;
}
