//! The program: arguments, run, exit status; everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    countersign::run()
}
