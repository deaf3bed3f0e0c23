//! Revocations and freezes that come while something is under way.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::Clock;
use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_server::random::SystemRandom;
use cortex_server::{Environment, Running};
use cortex_tests::promises::kept;
use cortex_tests::world::{INSIDE, TestWorld, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{issued, revoke, run, state, work};
use crate::freeze::freeze;

async fn until_minted(world: &TestWorld, count: usize) {
    let until = Instant::now() + Duration::from_mins(1);
    while world.world.sandbox.mints().len() < count {
        assert!(Instant::now() < until, "nothing was minted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks for an AWS session whose answer the cloud keeps back until `during` is over. Answers what the run was told.
async fn while_minting(world: &TestWorld, during: impl Future<Output = ()>) -> (Value, Value) {
    let slow = Fault { operation: None, mode: FaultMode::Delay(1_500), remaining: Some(1) };
    world.world.sandbox.fault(Cloud::Aws, slow);
    let token = world.token(&run("r1"));
    let body = json!({"policy": "first-steps", "targets": ["aws"]});
    let asking = world.ask(&token, body);
    let acting = async {
        let open = "SELECT EXISTS (SELECT FROM open_intent)";
        let until = Instant::now() + Duration::from_mins(1);
        while !sqlx::query_scalar::<_, bool>(open).fetch_one(world.pool()).await.unwrap() {
            assert!(Instant::now() < until, "no intent");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        during.await;
    };
    let (told, ()) = tokio::join!(asking, acting);
    assert_eq!(told.status, StatusCode::BAD_REQUEST, "released after it was barred: {told:?}");
    let outcome = world.record(&["issuance.outcome"]).await.pop().unwrap();
    (told.body, outcome)
}

#[tokio::test]
async fn what_is_minted_while_it_is_revoked_never_leaves_and_is_denied_at_the_cloud() {
    let world = TestWorld::start().await;
    let scope = json!({"kind": "dag", "dag_id": "hello_cortex"});
    let (told, outcome) = while_minting(&world, async {
        let answer = revoke(&world, json!({"scope": scope, "reason": "x"})).await;
        assert_eq!(answer.body["issuances"].as_array().unwrap().len(), 1, "{answer:?}");
    })
    .await;
    assert!(told["error_description"].as_str().unwrap().contains("revoked"), "A67: {told}");
    assert_eq!(outcome["outcome"]["code"], "revoked", "{outcome}");
    assert!(outcome["outcome"]["withheld_until"].is_string(), "{outcome}");
    until_minted(&world, 1).await;
    work(&world).await;
    let seen = state(&world, &outcome["issuance_id"]).await;
    assert_eq!(seen["state"], "enforced", "{seen}");
    assert_eq!(kept(&world).await, ["failed"]);
}

#[tokio::test]
async fn what_is_minted_while_a_freeze_is_set_never_leaves() {
    let world = TestWorld::start().await;
    let (told, outcome) = while_minting(&world, async {
        freeze(&world, json!({"kind": "policy", "policy": "first-steps"})).await;
    })
    .await;
    assert!(told["error_description"].as_str().unwrap().contains("restored"), "{told}");
    assert_eq!(outcome["outcome"]["code"], "frozen", "{outcome}");
    assert_eq!(kept(&world).await, ["failed"]);
}

/// A replica that looks for changes itself once an hour.
async fn second(world: &TestWorld) -> Running {
    let mut config = world.world.config.clone();
    config.server.public_url = Some(world.world.cortex.issuer_url.clone());
    config.database.poll_ms = 3_600_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    cortex_server::start(config, listener, Environment { clock, random: Arc::new(SystemRandom) })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_replica_that_hears_of_no_freeze_releases_nothing_all_the_same() {
    let world = TestWorld::start_with(|config| config.database.poll_ms = 3_600_000).await;
    let second = second(&world).await;
    let ask = |id: &str, target: &'static str| {
        let request = world.http.post(format!("http://{}/v1/credentials", second.address));
        let request = request.bearer_auth(world.token(&run(id))).header("x-forwarded-for", INSIDE);
        answer(request.json(&json!({"policy": "first-steps", "targets": [target]})))
    };
    let held = ask("r1", "aws").await;
    assert_eq!(held.status, StatusCode::OK, "{held:?}");
    let handle = held.body["credentials"]["aws"]["lease_handle"].as_str().unwrap().to_owned();
    // A freeze whose notification is lost: the rows, and nothing else.
    sqlx::raw_sql(
        "INSERT INTO frozen (id, scope, reason, set_by, set_at)
         VALUES (gen_random_uuid(), '{\"kind\": \"everything\"}', 'unheard', 'person:staff:erin', now());
         UPDATE release_epoch SET epoch = epoch + 1",
    )
    .execute(world.pool())
    .await
    .unwrap();
    for target in ["aws", "api"] {
        let told = ask("r2", target).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "I7 {target}: {told:?}");
        assert!(told.body["error_description"].as_str().unwrap().contains("unheard"), "{told:?}");
    }
    let fetch = world.http.get(format!("http://{}/v1/aws/first-steps", second.address));
    let fetched = answer(fetch.header("authorization", handle).header("x-forwarded-for", INSIDE)).await;
    assert_eq!(fetched.status, StatusCode::BAD_REQUEST, "I7 a handle: {fetched:?}");
    let again = ask("r1", "aws").await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "I7 the same ask again: {again:?}");
    assert_eq!(world.world.sandbox.mints().len(), 1);
    second.shut_down().await;
}

#[tokio::test]
async fn a_freeze_in_the_middle_of_a_rush_stops_it_for_good() {
    let world = TestWorld::start().await;
    let asks = (0..60).map(|n| {
        let world = &world;
        async move {
            let token = world.token(&run(&format!("r{n}")));
            world.ask(&token, json!({"policy": "first-steps", "targets": ["api"]})).await.status
        }
    });
    let rush = futures_util::future::join_all(asks);
    let (statuses, set) = tokio::join!(rush, freeze(&world, json!({"kind": "everything"})));
    let set_at = set.body["at"].as_str().unwrap();
    assert!(!set_at.is_empty());
    let released = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    let on_record = world.record(&["issuance.issued"]).await.len();
    assert_eq!(released, on_record, "released and on record differ");
    for n in 60..70 {
        let answer = world.ask_for(&run(&format!("r{n}")), "first-steps").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    }
    assert_eq!(world.record(&["issuance.issued"]).await.len(), on_record, "issued under a freeze");
}

#[tokio::test]
async fn a_replica_that_is_cut_from_the_database_hands_nothing_out() {
    let url = cortex_tests::world::database().await;
    let proxy = cortex_tests::pg_proxy::PgProxy::start(&url);
    let world = TestWorld::start_on(proxy.url.clone(), |_| {}).await;
    let held = issued(&world, &run("r1"), "aws").await;
    let handle = held["lease_handle"].as_str().unwrap().to_owned();
    let fetch = || {
        let request = world.http.get(world.url("/v1/aws/first-steps")).header("authorization", &handle);
        answer(request.header("x-forwarded-for", INSIDE))
    };
    assert_eq!(fetch().await.status, StatusCode::OK);
    proxy.down();
    assert_eq!(
        fetch().await.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "a freeze may be set that it cannot see"
    );
    proxy.up();
    let until = Instant::now() + Duration::from_mins(1);
    while fetch().await.status != StatusCode::OK {
        assert!(Instant::now() < until, "it did not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
