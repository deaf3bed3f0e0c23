//! What the issuance log costs: a server whose record goes into the tree beside one whose does not, and what a seal costs.
//!
//! A server cannot be told not to seal. So what a seal takes is measured by itself, and everything else by a server whose
//! sequencer never gets its turn and whose database neither keeps the chain's head nor indexes the seals.

use std::time::{Duration, Instant};

use cortex_log::Hash;
use cortex_log::note::Signer;
use cortex_log::seal::{Seal, join};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::ground::Ground;
use crate::load::Measured;
use crate::policies::policy_name;
use crate::report::{Goal, Report};
use crate::server::Server;
use crate::{Scale, asks, tell};

/// The connections of the load: enough that all cores are busy.
const CONNECTIONS: usize = 256;
/// How many policies the servers have.
const POLICIES: usize = 10;
/// A record's length, in bytes, as a mint's is.
const ENTRY_BYTES: usize = 1_200;

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let with = ground.serve("sealed", POLICIES).await;
    let without = ground.serve("unsealed", POLICIES).await;
    let url = ground.database_url("unsealed");
    forget_chains(&url).await;
    let waiting = hold_the_tree(&url).await;
    let (mut sealed, mut unsealed) = (Measured::default(), Measured::default());
    for round in 1..=scale.rounds {
        tell(&format!("sealing: turn {round} of {}", scale.rounds));
        let mut both = [(&with, &mut sealed), (&without, &mut unsealed)];
        // Each goes first as often as the other.
        if round % 2 == 0 {
            both.reverse();
        }
        for (server, measured) in both {
            measured.add(turn(ground, server, scale).await);
        }
    }
    waiting.close().await.expect("to close");
    let seal_us = seal_us(Duration::from_millis(scale.signing_ms));
    report.measured("fresh mint, into the log", CONNECTIONS, &sealed);
    report.measured("fresh mint, sealed and left there", CONNECTIONS, &unsealed);
    report.figure("processor time of a seal, µs", seal_us);
    let cost = |measured: &Measured| measured.cpu_us().iter().sum::<f64>();
    report.figure("processor time of a mint with the log, all processes, µs", cost(&sealed));
    report.figure("processor time of a mint without the log, all processes, µs", cost(&unsealed) - seal_us);
    // All cores are busy, so the rate without a seal is what they would do in the time that it takes.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = f64::from(u32::try_from(cores).expect("a count"));
    let rate = 1.0 / (1.0 / unsealed.rate() - seal_us / 1e6 / cores);
    report.figure("fresh mints a second without the log", rate);
    report.goal(Goal::below("the log's share of the throughput", 1.0 - sealed.rate() / rate, 0.1));
}

async fn turn(ground: &Ground, server: &Server, scale: Scale) -> Measured {
    let iss = ground.single_use_iss();
    let requests =
        asks::exchanges(&ground.sandbox, &iss, "api", scale.mints[2].1, |n| policy_name(n % POLICIES));
    server.load(CONNECTIONS, requests).await
}

/// Keeps every sequencer from the tree for as long as the connection is open.
async fn hold_the_tree(database_url: &str) -> PgConnection {
    let mut owner = PgConnection::connect(database_url).await.expect("a connection");
    for statement in ["BEGIN", "SELECT FROM log_shard FOR UPDATE"] {
        sqlx::query(statement).execute(&mut owner).await.expect(statement);
    }
    owner
}

/// Takes away what the log adds to a commit in Postgres.
async fn forget_chains(database_url: &str) {
    let mut owner = PgConnection::connect(database_url).await.expect("a connection");
    for statement in [
        "CREATE OR REPLACE FUNCTION advance_chain(which uuid, expected bigint, following bigint) RETURNS bigint
         LANGUAGE sql VOLATILE AS $$ SELECT following $$",
        "DROP INDEX record_by_chain",
    ] {
        sqlx::query(statement).execute(&mut owner).await.expect(statement);
    }
    owner.close().await.expect("to close");
}

/// Processor time of hashing and sealing one record, in microseconds.
fn seal_us(time: Duration) -> f64 {
    let chain = Uuid::from_u128(7);
    let signer = Signer::from_seed(&chain.to_string(), &[7; 32]).expect("a key");
    let entry = vec![b'x'; ENTRY_BYTES];
    let started = Instant::now();
    let mut sealed = 0_u32;
    while started.elapsed() < time {
        let seal = Seal {
            chain,
            batch: u64::from(sealed) + 1,
            place: 1,
            entry: Hash::of(&entry),
            previous: Hash::ZERO,
            time_ms: 1,
            merge_by_ms: 2,
        };
        let seal = seal.sign(&signer).expect("a seal");
        std::hint::black_box(Hash::leaf(&join(&entry, &seal)));
        sealed += 1;
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(sealed)
}
