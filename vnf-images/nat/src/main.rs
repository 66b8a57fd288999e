//! The NAT image's binary: PID 1 of the image, or an ordinary process with `--process`.

fn main() -> std::process::ExitCode {
    slim_runtime::run::<slim_nat::Nat>()
}
