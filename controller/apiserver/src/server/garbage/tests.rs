//! Tests of garbage: looking at what a change touched finds all that looking at everything would.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FOREGROUND, ORPHAN, Ownership, Step, plan};
use crate::registry::{Kind, Registry};
use crate::store::{Change, Event, Key, Snapshot};

const OBJECTS: usize = 4;

/// One change of one of a few objects, or of their namespace.
#[derive(Clone, Debug)]
struct Turn {
    object: usize,
    /// The object after it; none if it goes.
    after: Option<Value>,
}

fn turn() -> impl Strategy<Value = Turn> {
    let owner = (0..OBJECTS, 0..2_u8, any::<bool>()).prop_map(|(object, life, blocks)| {
        json!({"apiVersion": "example.dev/v1", "kind": "Widget", "name": format!("w{object}"),
            "uid": format!("w{object}-{life}"), "blockOwnerDeletion": blocks})
    });
    let finalizers = prop::sample::subsequence(vec![FOREGROUND, ORPHAN, "example.dev/hold"], 0..=3);
    let state = (0..2_u8, vec(owner, 0..3), finalizers, any::<bool>());
    (0..=OBJECTS, prop::option::weighted(0.8, state)).prop_map(|(object, state)| {
        let after = state.map(|(life, owners, finalizers, leaves)| {
            let mut metadata = json!({"uid": format!("w{object}-{life}"), "finalizers": finalizers});
            if object < OBJECTS {
                metadata["ownerReferences"] = json!(owners);
            }
            if leaves {
                metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            json!({"metadata": metadata})
        });
        Turn { object, after }
    })
}

fn key(object: usize) -> Key {
    if object == OBJECTS {
        Key::new("namespaces", "", "default")
    } else {
        Key::new("widgets.example.dev", "default", &format!("w{object}"))
    }
}

fn of(step: &Step) -> &Key {
    let (Step::Delete { key, .. } | Step::Disown { key, .. } | Step::Release { key, .. }) = step;
    key
}

proptest! {
    #[test]
    fn what_a_change_makes_due_is_among_what_it_makes_doubtful(turns in vec(turn(), 1..25)) {
        let mut registry = Registry::builtin();
        registry.insert(Kind {
            group: "example.dev".into(),
            version: "v1".into(),
            kind: "Widget".into(),
            plural: "widgets".into(),
            namespaced: true,
            ..Kind::default()
        });
        let mut ownership = Ownership::of(Snapshot { revision: 0, objects: Vec::new() });
        let mut due: Vec<Step> = Vec::new();
        for Turn { object, after } in turns {
            let key = key(object);
            let change = match (ownership.get(&key), &after) {
                (None, None) => continue,
                (_, None) => Change::Deleted,
                (None, Some(_)) => Change::Added,
                (Some(_), Some(_)) => Change::Modified,
            };
            let object = Arc::new(after.unwrap_or_default());
            ownership.follow(&Event { revision: 1, change, key, object, previous: None });
            let doubtful = ownership.take_doubtful();
            ownership.doubt_everything();
            let everything: BTreeSet<Key> = ownership.take_doubtful();
            let now = plan(&registry, &ownership, &everything);
            for step in now.iter().filter(|step| !due.contains(step)) {
                prop_assert!(doubtful.contains(of(step)), "{step:?} is due, and only {doubtful:?} would be looked at");
            }
            due = now;
        }
    }
}
