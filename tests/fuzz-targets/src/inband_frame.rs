//! In-band frames: drain packets, their acknowledgements, what is handed back, and its end.

use slim_core::protocol::inband::{FRAME_LEN, Frame, is_inband};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let _ = is_inband(bytes);
    let Ok(frame) = Frame::decode(bytes) else { return };
    let len = frame.encoded_len();
    assert!(len >= FRAME_LEN);
    let mut dirty = vec![0xa5; len + 3];
    assert_eq!(frame.encode(&mut dirty), Ok(len));
    assert!(is_inband(&dirty));
    assert_eq!(Frame::decode(&dirty[..len]), Ok(frame));
    assert!(frame.encode(&mut dirty[..len - 1]).is_err(), "written behind the buffer's end");
}
