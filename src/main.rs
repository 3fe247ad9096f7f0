//! The `countersign` program. All of its code is in the library: see `countersign::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    countersign::run()
}
