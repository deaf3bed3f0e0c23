//! Limits by run, policy and replica; and identical asks, which are one.

use std::time::Duration;

use cortex_core::Clock as _;
use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_server::supervisor;
use cortex_tests::promises::kept;
use cortex_tests::world::{TestWorld, answer, finance_run, first_run};
use futures_util::future::join_all;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::told;

async fn ask(world: &TestWorld, run: &str, targets: &[&str]) -> cortex_tests::world::Answer {
    let token = world.token(&first_run(run));
    world.ask(&token, json!({"policy": "first-steps", "targets": targets})).await
}

fn delay(milliseconds: u64) -> Fault {
    Fault { operation: None, mode: FaultMode::Delay(milliseconds), remaining: None }
}

/// Waits until an exchange is under way at AWS.
async fn under_way(world: &TestWorld) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while world.record(&["issuance.intent"]).await.is_empty() {
        assert!(Instant::now() < deadline, "nothing is under way");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_run_that_asks_too_often_is_told_when_to_come_back_and_the_others_notice_nothing() {
    let world = TestWorld::start_with(|config| {
        (config.admission.run_per_second, config.admission.run_burst) = (1, 2);
    })
    .await;
    for _ in 0..2 {
        assert_eq!(ask(&world, "busy", &["api"]).await.status, StatusCode::OK);
    }
    let again = told(&ask(&world, "busy", &["api"]).await, StatusCode::TOO_MANY_REQUESTS, "slow_down");
    assert_eq!(ask(&world, "calm", &["api"]).await.status, StatusCode::OK);
    supervisor::flush(&world.world.cortex.broker).await;
    let counted = world.record(&["denials"]).await;
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert_eq!(
        (&counted[0]["reason"], &counted[0]["dag"], &counted[0]["count"]),
        (&json!("limit_run"), &json!("prod/hello_cortex"), &json!(1))
    );
    sleep(again).await;
    assert_eq!(ask(&world, "busy", &["api"]).await.status, StatusCode::OK, "it came when it was told to");
}

#[tokio::test]
async fn a_token_is_not_spent_by_being_turned_away() {
    let world = TestWorld::start_with(|config| {
        (config.admission.policy_per_second, config.admission.policy_burst) = (1, 1);
    })
    .await;
    assert_eq!(ask(&world, "first", &["api"]).await.status, StatusCode::OK);
    let token = world.token(&first_run("second"));
    let body = json!({"policy": "first-steps", "targets": ["api"]});
    let again = told(&world.ask(&token, body.clone()).await, StatusCode::TOO_MANY_REQUESTS, "slow_down");
    let other = world.token(&finance_run("other"));
    let unnamed = world.ask(&other, body.clone()).await;
    assert_eq!(unnamed.body["error"], "invalid_target", "whom the policy does not name is not counted");
    sleep(again).await;
    assert_eq!(world.ask(&token, body).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_run_has_so_many_credentials_that_live() {
    let world = TestWorld::start_with(|config| config.admission.run_active_leases = 2).await;
    assert_eq!(ask(&world, "r", &["api", "snowflake"]).await.status, StatusCode::OK);
    told(&ask(&world, "r", &["aws"]).await, StatusCode::TOO_MANY_REQUESTS, "slow_down");
    assert_eq!(ask(&world, "r", &["api", "snowflake"]).await.status, StatusCode::OK, "these it has already");
    assert_eq!(ask(&world, "other", &["aws"]).await.status, StatusCode::OK);
    world.clock.advance(SignedDuration::from_hours(13));
    assert_eq!(ask(&world, "r", &["aws"]).await.status, StatusCode::OK, "{}", world.clock.now());
}

#[tokio::test]
async fn what_a_full_replica_cannot_answer_is_turned_away_at_once() {
    let world = TestWorld::start_with(|config| {
        (config.admission.max_exchanges, config.admission.max_waiting) = (1, 0);
    })
    .await;
    world.world.sandbox.fault(Cloud::Aws, delay(1_500));
    let (first, ()) = tokio::join!(ask(&world, "first", &["aws"]), async {
        under_way(&world).await;
        let begun = Instant::now();
        let second = ask(&world, "second", &["api"]).await;
        told(&second, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        assert!(begun.elapsed() < Duration::from_secs(1), "it is said before anything is slow");
    });
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    assert_eq!(ask(&world, "second", &["api"]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_full_replica_still_says_how_it_is_and_shows_its_keys() {
    let world = TestWorld::start_with(|config| config.admission.max_requests = 1).await;
    world.world.sandbox.fault(Cloud::Aws, delay(1_500));
    let (first, ()) = tokio::join!(ask(&world, "first", &["aws"]), async {
        under_way(&world).await;
        let refused = answer(world.http.get(world.url("/openapi.json"))).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
        assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
        for path in ["/healthz", "/readyz", "/metrics", "/jwks", "/.well-known/openid-configuration"] {
            assert_eq!(answer(world.http.get(world.url(path))).await.status, StatusCode::OK, "{path}");
        }
    });
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
}

#[tokio::test]
async fn who_waits_for_a_place_gets_it() {
    let world = TestWorld::start_with(|config| {
        (config.admission.max_exchanges, config.admission.max_wait_ms) = (2, 30_000);
    })
    .await;
    world.world.sandbox.fault(Cloud::Aws, delay(50));
    let names: Vec<_> = (0..12).map(|run| format!("r{run}")).collect();
    for answer in join_all(names.iter().map(|run| ask(&world, run, &["aws"]))).await {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
}

#[tokio::test]
async fn identical_asks_in_flight_share_one_mint() {
    let world = TestWorld::start().await;
    world.world.sandbox.fault(Cloud::Aws, delay(500));
    let answers = join_all((0..8).map(|_| ask(&world, "same", &["aws", "api"]))).await;
    let keys: Vec<_> =
        answers.iter().map(|answer| &answer.body["credentials"]["aws"]["issuance_id"]).collect();
    assert!(keys.iter().all(|key| key.is_string() && *key == keys[0]), "{answers:?}");
    assert_eq!(world.minted_leases().len(), 1);
    assert_eq!(world.record(&["issuance.issued"]).await.len(), 1, "and one of what Cortex signs itself");
    assert_eq!(kept(&world).await, ["issued"]);
}

#[tokio::test]
async fn who_waited_for_a_mint_that_failed_tries_for_itself() {
    let world = TestWorld::start().await;
    // One mint and its two retries.
    let down = Fault { operation: None, mode: FaultMode::Down, remaining: Some(3) };
    world.world.sandbox.fault(Cloud::Aws, down);
    let (one, two) = tokio::join!(ask(&world, "same", &["aws"]), ask(&world, "same", &["aws"]));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE], "{one:?} {two:?}");
    let mut ended = kept(&world).await;
    ended.sort_unstable();
    assert_eq!(ended, ["failed", "issued"]);
}
