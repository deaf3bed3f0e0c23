//! Cloud accounts: their quotas, and what happens when one does not answer.

use std::time::Duration;

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_server::supervisor;
use cortex_tests::promises::kept;
use cortex_tests::world::{TestWorld, first_run};
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::told;

/// A world in which an AWS account is left alone for two seconds after three failures.
async fn brittle() -> TestWorld {
    TestWorld::start_with(|config| {
        let aws = &mut config.providers.aws;
        aws.calls.retries = 0;
        (aws.breaker.failures, aws.breaker.open_for) = (3, SignedDuration::from_secs(2));
    })
    .await
}

#[tokio::test]
async fn an_account_that_does_not_answer_is_left_alone_and_tried_again() {
    let world = brittle().await;
    let only_aws = || json!({"policy": "first-steps", "targets": ["aws"]});
    world.world.sandbox.fault(Cloud::Aws, Fault { operation: None, mode: FaultMode::Down, remaining: None });
    for round in 0..3 {
        let answer = world.ask(&world.token(&first_run(&format!("r{round}"))), only_aws()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    }
    let intents = world.record(&["issuance.intent"]).await.len();
    assert_eq!(intents, 3);

    let token = world.token(&first_run("later"));
    let begun = Instant::now();
    told(&world.ask(&token, only_aws()).await, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    assert!(begun.elapsed() < Duration::from_secs(1), "it fails at once");
    assert_eq!(world.record(&["issuance.intent"]).await.len(), intents, "what is not called has no intent");

    let both = json!({"policy": "first-steps", "targets": ["aws", "bigquery", "api"]});
    let answer = world.ask(&world.token(&first_run("both")), both).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let credentials = &answer.body["credentials"];
    assert_eq!(credentials["aws"]["error"], "temporarily_unavailable", "{answer:?}");
    assert_eq!(
        (&credentials["bigquery"]["status"], &credentials["api"]["status"]),
        (&json!("issued"), &json!("issued"))
    );

    supervisor::flush(&world.world.cortex.broker).await;
    let counted = world.record(&["denials"]).await;
    let away = counted.iter().find(|leaf| leaf["reason"] == "provider_away").expect("on record");
    assert_eq!((&away["dag"], &away["count"]), (&json!("prod/hello_cortex"), &json!(2)));

    world.world.sandbox.clear_faults();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        // The same token: being turned away did not spend it.
        let answer = world.ask(&token, only_aws()).await;
        if answer.status == StatusCode::OK {
            break;
        }
        let again = told(&answer, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        assert!(Instant::now() < deadline, "it is never tried again");
        sleep(again).await;
    }
    let answer = world.ask(&world.token(&first_run("after")), only_aws()).await;
    assert_eq!(answer.status, StatusCode::OK, "one that answers is enough: {answer:?}");
    let mut ended = kept(&world).await;
    ended.sort_unstable();
    assert_eq!(ended, ["failed", "failed", "failed", "issued", "issued", "issued"]);
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_shuts_no_door() {
    let world = brittle().await;
    world
        .world
        .sandbox
        .fault(Cloud::Aws, Fault { operation: None, mode: FaultMode::OtherArn, remaining: None });
    for round in 0..6 {
        let token = world.token(&first_run(&format!("r{round}")));
        let answer = world.ask(&token, json!({"policy": "first-steps", "targets": ["aws"]})).await;
        assert_eq!(answer.body["error"], "server_error", "{answer:?}");
    }
    assert_eq!(world.minted_leases().len(), 6, "each was asked for");
}

#[tokio::test]
async fn more_than_an_accounts_quota_is_turned_away_whole_and_costs_nothing() {
    let world = TestWorld::start_with(|config| {
        config.providers.aws.max_calls_per_second = 2;
        config.admission.max_quota_wait_ms = 0;
    })
    .await;
    world.world.sandbox.set_quota(Cloud::Aws, 3);
    let body = || json!({"policy": "first-steps"});
    assert_eq!(world.ask(&world.token(&first_run("one")), body()).await.status, StatusCode::OK);
    let token = world.token(&first_run("two"));
    let answer = world.ask(&token, body()).await;
    let again = told(&answer, StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    assert_eq!(world.record(&["issuance.issued"]).await.len(), 2, "nothing of the second was issued");
    sleep(again).await;
    let answer = world.ask(&token, body()).await;
    assert_eq!(answer.status, StatusCode::OK, "its token was not spent: {answer:?}");
    assert_eq!(world.world.sandbox.beyond_quota(Cloud::Aws), 0);
    kept(&world).await;
}
