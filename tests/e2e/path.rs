//! The path itself: a run's identity in, scoped credentials out, each on record.

use cortex_tests::world::{TestWorld, finance_run, first_run};
use reqwest::{Method, StatusCode};
use serde_json::json;

#[tokio::test]
async fn a_scheduled_run_gets_all_of_its_policys_credentials_in_one_call() {
    let world = TestWorld::start().await;
    let answer = world.ask_for(&first_run("scheduled__1"), "first-steps").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    for provider in ["api", "aws", "bigquery", "snowflake"] {
        let one = &answer.body["credentials"][provider];
        assert_eq!(one["status"], "issued", "{provider}: {one}");
        assert!(one["lease_handle"].as_str().is_some_and(|handle| handle.starts_with("cortex_lease_")));
    }
    assert_eq!(world.minted_leases().len(), 2, "AWS and Google were asked for one lease each");
    assert_eq!(world.record(&["issuance.intent"]).await.len(), 2);
    assert_eq!(world.record(&["issuance.outcome"]).await.len(), 2);
    assert_eq!(world.record(&["issuance.issued"]).await.len(), 2);
}

#[tokio::test]
async fn the_nightly_publish_of_the_finance_mart_is_issued_and_found_by_an_auditor() {
    let world = TestWorld::start().await;
    let answer = world.ask_for(&finance_run("scheduled__1"), "finance-data-publish").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let auditor = world.person("dave", &["auditors"]);
    let path = "/v1/issuances?dag_id=finance_publish&outcome=issued";
    let page = world.as_person(Method::GET, path, &auditor, None).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert_eq!(page.body["issuances"].as_array().map(Vec::len), Some(3), "{page:?}");
}

#[tokio::test]
async fn a_single_use_token_is_spent_by_its_first_exchange() {
    let world = TestWorld::start().await;
    let token = world.token(&first_run("scheduled__1"));
    let first = world.exchange_token(&token, "urn:cortex:first-steps:api").await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    let second = world.exchange_token(&token, "urn:cortex:first-steps:api").await;
    assert_eq!(second.status, StatusCode::BAD_REQUEST);
    assert_eq!(second.body["error"], "invalid_request");
    let denials = world.record(&["denial"]).await;
    assert_eq!(denials.len(), 1);
    assert_eq!(denials[0]["code"], "replay");
}

#[tokio::test]
async fn a_lease_handle_fetches_the_same_credential_until_it_ends() {
    let world = TestWorld::start().await;
    let answer =
        world.ask(&world.token(&first_run("r1")), json!({"policy": "first-steps", "targets": ["aws"]})).await;
    let entry = &answer.body["credentials"]["aws"];
    let handle = entry["lease_handle"].as_str().unwrap();
    let again = world.http.get(world.url("/v1/aws/first-steps")).header("authorization", handle);
    let again = cortex_tests::world::answer(again).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(again.body["AccessKeyId"], entry["credential"]["access_key_id"]);
    assert_eq!(world.minted_leases().len(), 1);
    world.clock.advance(jiff::SignedDuration::from_mins(31));
    let over = world.http.get(world.url("/v1/aws/first-steps")).header("authorization", handle);
    assert_eq!(cortex_tests::world::answer(over).await.status, StatusCode::BAD_REQUEST);
}
