//! What holds for all requests: the documents that are in force change nothing.

use cortex_sandbox::RunClaims;
use cortex_tests::world::{TestWorld, answer};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::result;
use crate::grants::bob_approves;

const POLICIES: [&str; 3] = [
    include_str!("../../../config/dev/first-steps.yaml"),
    include_str!("../../../config/policies/finance-data-publish.yaml"),
    include_str!("../../../config/policies/ledger-api-read.yaml"),
];

/// One request, at some hour, from somewhere, for something.
#[derive(Debug, Clone)]
struct Ask {
    policy: usize,
    dag: usize,
    task: usize,
    run_type: usize,
    targets: Option<Vec<&'static str>>,
    ttl: Option<u16>,
    break_glass: bool,
    inside: bool,
    approve: bool,
    wait_minutes: u16,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let targets = proptest::sample::subsequence(vec!["api", "aws", "bigquery", "snowflake", "unknown"], 1..4);
    let run = (0..3_usize, 0..3_usize, 0..3_usize, 0..4_usize);
    let how = (proptest::option::of(targets), proptest::option::of(60..9_000_u16));
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.8), any::<bool>(), 0..300_u16);
    let ask = (run, how, flags).prop_map(|((policy, dag, task, run_type), (targets, ttl), flags)| {
        let (break_glass, inside, approve, wait_minutes) = flags;
        Ask { policy, dag, task, run_type, targets, ttl, break_glass, inside, approve, wait_minutes }
    });
    proptest::collection::vec(ask, 20..40)
}

async fn tell(asks: Vec<Ask>) {
    let world = TestWorld::start().await;
    for (number, ask) in asks.into_iter().enumerate() {
        world.clock.advance(SignedDuration::from_mins(ask.wait_minutes.into()));
        let run = RunClaims {
            run_type: [Some("scheduled"), Some("manual"), Some("backfill"), None][ask.run_type]
                .map(str::to_owned),
            ..RunClaims::scheduled(
                ["hello_cortex", "finance_publish", "ledger_export"][ask.dag],
                &format!("r{number}"),
                ["publish_mart", "other", "read_postings"][ask.task],
            )
        };
        let policy = ["first-steps", "finance-data-publish", "ledger-api-read"][ask.policy];
        let body = json!({
            "policy": policy, "targets": ask.targets, "ttl_seconds": ask.ttl, "break_glass": ask.break_glass,
            "reason": "because",
        });
        let send = async || {
            let source = if ask.inside { "10.20.1.2" } else { "192.0.2.1" };
            let request = world.http.post(world.url("/v1/credentials")).bearer_auth(world.token(&run));
            answer(request.header("x-forwarded-for", source).json(&body)).await
        };
        let first = send().await;
        assert!(!first.status.is_server_error(), "{first:?}");
        if let (Some(grant), true, false) = (first.body["grant_id"].as_str(), ask.approve, ask.break_glass) {
            bob_approves(&world, grant).await;
            send().await;
        }
    }
    let same = result(&world, &POLICIES).await;
    assert_eq!((&same["changed"], &same["would_deny"]), (&json!([]), &json!(0)), "{same:#}");
    assert!(same["unchanged"].as_u64() > Some(10), "{same:#}");
}

#[test]
fn the_documents_in_force_change_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 4, failure_persistence: None, max_shrink_iters: 8, ..Config::default() };
    let ran = TestRunner::new(config).run(&asks(), |asks| {
        runtime.block_on(tell(asks));
        Ok(())
    });
    ran.unwrap();
}
