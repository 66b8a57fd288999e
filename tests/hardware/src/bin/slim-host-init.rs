//! PID 1 of the emulated host.

#![forbid(unsafe_code)]

fn main() {
    slim_hardware::inside::main();
}
