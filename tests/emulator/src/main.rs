//! The `amp-emulator` command: see [`amp_emulator::run_from_args`].

fn main() -> std::process::ExitCode {
    amp_emulator::run_from_args()
}
