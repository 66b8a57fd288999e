//! The demo: a live NAT moves between two instances under load, and everything that happened to a packet is told.

mod spec;

pub use spec::DemoSpec;
