//! The agent as it runs: its binary as a process of its own, with virtio-user ports of this process behind its vhost
//! ports, and TAP interfaces in namespaces of their own. No hugepages and no privileges are needed.
//!
//! No test expects anything to happen within a time; a test that waits in vain fails after [`rig::PATIENCE`].

mod control;
mod lifecycle;
mod redirect;
mod rig;
mod tap;
mod traffic;
