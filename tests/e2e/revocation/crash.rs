//! `cortex serve` killed with SIGKILL after IAM has written and before that is on record: whoever comes next finishes.

use std::time::Duration;

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_tests::promises::leaves;
use cortex_tests::s3::put;
use cortex_tests::served::Served;
use cortex_tests::world::{answer, first_run};
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");

#[tokio::test]
async fn killed_between_the_call_and_the_record_the_revocation_is_finished_by_the_next() {
    let mut served = Served::new(PROGRAM, |config| {
        config.providers.aws.calls.timeout = SignedDuration::from_secs(5);
        config.providers.aws.calls.attempt_timeout = SignedDuration::from_secs(30);
        config.providers.bigquery.calls.timeout = SignedDuration::from_secs(5);
        config.revocation.claim_s = 16;
    })
    .await;
    served.start().await;
    let token = served.sandbox.run_token(&first_run("r1")).unwrap();
    let issued = served.ask(&token, &["aws"]).await;
    let entry = issued.body["credentials"]["aws"].clone();
    let works = async || put(served.http(), &served.sandbox, SystemClock.now(), "r1", &entry).await.0;
    assert_eq!(works().await, StatusCode::OK);
    let operation = Some("PutRolePolicy".to_owned());
    served.sandbox.fault(Cloud::Aws, Fault { operation, mode: FaultMode::HangAfterMint, remaining: None });
    let admin = served.sandbox.person_token("erin", &["cortex-admins"]).unwrap();
    let revoke = served.http().post(format!("{}/v1/revocations", served.url)).bearer_auth(admin);
    let body = json!({"issuance_id": entry["issuance_id"], "reason": "it leaked"});
    let begun = answer(revoke.json(&body)).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{begun:?}");
    let until = Instant::now() + Duration::from_mins(1);
    while works().await != StatusCode::FORBIDDEN {
        assert!(Instant::now() < until, "IAM never wrote: {}", served.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    served.kill().await;
    let pending = "SELECT EXISTS (SELECT FROM revoked_lease WHERE state = 'pending')";
    served.until("the pending state", pending).await;
    assert!(leaves(&served.pool, "revocation.settled").await.is_empty(), "on record without confirmation");
    served.sandbox.clear_faults();
    served.start().await;
    let enforced = "SELECT EXISTS (SELECT FROM revoked_lease WHERE state = 'enforced')";
    served.until("the confirmation", enforced).await;
    assert_eq!(leaves(&served.pool, "revocation.settled").await.len(), 1);
    let works = put(served.http(), &served.sandbox, SystemClock.now(), "r1", &entry).await.0;
    assert_eq!(works, StatusCode::FORBIDDEN);
}
