//! Frames: bytes as a stream of them, which comes in pieces. What is read is written back as the same frame.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use polyphony_protocol::{decode, encode};

const LIMIT: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    // The first byte says how long the pieces are.
    let Some((&length, stream)) = data.split_first() else { return };
    let mut buffer = BytesMut::new();
    for piece in stream.chunks(usize::from(length).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer, LIMIT) {
                Ok(Some(frame)) => {
                    let (mut once, mut twice) = (BytesMut::new(), BytesMut::new());
                    encode(&frame, &mut once);
                    let again = decode(&mut once.clone(), usize::MAX).expect("what we write is a frame");
                    encode(&again.expect("and a whole one"), &mut twice);
                    assert_eq!(once, twice);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
