//! Hub messages: text as the JSON of one, from a phone or from a hub. What is read is written back as the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyphony_protocol::hub::{ToAgent, ToHub};
use polyphony_protocol::links::dialled;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|data: &[u8]| {
    there_and_back::<ToHub>(data);
    if let Some(ToAgent::Assignments { segments }) = there_and_back::<ToAgent>(data) {
        for segment in &segments {
            // A plan that nobody made has stages that nobody is at.
            assert!(dialled(segment).take(4096).all(|stage| stage != segment.stage));
        }
    }
});

fn there_and_back<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(data).ok()?;
    let once = serde_json::to_vec(&message).expect("a message is JSON");
    // A figure beyond all bounds is written as none, which a required one is not read from.
    if let Ok(again) = serde_json::from_slice::<T>(&once) {
        assert_eq!(serde_json::to_vec(&again).expect("a message is JSON"), once);
    }
    Some(message)
}
