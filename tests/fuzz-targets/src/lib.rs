//! What the fuzzer runs: one plain function per target, which takes any bytes and panics only on a finding.
//!
//! - Bytes from outside: [`statelet_stream`], [`snapshot_stream`], [`handshake`], [`control_lines`], [`inband_frame`],
//!   [`configuration`].
//! - Packets: [`nat_packets`], [`nat_install`], [`gateway_packets`], [`switch_operations`].
//! - The machines, with anything at any time: [`vei_instance`], [`coordinator`].
//!
//! libFuzzer drives them from `fuzz/` (`cargo xtask fuzz`), and the test of this crate replays `fuzz/corpus/` through
//! them, for which any toolchain will do. [`input`] turns bytes into decisions; [`operations`], [`traffic`] and [`state`]
//! are what several targets need.

#![forbid(unsafe_code)]

pub mod configuration;
pub mod control_lines;
pub mod coordinator;
pub mod gateway_packets;
pub mod handshake;
pub mod inband_frame;
pub mod input;
pub mod nat_install;
pub mod nat_packets;
pub mod operations;
pub mod snapshot_stream;
pub mod state;
pub mod statelet_stream;
pub mod switch_operations;
pub mod traffic;
pub mod vei_instance;

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of the libFuzzer binary and of the corpus's folder.
    pub name: &'static str,
    /// Runs it once.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 12] = [
    Target { name: "statelet_stream", run: statelet_stream::run },
    Target { name: "snapshot_stream", run: snapshot_stream::run },
    Target { name: "handshake", run: handshake::run },
    Target { name: "control_lines", run: control_lines::run },
    Target { name: "inband_frame", run: inband_frame::run },
    Target { name: "configuration", run: configuration::run },
    Target { name: "nat_packets", run: nat_packets::run },
    Target { name: "nat_install", run: nat_install::run },
    Target { name: "gateway_packets", run: gateway_packets::run },
    Target { name: "switch_operations", run: switch_operations::run },
    Target { name: "vei_instance", run: vei_instance::run },
    Target { name: "coordinator", run: coordinator::run },
];
