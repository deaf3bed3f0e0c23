//! More is asked than can be answered: who is turned away, what they are told, and that nobody is lost.

mod accounts;
mod limits;
mod reload;

use std::time::Duration;

use cortex_sandbox::Cloud;
use cortex_tests::promises::kept;
use cortex_tests::world::{Answer, TestWorld, first_run};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// What a caller is told who is turned away: the code, and when to come back.
fn told(answer: &Answer, status: StatusCode, error: &str) -> Duration {
    assert_eq!((answer.status, answer.body["error"].as_str()), (status, Some(error)), "{answer:?}");
    let seconds = answer.headers.get("retry-after").expect("when to come back").to_str().unwrap();
    let seconds: u64 = seconds.parse().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    Duration::from_secs(seconds)
}

/// Asks until it is served, as it is told to, each time with a fresh token. Answers how often it asked.
async fn patiently(world: &TestWorld, run: &str, until: Instant) -> usize {
    for tries in 1.. {
        let token = world.token(&first_run(run));
        let answer = world.ask(&token, json!({"policy": "first-steps"})).await;
        if answer.status == StatusCode::OK {
            let entries = answer.body["credentials"].as_object().unwrap();
            assert!(entries.values().all(|entry| entry["status"] == "issued"), "{answer:?}");
            return tries;
        }
        assert!(
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status),
            "{answer:?}"
        );
        let again = told(&answer, answer.status, answer.body["error"].as_str().unwrap());
        assert!(Instant::now() + again < until, "{run} is not served in time");
        sleep(again).await;
    }
    unreachable!("it tries for ever")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_midnight_everyone_is_served_within_a_minute_and_no_quota_is_exceeded() {
    const RUNS: usize = 200;
    let world = TestWorld::start_with(|config| {
        config.providers.aws.max_calls_per_second = 40;
        config.providers.bigquery.max_calls_per_second = 40;
        config.admission.max_exchanges = 64;
        config.admission.max_waiting = 32;
        config.admission.max_quota_wait_ms = 1_000;
    })
    .await;
    for cloud in [Cloud::Aws, Cloud::Google] {
        world.world.sandbox.set_quota(cloud, 80);
    }
    let until = Instant::now() + Duration::from_mins(1);
    let names: Vec<_> = (0..RUNS).map(|run| format!("midnight-{run}")).collect();
    let tries = join_all(names.iter().map(|run| patiently(&world, run, until))).await;
    assert!(tries.iter().any(|tries| *tries > 1), "nobody was turned away, so nothing was shown");
    for cloud in [Cloud::Aws, Cloud::Google] {
        assert_eq!(world.world.sandbox.beyond_quota(cloud), 0, "{cloud:?}");
    }
    assert_eq!(world.minted_leases().len(), RUNS * 2, "each run's AWS and Google credential, once");
    assert_eq!(kept(&world).await, vec!["issued"; RUNS * 2]);
    assert_eq!(world.record(&["issuance.issued"]).await.len(), RUNS * 2);
}
