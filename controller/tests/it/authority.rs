//! An authority that is kept in the API, as in a cluster.
#![allow(clippy::unwrap_used)]

use polyphony_api::SYSTEM_NAMESPACE;
use polyphony_controller::door::authority::{KeptAuthority, rotate};
use polyphony_controller::door::place::Place;
use polyphony_identity::{Authority, Clock, DEFAULT_DOMAIN, Lifetimes};

use super::farm::Farm;

const N_ROTATIONS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_that_rotate_it_at_a_time_undo_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let (namespace, name) = (SYSTEM_NAMESPACE.to_owned(), "authority".to_owned());
    let place = Place::Secret { client: farm.client.clone(), namespace, name };
    KeptAuthority::open(place.clone(), DEFAULT_DOMAIN, Lifetimes::default()).await.unwrap();
    let now = Clock::system().now();
    let rotations: Vec<_> = (0..N_ROTATIONS)
        .map(|_| {
            let place = place.clone();
            tokio::spawn(async move {
                rotate(&place, Lifetimes::default(), |authority| authority.rotate_root(now)).await.unwrap().ca_hash()
            })
        })
        .collect();
    let mut roots = Vec::new();
    for rotation in rotations {
        roots.push(rotation.await.unwrap());
    }
    let kept = Authority::open(&place.read().await.unwrap().unwrap(), Lifetimes::default()).unwrap();
    let known: Vec<_> = kept.retired().map(|(root, _)| root).chain([kept.ca_hash()]).collect();
    assert_eq!(known.len(), 1 + N_ROTATIONS, "the first, and one a rotation");
    assert!(roots.iter().all(|root| known.contains(root)), "{roots:?} are not all of {known:?}");
    farm.stop().await;
}
