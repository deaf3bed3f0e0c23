//! Federated tokens of Google: a deny policy on the project, at Google's pace.

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_tests::world::{TestWorld, answer};
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{issued, revoke_issuance, run, state, until_nothing_is_denied, work};

/// What Google answers to a query, and to a row, under a run's token.
async fn used(world: &TestWorld, entry: &Value) -> [StatusCode; 2] {
    let token = entry["credential"]["token"].as_str().unwrap();
    let project = format!("{}/bigquery/v2/projects/acme-finance", world.world.sandbox.google_url());
    let query = world.http.post(format!("{project}/queries")).bearer_auth(token);
    let query = answer(query.json(&json!({"query": "SELECT 1"}))).await;
    let insert =
        world.http.post(format!("{project}/datasets/mart/tables/daily/insertAll")).bearer_auth(token);
    let insert = answer(insert.json(&json!({"rows": [{"json": {}}]}))).await;
    [query.status, insert.status]
}

async fn until_enforced(world: &TestWorld, id: &Value) -> Value {
    for _ in 0..8 {
        work(world).await;
        let seen = state(world, id).await;
        if seen["state"] == "enforced" {
            return seen;
        }
        world.clock.advance(SignedDuration::from_secs(61));
    }
    panic!("never enforced: {}", state(world, id).await);
}

#[tokio::test]
async fn a_token_is_denied_once_googles_operation_is_done_and_its_neighbour_goes_on() {
    let world = TestWorld::start().await;
    let (leaked, other) =
        (issued(&world, &run("r1"), "bigquery").await, issued(&world, &run("r2"), "bigquery").await);
    assert_eq!(used(&world, &leaked).await, [StatusCode::OK; 2]);
    for mode in [FaultMode::Down, FaultMode::Throttle, FaultMode::FailAfterMint] {
        let operation = Some("denypolicies".to_owned());
        world.world.sandbox.fault(Cloud::Google, Fault { operation, mode, remaining: Some(1) });
    }
    let begun = revoke_issuance(&world, &leaked["issuance_id"]).await;
    assert_eq!(begun["issuances"][0]["state"], "pending", "{begun}");
    assert_eq!(begun["issuances"][0]["target"], "projects/acme-finance", "{begun}");
    let seen = until_enforced(&world, &leaked["issuance_id"]).await;
    assert_eq!(used(&world, &leaked).await, [StatusCode::FORBIDDEN; 2]);
    assert_eq!(used(&world, &other).await, [StatusCode::OK; 2], "a neighbour was denied");
    assert!(seen["evidence"]["delay"].as_str().unwrap().contains("two minutes"), "{seen}");
}

#[tokio::test]
async fn several_revocations_within_googles_pace_are_one_write_and_none_is_undone() {
    let world = TestWorld::start().await;
    let mut leases = Vec::new();
    for n in 0..4 {
        leases.push(issued(&world, &run(&format!("r{n}")), "bigquery").await);
    }
    revoke_issuance(&world, &leases[0]["issuance_id"]).await;
    until_enforced(&world, &leases[0]["issuance_id"]).await;
    for lease in &leases[1..3] {
        revoke_issuance(&world, &lease["issuance_id"]).await;
    }
    work(&world).await;
    for lease in &leases[1..3] {
        assert_eq!(state(&world, &lease["issuance_id"]).await["state"], "pending", "within fifteen seconds");
    }
    world.clock.advance(SignedDuration::from_secs(15));
    for lease in &leases[1..3] {
        until_enforced(&world, &lease["issuance_id"]).await;
    }
    for (n, lease) in leases.iter().enumerate() {
        let expected = if n < 3 { StatusCode::FORBIDDEN } else { StatusCode::OK };
        assert_eq!(used(&world, lease).await, [expected; 2], "lease {n}");
    }
    world.clock.advance(SignedDuration::from_mins(40));
    until_nothing_is_denied(&world).await;
}
