//! `make bench`: what Cortex does on this machine, beside the floors that no broker can go below.
//!
//! The server is a process of its own, which runs what `cortex serve` runs, over a private Postgres with fsync
//! on. Every comparison is a ratio of numbers from the same run, taken in turns, because a machine's speed
//! changes from minute to minute. docs/benchmarks.md says how to read the table.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on has failed")]

mod algorithms;
mod asks;
mod chart;
mod cpu;
mod floors;
mod ground;
mod growth;
mod load;
mod midnight;
mod mints;
mod paced;
mod policies;
mod replays;
mod replicas;
mod report;
mod revocations;
mod rows;
mod sealing;
mod server;
mod soak;
mod starts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use crate::ground::Ground;
use crate::report::Report;

/// Measures throughput and latency of Cortex on this machine.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds for each part: shows that everything can be measured; its numbers mean little.
    #[arg(long)]
    quick: bool,
    /// Only this part; can be given again for another one.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// A record of up to ten million rows instead of one: takes another quarter of an hour and 10 GB of disk.
    #[arg(long)]
    ten_million: bool,
    /// How many minutes the soak takes.
    #[arg(long, default_value_t = 30, value_name = "MINUTES")]
    soak_minutes: u32,
    /// Puts the results into this page too, such as docs/benchmarks.md, where those of an earlier run are.
    #[arg(long)]
    into: Option<PathBuf>,
}

/// What is measured, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Fresh mints and repeated asks beside their floors, at fixed rates, with two algorithms, and at a slow cloud.
    Mints,
    /// 5,000 runs that begin in one second.
    Midnight,
    /// While many leases are revoked.
    Revocations,
    /// Few policies and many; how long a start with them takes.
    Policies,
    /// A short record and a long one.
    Rows,
    /// One to four replicas.
    Replicas,
    /// With the issuance log, and without.
    Sealing,
    /// Recorded requests, decided again.
    Replay,
    /// Half the peak rate for a long time; only when it is asked for.
    Soak,
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
    /// How many policies are many, from fewer to more.
    pub(crate) policies: &'static [usize],
    /// How many rows are on record, from the shortest record to the longest.
    pub(crate) rows: &'static [i64],
    /// How many requests are replayed.
    pub(crate) replayed: i64,
    /// How many asks a turn of the comparison of few and many has.
    pub(crate) growth_asks: usize,
    /// How many leases are revoked at once.
    pub(crate) leases: i64,
    /// How many leases live when a server starts.
    pub(crate) live_leases: i64,
    /// Fixed rates, in mints each second, and how many seconds a turn of one takes.
    pub(crate) rates: [u32; 2],
    /// The same.
    pub(crate) paced_s: usize,
    /// How many runs begin at midnight.
    pub(crate) midnight_runs: usize,
    /// How many calls a second Cortex makes then to AWS and to Google.
    pub(crate) midnight_quotas: [u32; 2],
    /// How many minutes the soak takes.
    pub(crate) soak_minutes: u32,
}

const FULL: Scale = Scale {
    rounds: 6,
    mints: [(4, 300), (32, 800), (256, 2_560)],
    again: [(32, 4_000), (256, 4_000)],
    signing_ms: 1_000,
    cloud_asks: 400,
    policies: &[1_000, 10_000, 100_000],
    rows: &[10_000, 100_000, 1_000_000],
    replayed: 1_000_000,
    growth_asks: 500,
    leases: 50_000,
    live_leases: 100_000,
    rates: [500, 1_000],
    paced_s: 5,
    midnight_runs: 5_000,
    midnight_quotas: [300, 250],
    soak_minutes: 30,
};

/// The lengths of records with `--ten-million`.
const TEN_MILLION: &[i64] = &[10_000, 100_000, 1_000_000, 10_000_000];

const QUICK: Scale = Scale {
    rounds: 1,
    mints: [(4, 40), (32, 64), (256, 256)],
    again: [(32, 128), (256, 512)],
    signing_ms: 100,
    cloud_asks: 16,
    policies: &[50],
    rows: &[200, 2_000],
    replayed: 2_000,
    growth_asks: 20,
    leases: 2_000,
    live_leases: 2_000,
    rates: [20, 40],
    paced_s: 1,
    midnight_runs: 40,
    midnight_quotas: [20, 20],
    soak_minutes: 30,
};

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
    let mut scale = if options.quick { QUICK } else { FULL };
    if options.ten_million {
        scale.rows = TEN_MILLION;
    }
    let mut report = Report::default();
    scale.soak_minutes = options.soak_minutes;
    runtime.block_on(measure(scale, &options.only, &mut report));
    print!("{report}");
    let written = options.into.map_or(Ok(()), |page| {
        report.write_into(&page).map_err(|error| format!("bench: {}: {error}", page.display()))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(scale: Scale, only: &[Part], report: &mut Report) {
    let ground = Ground::start().await;
    let wanted = |part: &&Part| if only.is_empty() { **part != Part::Soak } else { only.contains(part) };
    for part in Part::value_variants().iter().filter(wanted) {
        let begun = Instant::now();
        match part {
            Part::Mints => mints::measure(&ground, scale, report).await,
            Part::Midnight => midnight::measure(&ground, scale, report).await,
            Part::Revocations => revocations::measure(&ground, scale, report).await,
            Part::Policies => growth::by_policies(&ground, scale, report).await,
            Part::Rows => growth::by_rows(&ground, scale, report).await,
            Part::Replicas => replicas::measure(&ground, scale, report).await,
            Part::Sealing => sealing::measure(&ground, scale, report).await,
            Part::Replay => replays::measure(&ground, scale, report).await,
            Part::Soak => soak::measure(&ground, scale, report).await,
        }
        tell(&format!("{part:?} took {:.0} s", begun.elapsed().as_secs_f64()));
    }
}

/// Says what is going on, where it does not get into the results.
pub(crate) fn tell(what: &str) {
    eprintln!("bench: {what}");
}
