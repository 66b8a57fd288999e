//! What opens and closes streams: handshakes, the replies to them, and the acknowledgement of a take-over.

use crate::input::Input;
use slim_core::protocol::MigrationId;
use slim_core::protocol::stream::{
    HANDSHAKE_LEN_MAX, Handshake, check_taken_over, decode_reply, encode_reply, encode_taken_over,
};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let migration = MigrationId(input.u64());

    let reply = Input::new(bytes).array();
    if let Ok(answer) = decode_reply(&reply) {
        // The version of a refusal says nothing, so it need not come back.
        assert_eq!(decode_reply(&encode_reply(answer)), Ok(answer));
    }
    let acknowledgement = Input::new(bytes).array();
    if check_taken_over(&acknowledgement, migration).is_ok() {
        assert_eq!(acknowledgement, encode_taken_over(migration));
    }
    assert_eq!(check_taken_over(&encode_taken_over(migration), migration), Ok(()));

    // Byte by byte: nothing until all of it is there, and what is refused stays refused.
    let mut refused = None;
    for len in 0..=bytes.len().min(HANDSHAKE_LEN_MAX + 1) {
        let outcome = Handshake::decode(&bytes[..len]);
        if let Some(error) = refused {
            assert_eq!(outcome, Err(error));
            continue;
        }
        match outcome {
            Ok(None) => assert!(len < HANDSHAKE_LEN_MAX, "it asks for more than a handshake can have"),
            Ok(Some((handshake, length))) => {
                assert!(length <= len);
                assert_eq!(handshake.encode(), bytes[..length]);
                if let Ok(version) = handshake.common_version() {
                    assert!((handshake.version_min..=handshake.version_max).contains(&version));
                }
            }
            Err(error) => refused = Some(error),
        }
    }
}
