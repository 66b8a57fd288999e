//! Control connections: bytes to lines to messages, of instances, of the switch and of the controller's API.

use crate::input::Input;
use core::fmt::Debug;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slim_controller::api::{ApiEvent, ApiReply, ApiRequest};
use slim_core::protocol::control::{
    InstanceEvent, InstanceReply, InstanceRequest, LineBuffer, Request, ServerMessage, SwitchEvent, SwitchReply,
    SwitchRequest, decode, decode_request, encode,
};

/// What can be read can be written, and then means the same.
fn read<T: DeserializeOwned + Serialize + Debug>(line: &[u8]) {
    match decode::<T>(line) {
        Ok(message) => {
            let Ok(again) = encode(&message) else { return };
            let reread: T = decode(again.as_bytes()).expect("what was written can be read");
            // Not all messages can be compared, but all can be shown.
            assert_eq!(format!("{message:?}"), format!("{reread:?}"));
        }
        Err(error) => {
            let answer = encode(&error.to_control_error()).expect("a refusal fits into a line");
            assert!(answer.len() < 16 << 10, "a refusal of {} bytes", answer.len());
        }
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut cuts = Input::new(input.bytes(8));
    let stream = input.rest();
    let mut whole = LineBuffer::new();
    whole.extend(stream);
    let mut pieces = LineBuffer::new();
    for piece in cuts.cut(stream) {
        pieces.extend(piece);
        while let Some(line) = pieces.next_line().expect("inputs are shorter than the longest line") {
            assert_eq!(whole.next_line(), Ok(Some(line)), "the pieces matter");
            read::<Request<InstanceRequest>>(line);
            read::<Request<SwitchRequest>>(line);
            read::<Request<ApiRequest>>(line);
            read::<ServerMessage<InstanceReply, InstanceEvent>>(line);
            read::<ServerMessage<SwitchReply, SwitchEvent>>(line);
            read::<ServerMessage<ApiReply, ApiEvent>>(line);
            let request = decode_request::<InstanceRequest>(line);
            assert_eq!(request.is_ok(), decode::<Request<InstanceRequest>>(line).is_ok());
        }
    }
    assert_eq!(whole.next_line(), Ok(None));
}
