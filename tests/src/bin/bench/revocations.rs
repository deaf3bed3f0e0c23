//! Fresh mints while a great many leases are revoked at once, beside fresh mints while none is.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};

use crate::ground::Ground;
use crate::load::Measured;
use crate::policies::policy_name;
use crate::report::{Goal, Report};
use crate::rows::live_leases;
use crate::{Scale, asks, tell};

/// How many policies the server has.
const POLICIES: usize = 10;
/// The connections of the load.
const CONNECTIONS: usize = 32;
/// How many mints a turn has.
const TURN: usize = 400;
/// How long a revocation of them all may take.
const PATIENCE: Duration = Duration::from_mins(10);

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let server = ground.serve_trusted("revocations", POLICIES, |_| {}).await;
    let fresh = || {
        let iss = ground.single_use_iss();
        asks::exchanges(&ground.sandbox, &iss, "api", TURN, |n| policy_name(n % POLICIES))
    };
    server.load(4, fresh()).await;
    let mut owner = PgConnection::connect(&ground.database_url("revocations")).await.expect("a connection");
    let (mut usual, mut draining) = (Measured::default(), Measured::default());
    let mut drained = Duration::ZERO;
    for round in 1..=scale.rounds.min(3) {
        tell(&format!("revocations: turn {round}"));
        for _ in 0..2 {
            usual.add(server.load(CONNECTIONS, fresh()).await);
        }
        revoke(&mut owner, scale.leases).await;
        let begun = Instant::now();
        while owed(&mut owner).await {
            assert!(begun.elapsed() < PATIENCE, "the revocations do not end");
            draining.add(server.load(CONNECTIONS, fresh()).await);
        }
        drained += begun.elapsed();
    }
    let leases = scale.leases;
    report.measured("fresh mint, before a revocation", CONNECTIONS, &usual);
    let while_draining = format!("fresh mint while {leases} revocations drain");
    report.measured(&while_draining, CONNECTIONS, &draining);
    let turns = u32::try_from(scale.rounds.min(3)).expect("a count");
    report.figure(&format!("until {leases} leases are denied at AWS, s"), (drained / turns).as_secs_f64());
    let ratio = draining.percentile(99) / usual.percentile(99);
    report.goal(Goal::below(&format!("p99 while {leases} revocations drain, of the usual"), ratio, 2.0));
}

/// Puts `leases` sessions of one role on record and revokes them, as a request would.
async fn revoke(owner: &mut PgConnection, leases: i64) {
    live_leases(owner, leases).await;
    for statement in [
        "INSERT INTO revocation (id, scope, up_to, reason, requested_by, requested_at, spread_to)
         VALUES (gen_random_uuid(), '{\"kind\": \"dag\", \"dag_id\": \"many\"}',
                 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'bench', 'operator:bench', now(),
                 (lpad(to_hex((extract(epoch FROM now()) * 1000)::int8 - 120000), 12, '0') || repeat('0', 20))::uuid)",
        "UPDATE release_epoch SET epoch = epoch + 1",
    ] {
        sqlx::query(statement).execute(&mut *owner).await.expect(statement);
    }
}

/// Whether a revocation is not spread yet, or not confirmed.
async fn owed(owner: &mut PgConnection) -> bool {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM revocation WHERE NOT spread)
             OR EXISTS (SELECT FROM revoked_lease WHERE state = 'pending')",
    )
    .fetch_one(owner)
    .await
    .expect("an answer")
}
