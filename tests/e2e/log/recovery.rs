//! An older state of the database: nothing is signed or minted any more, until two people have written off what is lost.

use cortex_server::log::RecoverError;
use cortex_tests::world::{TestWorld, first_run};
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgConnection;

use super::{administrator, finding, issue, key, round};
use crate::asking::known;

/// What the database was, as a backup keeps it.
const KEEP: &[&str] = &[
    "CREATE SCHEMA backup",
    "CREATE TABLE backup.record AS TABLE record",
    "CREATE TABLE backup.log_batch AS TABLE log_batch",
    "CREATE TABLE backup.log_tile AS TABLE log_tile",
    "CREATE TABLE backup.log_chain AS TABLE log_chain",
    "CREATE TABLE backup.log_shard AS TABLE log_shard",
    "CREATE TABLE backup.spent_token AS TABLE spent_token",
    "CREATE TABLE backup.record_fact AS TABLE record_fact",
    "CREATE TABLE backup.record_rule AS TABLE record_rule",
    "CREATE TABLE backup.stream_cursor AS TABLE stream_cursor",
];

const RESTORE: &[&str] = &[
    // The shards first: whoever integrates holds them first.
    "TRUNCATE log_shard, record, log_batch, log_tile, log_chain, log_month_end, log_drop, spent_token, record_fact,
              record_rule, stream_cursor",
    "INSERT INTO record SELECT * FROM backup.record",
    "INSERT INTO log_shard SELECT * FROM backup.log_shard",
    "INSERT INTO log_batch SELECT * FROM backup.log_batch",
    "INSERT INTO log_tile SELECT * FROM backup.log_tile",
    "INSERT INTO log_chain SELECT * FROM backup.log_chain",
    "INSERT INTO spent_token SELECT * FROM backup.spent_token",
    "INSERT INTO record_fact SELECT * FROM backup.record_fact",
    "INSERT INTO record_rule SELECT * FROM backup.record_rule",
    "INSERT INTO stream_cursor SELECT * FROM backup.stream_cursor",
];

async fn run(administrator: &mut PgConnection, statements: &[&'static str]) {
    for &sql in statements {
        sqlx::query(sql).execute(&mut *administrator).await.unwrap();
    }
}

async fn refused(world: &TestWorld, run: &str) {
    let ask = json!({"policy": "first-steps", "targets": ["api"]});
    let answer = world.ask(&world.token(&first_run(run)), ask).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.body["error"], "temporarily_unavailable");
}

#[tokio::test]
async fn a_restored_backup_refuses_to_sign_and_to_mint_until_it_is_recovered() {
    let world = TestWorld::start().await;
    for n in 0..5 {
        issue(&world, &format!("before{n}")).await;
    }
    round(&world).await;
    // What follows the log is not on its way while tables are put back one by one.
    known(&world).await;
    let mut administrator = administrator(&world).await;
    run(&mut administrator, KEEP).await;
    for n in 0..5 {
        issue(&world, &format!("lost{n}")).await;
    }
    round(&world).await;
    known(&world).await;
    run(&mut administrator, RESTORE).await;

    let broker = &world.world.cortex.broker;
    let error = broker.log.round(&broker.pool).await.unwrap_err().to_string();
    assert!(error.contains("an older state of the database was restored"), "{error}");
    refused(&world, "after1").await;
    let ready = world.http.get(world.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().await.unwrap().contains("the log is at fault: behind"));
    let minted = world.minted_leases().len();
    let ask = json!({"policy": "first-steps", "targets": ["aws"]});
    let answer = world.ask(&world.token(&first_run("after2")), ask).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(world.minted_leases().len(), minted, "a cloud was asked");
    // A new process on the same state refuses just the same.
    let second = crate::replicas::second(&world).await;
    let body = json!({"policy": "first-steps", "targets": ["api"]});
    let answer = crate::replicas::ask_second(&world, &second, &world.token(&first_run("after3")), body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    second.shut_down().await;

    let config = &world.world.config;
    let stamp = broker.recorder.stamp();
    let (recovered, shard) = loop {
        let (by, reason) = (["ann".to_owned(), "bob".to_owned()], "a disk failed".to_owned());
        match cortex_server::log::recover(&broker.pool, &config.log, stamp, by, reason).await {
            // This process is not stopped: its sequencer looks at the log just now.
            Err(RecoverError::Busy) => tokio::task::yield_now().await,
            done => break done.unwrap(),
        }
    };
    assert_eq!(recovered.published.origin, "localhost/log/2026");
    assert_eq!(shard.name, "2026-2");
    // A process that begins now goes on; this one has seen what is lost, and does not.
    world.clock.advance(SignedDuration::from_secs(1));
    let second = crate::replicas::second(&world).await;
    let body = json!({"policy": "first-steps", "targets": ["api"]});
    let answer = crate::replicas::ask_second(&world, &second, &world.token(&first_run("after4")), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    second.broker.log.round(&second.broker.pool).await.unwrap();
    assert_eq!(finding(&world).await, None);
    let summary =
        cortex_server::store::log::verify(world.pool(), &key(&world), Vec::new(), |_, _| {}).await.unwrap();
    assert_eq!(summary.recoveries[0].origin, "localhost/log/2026-2");
    second.shut_down().await;
}

#[tokio::test]
async fn a_process_that_has_written_more_than_the_database_knows_stops() {
    // What is not in the tree yet has no anchor; the process that wrote it remembers.
    let forgotten = [
        "UPDATE log_chain SET head = head - 1, sequenced = sequenced - 1 WHERE role = 'recorder' AND head > 2",
        // The same where the chain itself is lost.
        "DELETE FROM log_chain WHERE role = 'recorder' AND head > 2",
    ];
    for sql in forgotten {
        let world = TestWorld::start().await;
        for n in 0..3 {
            issue(&world, &format!("r{n}")).await;
        }
        round(&world).await;
        let mut administrator = administrator(&world).await;
        run(&mut administrator, &[sql]).await;
        refused(&world, "after1").await;
        refused(&world, "after2").await;
        let fault = world.world.cortex.broker.log.health().fault().expect(sql);
        assert_eq!(fault.kind(), "rewound");
    }
}

#[tokio::test]
async fn what_is_changed_before_it_is_in_the_tree_is_noticed_by_the_next_replica() {
    let world = TestWorld::start().await;
    issue(&world, "r1").await;
    round(&world).await;
    let second = crate::replicas::second(&world).await;
    let body = json!({"policy": "first-steps", "targets": ["api"]});
    // Held, so that nobody integrates what comes now.
    let mut holder = administrator(&world).await;
    sqlx::raw_sql("BEGIN; SELECT * FROM log_shard FOR UPDATE").execute(&mut holder).await.unwrap();
    let answer = crate::replicas::ask_second(&world, &second, &world.token(&first_run("r2")), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let mut administrator = administrator(&world).await;
    let changed = sqlx::query(
        "UPDATE record SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), '\"r2\"', '\"r3\"'), 'UTF8')
         WHERE run_id = 'r2'",
    );
    assert_eq!(changed.execute(&mut administrator).await.unwrap().rows_affected(), 1);
    second.shut_down().await;
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    let broker = &world.world.cortex.broker;
    let error = broker.log.round(&broker.pool).await.unwrap_err().to_string();
    assert!(error.contains("it is not what was sealed"), "{error}");
    refused(&world, "after").await;
}
