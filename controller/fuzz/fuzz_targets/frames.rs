//! Frames: bytes as a stream of them, which comes in pieces. What is read is written back as a frame of the same kind.
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
                    let mut bytes = BytesMut::new();
                    encode(&frame, &mut bytes);
                    // Figures beyond all bounds are none in JSON, which where one is required is not read.
                    if let Ok(again) = decode(&mut bytes, usize::MAX) {
                        assert_eq!(again.expect("it is whole").noun(), frame.noun());
                        assert!(bytes.is_empty(), "and nothing is left of it");
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
