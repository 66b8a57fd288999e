//! The gateway image's binary: PID 1 of the image, or an ordinary process with `--process`.

use std::process::ExitCode;

fn main() -> ExitCode {
    slim_runtime::run::<slim_gateway::Gateway>()
}
