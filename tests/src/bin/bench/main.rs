//! `make bench`: what one replica does on this machine, beside the floors that no broker can go below.
//!
//! The server is a process of its own, which runs what `cortex serve` runs, over a private Postgres with fsync
//! on. Every comparison is a ratio of numbers from the same run, taken in turns, because a machine's speed
//! changes from minute to minute. docs/benchmarks.md says how to read the table.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on has failed")]

mod algorithms;
mod asks;
mod cpu;
mod floors;
mod ground;
mod growth;
mod load;
mod mints;
mod paced;
mod replays;
mod report;
mod revocations;
mod rows;
mod server;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::ground::Ground;
use crate::report::Report;

/// Measures throughput and latency of one Cortex replica on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// A few seconds in all: shows that everything can be measured; its numbers mean little.
    #[arg(long)]
    quick: bool,
    /// Only this part of it.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
}

/// A part that can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Fresh mints and repeated asks.
    Mints,
    /// Issuing while many leases are revoked.
    Revocations,
    /// Few policies and rows beside many.
    Growth,
    /// The replay of recorded requests.
    Replay,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// How often each measurement takes its turn.
    pub(crate) rounds: usize,
    /// How many fresh mints a turn has, by connections.
    pub(crate) mints: [(usize, usize); 3],
    /// How many repeated asks a turn has, by connections.
    pub(crate) again: [(usize, usize); 2],
    /// How many milliseconds a turn of bare signing takes.
    pub(crate) signing_ms: u64,
    /// How many asks go to a cloud that takes its time.
    pub(crate) cloud_asks: usize,
    /// How many policies, and how many rows on record, are many.
    pub(crate) policies: usize,
    /// The same of rows.
    pub(crate) rows: i64,
    /// How many asks a turn of the comparison of few and many has.
    pub(crate) growth_asks: usize,
    /// How many leases are revoked at once.
    pub(crate) leases: i64,
    /// Fixed rates, in mints each second, and how many seconds a turn of one takes.
    pub(crate) rates: [u32; 2],
    /// The same.
    pub(crate) paced_s: usize,
}

const FULL: Scale = Scale {
    rounds: 6,
    mints: [(4, 300), (32, 800), (256, 2_560)],
    again: [(32, 4_000), (256, 4_000)],
    signing_ms: 1_000,
    cloud_asks: 400,
    policies: 10_000,
    rows: 1_000_000,
    growth_asks: 300,
    leases: 50_000,
    rates: [500, 1_000],
    paced_s: 5,
};

const QUICK: Scale = Scale {
    rounds: 1,
    mints: [(4, 40), (32, 64), (256, 256)],
    again: [(32, 128), (256, 512)],
    signing_ms: 100,
    cloud_asks: 16,
    policies: 50,
    rows: 2_000,
    growth_asks: 20,
    leases: 2_000,
    rates: [20, 40],
    paced_s: 1,
};

/// The connections over which few and many are compared: latency is what counts there.
pub(crate) const GROWTH_CONNECTIONS: usize = 4;

/// As in the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // The server under test is this program once more, so that it is built with the same flags.
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return match runtime.block_on(cortex_cli::run(cortex_cli::Cli::parse())) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let options = Options::parse();
    let scale = if options.quick { QUICK } else { FULL };
    let mut report = Report::default();
    runtime.block_on(measure(scale, options.only, &mut report));
    print!("{report}");
    ExitCode::SUCCESS
}

async fn measure(scale: Scale, only: Option<Part>, report: &mut Report) {
    let ground = Ground::start().await;
    let wanted = |part: Part| only.is_none_or(|only| only == part);
    if wanted(Part::Mints) {
        mints::measure(&ground, scale, report).await;
    }
    if wanted(Part::Revocations) {
        revocations::measure(&ground, scale, report).await;
    }
    if wanted(Part::Growth) {
        growth::measure(&ground, scale, report).await;
    }
    if wanted(Part::Replay) {
        replays::measure(&ground, scale, report).await;
    }
}

/// Says what is going on, where it does not get into the results.
pub(crate) fn tell(what: &str) {
    eprintln!("bench: {what}");
}
