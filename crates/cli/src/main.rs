//! The binary `cortex`.

use std::process::ExitCode;

use clap::Parser as _;
use cortex_cli::Cli;

/// Many small pieces are allocated for each request: a tenth of a mint's time is glibc's way of doing that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One cryptographic library for everything, whatever a dependency may prefer.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(cortex_cli::run(Cli::parse())),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cortex: {error}");
            error.code()
        }
    }
}
