//! slimctl and its daemon as an operator uses them, with real sockets and the real state machines on every side.

mod commands;
mod migrate;
mod plan;
mod pool;
mod restart;
mod trust;
mod world;
