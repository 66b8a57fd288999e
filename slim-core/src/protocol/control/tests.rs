//! Lines as they travel, literally, and every way one can be wrong.

use super::*;
use crate::protocol::{MigrationId, Name, Nonce, PathSet, Schema};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

type InstanceMessage = ServerMessage<InstanceReply, InstanceEvent>;

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

fn prepare() -> InstanceRequest {
    InstanceRequest::Prepare {
        migration: MigrationId(0xabc),
        kind: name("nat"),
        schema: Schema(1),
        shards: 1,
        options: PrepareOptions::default(),
    }
}

fn refused(line: &str) -> DecodeError {
    decode_request::<InstanceRequest>(line.as_bytes()).expect_err(line)
}

#[test]
fn a_request_is_this_line() {
    let line = encode(&Request::new(7, InstanceRequest::Describe {})).unwrap();
    assert_eq!(line, "{\"v\":1,\"id\":7,\"request\":{\"type\":\"describe\"}}\n");
    let start = InstanceRequest::Start {
        migration: MigrationId(0xabc),
        destination: "10.3.0.12:7002".parse().unwrap(),
        paths: PathSet::first(2),
        nonce: Nonce(5),
        options: StartOptions::default(),
    };
    let line = encode(&Request::new(8, start.clone())).unwrap();
    let short = "{\"v\":1,\"id\":8,\"request\":{\"type\":\"start\",\"migration\":\"0000000000000abc\",\
        \"destination\":\"10.3.0.12:7002\",\"paths\":[0,1],\"nonce\":\"00000005\"";
    assert!(line.starts_with(short), "{line}");
    // What is left at its default need not be written.
    let request: Request<InstanceRequest> = decode_request(format!("{short}}}}}").as_bytes()).unwrap();
    assert_eq!(request.request, start);
}

#[test]
fn replies_and_events_are_these_lines() {
    let done = InstanceMessage::Reply(Reply::new(7, Ok(InstanceReply::Done)));
    let error = ControlError::new(ErrorCode::WrongRole, "cannot start in role idle");
    let refusal = InstanceMessage::Reply(Reply::new(8, Err(error)));
    let event = InstanceMessage::Event(InstanceEvent::RedirectWanted { migration: MigrationId(0xabc) });
    for (message, line) in [
        (done, r#"{"v":1,"id":7,"ok":{"type":"done"}}"#),
        (refusal, r#"{"v":1,"id":8,"error":{"code":"wrong_role","message":"cannot start in role idle"}}"#),
        (event, r#"{"v":1,"event":{"type":"redirect_wanted","migration":"0000000000000abc"}}"#),
    ] {
        assert_eq!(encode(&message).unwrap().trim_end(), line);
        assert_eq!(decode::<InstanceMessage>(line.as_bytes()), Ok(message));
    }
}

#[test]
fn a_line_is_exactly_one_of_reply_and_event() {
    for line in [
        r#"{"v":1}"#,
        r#"{"v":1,"id":1}"#,
        r#"{"v":1,"ok":{"type":"done"}}"#,
        r#"{"v":1,"id":1,"ok":{"type":"done"},"error":{"code":"io","message":""}}"#,
        r#"{"v":1,"id":1,"event":{"type":"redirect_wanted","migration":"0000000000000abc"}}"#,
    ] {
        assert!(matches!(decode::<InstanceMessage>(line.as_bytes()), Err(DecodeError::Malformed { .. })), "{line}");
    }
}

#[test]
fn another_version_is_named_even_if_nothing_else_can_be_read() {
    let found = refused(r#"{"v":2,"id":9,"ask":"politely"}"#);
    assert_eq!(found, DecodeError::Version { found: 2, id: Some(9) });
    assert_eq!(found.to_control_error().code, ErrorCode::UnsupportedVersion);
    let line = r#"{"v":2,"id":9,"request":{"type":"describe"}}"#;
    assert_eq!(refused(line), DecodeError::Version { found: 2, id: Some(9) });
}

#[test]
fn each_malformed_field_is_refused_with_the_request_s_id() {
    let good = encode(&Request::new(3, prepare())).unwrap();
    assert!(decode_request::<InstanceRequest>(good.as_bytes()).is_ok());
    for (from, to) in [
        ("\"prepare\"", "\"prepaer\""),
        ("\"0000000000000abc\"", "\"abc\""),
        ("\"0000000000000abc\"", "2748"),
        ("\"nat\"", "\"n a t\""),
        ("\"shards\":1", "\"shards\":65536"),
        ("\"shards\":1", "\"shards\":-1"),
        ("\"shards\":1", "\"shard\":1"),
        ("\"shards\":1,", ""),
        ("\"underrun_records\"", "\"underrun\""),
    ] {
        let line = good.replace(from, to);
        assert_ne!(line, good, "{from}");
        let error = refused(&line);
        assert!(matches!(error, DecodeError::Malformed { .. }), "{line}");
        assert_eq!(error.id(), Some(3), "{line}");
        assert_eq!(error.to_control_error().code, ErrorCode::Malformed);
    }
    assert_eq!(refused("{\"v\":1,\"id\":3").id(), None);
    assert_eq!(refused("[]").id(), None);
    assert_eq!(refused("\u{0}\u{1}").id(), None);
}

#[test]
fn an_unknown_field_is_refused_even_where_nothing_is_expected() {
    assert!(matches!(
        refused(r#"{"v":1,"id":1,"request":{"type":"describe","verbose":true}}"#),
        DecodeError::Malformed { .. }
    ));
}

#[test]
fn codes_of_a_newer_peer_are_kept_as_other() {
    let line = r#"{"v":1,"id":8,"error":{"code":"tea_time","message":"later"}}"#;
    let Ok(InstanceMessage::Reply(Reply { result: Err(error), .. })) = decode(line.as_bytes()) else { panic!() };
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Other, "later"));
}

#[test]
fn every_switch_request_survives_the_wire() {
    let requests = [
        SwitchRequest::PortAdd {
            name: name("nat-a.in"),
            kind: PortKind::VhostUser { socket: "/run/a.sock".to_string() },
        },
        SwitchRequest::PortRemove { name: name("nat-a.in") },
        SwitchRequest::PortList {},
        SwitchRequest::ManagementSet { ports: vec![name("mgmt")] },
        SwitchRequest::InstanceAdd {
            name: name("nat-a"),
            ports: vec![name("nat-a.in"), name("nat-a.out")],
            mgmt: Some(name("nat-a.mgmt")),
            link: LinkSettings::default(),
        },
        SwitchRequest::InstanceRemove { name: name("nat-a") },
        SwitchRequest::HostPortSet { instance: name("nat-a"), port: Some(name("nat-a.host")) },
        SwitchRequest::PathsSet { instance: name("nat-a"), externals: vec![name("inside"), name("outside")] },
        SwitchRequest::PathList {},
        SwitchRequest::Redirect {
            migration: MigrationId(1),
            from: name("nat-a"),
            to: name("nat-b"),
            nonce: Nonce(2),
            rollback: true,
            hold_ms: 3,
        },
        SwitchRequest::RedirectStatus { migration: MigrationId(1) },
        SwitchRequest::LinkSet { instance: name("nat-a"), link: LinkSettings::default() },
        SwitchRequest::Status {},
        SwitchRequest::Shutdown {},
    ];
    for request in requests {
        let request = Request::new(1, request);
        let line = encode(&request).unwrap();
        assert_eq!(decode_request(line.as_bytes()), Ok(request), "{line}");
    }
}

#[test]
fn reports_compute_both_readings_of_sigma() {
    let mut report = MigrationReport::new(MigrationId(1));
    assert_eq!((report.sigma_payload(), report.sigma_wire()), (None, None));
    report.workload = WorkloadTotals { packets: 1000, bytes: 512_000 };
    report.announced = StateletTotals { records: 1000, value_bytes: 12_000, bytes: 16_000, ..StateletTotals::ZERO };
    report.statelets =
        StateletTotals { records: 600, merged: 400, stream_bytes: 9_000, segments: 12, ..report.announced };
    assert_eq!(report.sigma_payload(), Some(12_000.0 / 512_000.0));
    assert_eq!(report.sigma_wire(), Some((9_000.0 + 12.0 * 70.0) / 516_000.0));
}

#[test]
fn lines_are_cut_wherever_the_connection_cuts_them() {
    let bytes = b"one\n\ntwo\nthree";
    for cut in 0..=bytes.len() {
        let mut buffer = LineBuffer::new();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            buffer.extend(part);
            while let Some(line) = buffer.next_line().unwrap() {
                lines.push(line.to_vec());
            }
        }
        assert_eq!(lines, [&b"one"[..], b"two"], "{cut}");
        buffer.extend(b"\n");
        assert_eq!(buffer.next_line(), Ok(Some(&b"three"[..])));
    }
}

#[test]
fn a_line_without_end_is_refused_and_the_longest_is_not() {
    let mut buffer = LineBuffer::new();
    let longest = vec![b'x'; LINE_BYTES_MAX];
    buffer.extend(&longest);
    assert_eq!(buffer.next_line(), Ok(None));
    buffer.extend(b"\n");
    assert_eq!(buffer.next_line().unwrap().map(<[u8]>::len), Some(LINE_BYTES_MAX));
    buffer.extend(&longest);
    buffer.extend(b"x");
    assert_eq!(buffer.next_line(), Err(LineTooLong));
    let mut whole = LineBuffer::new();
    whole.extend(&longest);
    whole.extend(b"x\nnext\n");
    assert_eq!(whole.next_line(), Err(LineTooLong));
}

#[test]
fn a_message_too_long_for_a_line_is_not_sent() {
    let huge = "x".repeat(LINE_BYTES_MAX);
    let kind = PortKind::Tap { interface: huge };
    let request = Request::new(1, SwitchRequest::PortAdd { name: name("inside"), kind });
    assert_eq!(encode(&request), Err(LineTooLong));
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_request::<InstanceRequest>(&line);
        let _ = decode::<InstanceMessage>(&line);
        let _ = decode::<ServerMessage<SwitchReply, SwitchEvent>>(&line);
    }

    #[test]
    fn no_change_of_a_byte_makes_it_panic(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut line = encode(&Request::new(3, prepare())).unwrap().into_bytes();
        let at = at.index(line.len());
        line[at] = byte;
        let _ = decode_request::<InstanceRequest>(&line);
    }
}
