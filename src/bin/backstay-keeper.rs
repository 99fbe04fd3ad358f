//! The program `backstay-keeper`: holds one agent process of a host.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay::keeper::main(std::env::args_os())
}
