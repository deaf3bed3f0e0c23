//! Several processes write, integrate and publish at once; some are killed, and the clock goes wrong.

use std::sync::Arc;

use cortex_core::Digest;
use cortex_core::clock::SystemClock;
use cortex_log::checkpoint::Checkpoint;
use cortex_server::config::DatabaseConfig;
use cortex_server::random::SystemRandom;
use cortex_server::store::{self, documents};
use cortex_server::{Config, Environment};
use cortex_tests::served::Served;
use cortex_tests::world::{TestWorld, database, first_run};
use futures_util::future::join_all;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::json;

use super::{finding, issue, key, round};

#[tokio::test]
async fn replicas_that_integrate_at_once_make_one_tree_with_everything_in_it() {
    let world = Arc::new(TestWorld::start().await);
    let second = crate::replicas::second(&world).await;
    let body = || json!({"policy": "first-steps", "targets": ["api"]});
    let mut older = Vec::new();
    for wave in 0..5 {
        let here = (0..12).map(|n| {
            let token = world.token(&first_run(&format!("h{wave}-{n}")));
            let world = Arc::clone(&world);
            async move { world.ask(&token, body()).await }
        });
        let there = (0..12).map(|n| {
            let token = world.token(&first_run(&format!("t{wave}-{n}")));
            let (world, second) = (Arc::clone(&world), &second);
            async move { crate::replicas::ask_second(&world, second, &token, body()).await }
        });
        let (here, there) = tokio::join!(join_all(here), join_all(there));
        assert!(
            here.iter().chain(&there).all(|answer| answer.status == StatusCode::OK),
            "{here:?} {there:?}"
        );
        let (one, two) = (&world.world.cortex.broker, &second.broker);
        let rounds =
            tokio::join!(one.log.round(&one.pool), two.log.round(&two.pool), one.log.round(&one.pool));
        // One may find that the other was quicker at the anchor; none finds a fault.
        for done in [rounds.0, rounds.1, rounds.2] {
            let fault = matches!(done, Err(cortex_server::log::sequencer::RoundError::Fault(_)));
            assert!(!fault, "{done:?}");
        }
        let dave = world.person("dave", &["auditors"]);
        let checkpoint =
            world.http.get(world.url("/v1/log/2026/checkpoint")).bearer_auth(dave).send().await.unwrap();
        if checkpoint.status() == StatusCode::OK {
            older.push(Checkpoint::open_under(&checkpoint.text().await.unwrap(), &key(&world)).unwrap());
        }
    }
    round(&world).await;
    let pool = world.pool();
    let summary =
        cortex_server::store::log::verify(pool, &key(&world), older.clone(), |_, _| {}).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(pool).await.unwrap();
    assert_eq!(summary.leaves, rows.unsigned_abs(), "something that was acknowledged is in no checkpoint");
    assert!(older.windows(2).all(|two| two[0].size <= two[1].size && two[0].time_ms <= two[1].time_ms));
    second.shut_down().await;
}

#[tokio::test]
async fn who_writes_before_the_first_start_names_the_log_for_everybody() {
    let (database_url, folder) = (database().await, tempfile::tempdir().unwrap());
    let key_file = folder.path().join("log.key");
    let database = DatabaseConfig { url: Some(database_url.clone()), ..DatabaseConfig::default() };
    let mut of_operator = Config { database, ..Config::default() };
    of_operator.log.key_file = key_file.clone();
    of_operator.server.public_url = Some("https://cortex.acme.example".to_owned());
    let pool = store::connect(&of_operator.database).await.unwrap();
    let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let stamp = cortex_server::stamp(&of_operator, &pool, "cli".to_owned(), &environment).await.unwrap();
    let source = include_str!("../../../config/guardrails/lifetime.cedar");
    let guardrail = documents::Document {
        kind: documents::Kind::Guardrail,
        name: "lifetime".to_owned(),
        digest: Digest::of(source.as_bytes()),
        source: source.to_owned(),
    };
    let mut connection = pool.acquire().await.unwrap();
    documents::apply(&mut connection, &[guardrail], "operator:erin", &stamp).await.unwrap();
    drop(connection);

    // The server would call it localhost/log.
    let world = TestWorld::start_on(database_url, |config| config.log.key_file = key_file).await;
    issue(&world, "r1").await;
    round(&world).await;
    let origin: String = sqlx::query_scalar("SELECT origin FROM log_shard").fetch_one(&pool).await.unwrap();
    assert_eq!((origin.as_str(), finding(&world).await), ("cortex.acme.example/log/2026", None));
}

#[tokio::test]
async fn a_clock_that_goes_back_changes_neither_the_order_nor_the_time_of_checkpoints() {
    let world = TestWorld::start().await;
    let mut times = Vec::new();
    for step in [0, -600, 300, -60] {
        world.clock.advance(SignedDuration::from_secs(step));
        issue(&world, &format!("r{step}")).await;
        round(&world).await;
        let time: i64 =
            sqlx::query_scalar("SELECT time_ms FROM log_shard").fetch_one(world.pool()).await.unwrap();
        times.push(time);
    }
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(finding(&world).await, None);
}

#[tokio::test]
async fn killed_again_and_again_under_load_nothing_that_was_acknowledged_is_missing() {
    let mut served = Served::new(env!("CARGO_BIN_EXE_cortex-under-test"), |_| {}).await;
    let mut receipts = Vec::new();
    for life in 0..3 {
        served.start().await;
        let tokens: Vec<String> =
            (0..24).map(|n| served.sandbox.run_token(&first_run(&format!("l{life}-{n}"))).unwrap()).collect();
        // The first are answered; then it is killed in the middle of the others.
        let (first, rest) = tokens.split_at(8);
        for token in first {
            let answer = served.ask(token, &["api"]).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            receipts
                .push(answer.body["credentials"]["api"]["receipt"]["leaf_hash"].as_str().unwrap().to_owned());
        }
        let requests: Vec<_> =
            rest.iter().map(|token| tokio::spawn(served.request(token, &["api", "aws"]).send())).collect();
        served.kill().await;
        for request in requests {
            if let Ok(Ok(response)) = request.await
                && response.status() == StatusCode::OK
            {
                let body: serde_json::Value = response.json().await.unwrap_or_default();
                let receipt = &body["credentials"]["api"]["receipt"]["leaf_hash"];
                receipts.extend(receipt.as_str().map(str::to_owned));
            }
        }
    }
    served.start().await;
    served
        .until(
            "everything is in a checkpoint",
            "SELECT NOT EXISTS (SELECT FROM log_chain WHERE sequenced < head) AND
        (SELECT size = published FROM log_shard)",
        )
        .await;
    let verified = served.run(&["log", "verify", "--json"]).await;
    assert_eq!(verified["whole"], true, "{verified}");
    let tiles: Vec<Vec<u8>> = sqlx::query_scalar("SELECT hashes FROM log_tile WHERE level = 0")
        .fetch_all(&served.pool)
        .await
        .unwrap();
    let leaves: Vec<String> = tiles
        .concat()
        .chunks(32)
        .map(|hash| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash))
        .collect();
    let missing: Vec<_> = receipts.iter().filter(|receipt| !leaves.contains(receipt)).collect();
    assert!(missing.is_empty(), "acknowledged and not in the log: {missing:?} of {}", receipts.len());
}
