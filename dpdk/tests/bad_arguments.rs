//! Arguments the EAL refuses are errors; the process lives on. One EAL a process, so one test in this file.

use dpdk::{Eal, Error};

#[test]
fn bad_arguments_are_errors_not_exits() {
    for help in ["-h", "--help"] {
        let error = Eal::init(["--no-huge", help]).expect_err("help is for people");
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    }
    let error = Eal::init(["--no-huge", "--no-such-option"]).expect_err("there is no such option");
    assert!(matches!(error, Error::Refused { operation: "start", .. }), "{error}");
    assert_eq!(Eal::init(["--no-huge"]).expect_err("once is enough"), Error::AlreadyInitialised);
}
