//! The program `backstay`: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two providers in one process panic at run time: the one that is meant is installed first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    backstay::cli::main(std::env::args_os(), backstay::web::start)
}
