//! What somebody outside can check: receipts, proofs, and the whole log with programs that nobody here wrote.

use cortex_log::checkpoint::Checkpoint;
use cortex_log::proof::{ProofFile, verify_inclusion};
use cortex_log::receipt::Receipt;
use cortex_log::seal::{Seal, enrolled};
use cortex_tests::world::{TestWorld, first_run};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{finding, issue, key, round};

async fn proof_of(world: &TestWorld, receipt: &Receipt) -> Option<ProofFile> {
    let Seal { chain, batch, place, .. } = Seal::parse(&receipt.seal).unwrap();
    let path = format!("/v1/log/proof?chain={chain}&batch={batch}&place={place}");
    let dave = world.person("dave", &["auditors"]);
    let answer = world.http.get(world.url(&path)).bearer_auth(dave).send().await.unwrap();
    match answer.status() {
        StatusCode::NOT_FOUND => None,
        StatusCode::OK => Some(answer.text().await.unwrap().parse().unwrap()),
        other => panic!("{other}"),
    }
}

async fn verified(world: &TestWorld, receipt: &Receipt) {
    let proof = proof_of(world, receipt).await.expect("a proof");
    let checkpoint = Checkpoint::open_under(&proof.checkpoint, &key(world)).unwrap();
    verify_inclusion(receipt.leaf_hash, proof.index, checkpoint.size, checkpoint.root, &proof.hashes)
        .unwrap();
}

#[tokio::test]
async fn every_issuance_answers_with_a_receipt_that_becomes_a_proof() {
    let world = TestWorld::start().await;
    let entry = issue(&world, "r1").await;
    let receipt: Receipt = serde_json::from_value(entry["receipt"].clone()).unwrap();
    assert_eq!(receipt.origin, "localhost/log");
    assert_eq!(receipt.merge_by.duration_since(receipt.time), SignedDuration::from_secs(30));
    // The chain's key vouches for it, and the log's key for the chain.
    let seal = Seal::parse(&receipt.seal).unwrap();
    let enrolment: String = sqlx::query_scalar("SELECT enrolment FROM log_chain WHERE id = $1")
        .bind(seal.chain)
        .fetch_one(world.pool())
        .await
        .unwrap();
    receipt.verify(&enrolled(&key(&world), &enrolment).unwrap()).unwrap();
    round(&world).await;
    verified(&world, &receipt).await;

    let token = world.token(&first_run("r2"));
    let exchanged = world.exchange_token(&token, "urn:cortex:first-steps:api").await;
    assert_eq!(exchanged.status, StatusCode::OK, "{exchanged:?}");
    let aws = world.http.get(world.url("/v1/aws/first-steps"));
    let aws =
        aws.header("authorization", world.token(&first_run("r3"))).header("x-forwarded-for", "10.1.2.3");
    let aws = aws.send().await.unwrap();
    assert_eq!(aws.status(), StatusCode::OK);
    let header = aws.headers()["cortex-receipt"].to_str().unwrap().to_owned();
    let header = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, header).unwrap();
    round(&world).await;
    verified(&world, &serde_json::from_value(exchanged.body["receipt"].clone()).unwrap()).await;
    verified(&world, &serde_json::from_slice(&header).unwrap()).await;
}

#[tokio::test]
async fn the_record_of_everything_is_in_the_tree_and_its_columns_say_what_its_leaf_says() {
    let world = TestWorld::start().await;
    for n in 0..40 {
        issue(&world, &format!("r{n}")).await;
    }
    let denied = world.ask(&world.token(&first_run("r1")), json!({"policy": "no-such-policy"})).await;
    assert!(!denied.status.is_success());
    let erin = world.person("erin", &["cortex-admins"]);
    let frozen = json!({"scope": {"kind": "dag", "dag_id": "other"}, "reason": "a test"});
    let answer = world.as_person(Method::POST, "/v1/freezes", &erin, Some(frozen)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    round(&world).await;
    assert_eq!(finding(&world).await, None);
    let (rows, leaves): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM record), (SELECT sum(size)::int8 FROM log_shard)")
            .fetch_one(world.pool())
            .await
            .unwrap();
    assert_eq!(rows, leaves, "something is on record and in no tree");
}

#[tokio::test]
async fn programs_that_nobody_here_wrote_verify_what_is_exported_and_a_new_years_tree_goes_on() {
    let world = TestWorld::start().await;
    for n in 0..300 {
        issue(&world, &format!("r{n}")).await;
    }
    round(&world).await;
    // A Monday at the same hour of the next year.
    let next: Timestamp = "2027-01-04T02:00:00Z".parse().unwrap();
    world.clock.advance(next.duration_since(world.now()));
    round(&world).await;
    for n in 0..5 {
        issue(&world, &format!("n{n}")).await;
    }
    round(&world).await;
    assert_eq!(finding(&world).await, None);
    let folder = tempfile::tempdir().unwrap();
    let shards = cortex_server::log::export(world.pool(), folder.path(), false, |_, _| {}).await.unwrap();
    let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
    assert_eq!(names, ["2026", "2027"]);

    let logcheck =
        std::env::var("CORTEX_TEST_LOGCHECK").expect("tests/counterparts/setup.py says where it is");
    let output =
        Command::new(logcheck).arg(folder.path()).arg(key(&world).to_string()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let leaves: u64 = shards.iter().map(|shard| shard.published).sum();
    assert_eq!((&checked["shards"], &checked["leaves"]), (&json!(2), &json!(leaves)), "{checked}");
    // A second export writes what is new.
    issue(&world, "last").await;
    round(&world).await;
    cortex_server::log::export(world.pool(), folder.path(), false, |_, _| {}).await.unwrap();
}

#[tokio::test]
async fn only_auditors_and_admins_read_the_log() {
    let world = TestWorld::start().await;
    issue(&world, "r1").await;
    round(&world).await;
    let paths = [
        "/v1/log/shards",
        "/v1/log/2026/checkpoint",
        "/v1/log/2026/tile/0/000.p/2",
        "/v1/log/2026/tile/entries/000.p/2",
    ];
    for path in paths {
        for (who, groups, expected) in [("dave", vec!["auditors"], 200), ("nora", vec![], 403)] {
            let answer = world.as_person(Method::GET, path, &world.person(who, &groups), None).await;
            assert_eq!(answer.status.as_u16(), expected, "{who} {path}: {answer:?}");
        }
        assert_eq!(world.http.get(world.url(path)).send().await.unwrap().status(), 401, "{path}");
    }
    let dave = world.person("dave", &["auditors"]);
    for path in [
        "/v1/log/2025/checkpoint",
        "/v1/log/2026/tile/0/999",
        "/v1/log/2026/tile/../shards",
        "/v1/log/2026/tile/9/000",
    ] {
        let answer = world.as_person(Method::GET, path, &dave, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
    }
}
