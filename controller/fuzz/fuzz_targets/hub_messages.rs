//! Hub messages: text as the JSON of one, from a phone or from a hub. What is read can be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyphony_protocol::hub::{ToAgent, ToHub};
use polyphony_protocol::links::dialled;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|data: &[u8]| {
    read::<ToHub>(data);
    if let Some(ToAgent::Assignments { segments }) = read::<ToAgent>(data) {
        for segment in &segments {
            // A plan that nobody made has stages that nobody is at.
            assert!(dialled(segment).take(4096).all(|stage| stage != segment.stage));
        }
    }
});

fn read<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(data).ok()?;
    serde_json::to_vec(&message).expect("a message is JSON");
    Some(message)
}
