//! Every fault does what it says, and the ledger tells what was minted all the same.

use cortex_sandbox::{Cloud, Fault, FaultMode, Sandbox, SandboxConfig, SandboxError};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{World, element};

fn once(mode: FaultMode) -> Fault {
    Fault { operation: None, mode, remaining: Some(1) }
}

impl World {
    /// One `AssumeRoleWithWebIdentity`, which may get no answer.
    async fn try_aws(&self) -> Result<(StatusCode, String), reqwest::Error> {
        let token = self.aws_token(&json!({}));
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", crate::world::ROLE),
            ("RoleSessionName", "r1"),
            ("WebIdentityToken", &token),
        ];
        let response = self.http.post(self.sandbox.aws_url()).form(&form).send().await?;
        Ok((response.status(), response.text().await?))
    }
}

#[tokio::test]
async fn a_fault_strikes_once_and_the_next_call_is_well() {
    let world = World::start().await;
    for (mode, minted) in
        [(FaultMode::Reset, false), (FaultMode::FailAfterMint, true), (FaultMode::HangAfterMint, true)]
    {
        let before = world.sandbox.mints().len();
        world.sandbox.fault(Cloud::Aws, once(mode));
        if mode == FaultMode::HangAfterMint {
            // It never answers: what can be waited for is the mint.
            let call = world.try_aws();
            let minted = async {
                while world.sandbox.mints().len() == before {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! { answer = call => panic!("{answer:?}"), () = minted => {} }
        } else {
            assert!(world.try_aws().await.is_err(), "{mode:?}");
        }
        let mints = world.sandbox.mints();
        assert_eq!(mints.len() - before, usize::from(minted), "{mode:?}");
        assert!(mints[before..].iter().all(|mint| !mint.delivered), "{mode:?}");
        assert_eq!(world.try_aws().await.unwrap().0, StatusCode::OK);
        assert!(world.sandbox.mints().last().unwrap().delivered);
    }
}

#[tokio::test]
async fn a_cloud_that_is_busy_or_down_mints_nothing() {
    let world = World::start().await;
    world.sandbox.fault(Cloud::Aws, once(FaultMode::Throttle));
    let (status, body) = world.try_aws().await.unwrap();
    assert_eq!((status, element(&body, "Code")), (StatusCode::BAD_REQUEST, "Throttling"));
    world.sandbox.fault(Cloud::Aws, once(FaultMode::Down));
    assert_eq!(world.try_aws().await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.sandbox.mints(), []);
    world.sandbox.fault(Cloud::Aws, once(FaultMode::Delay(1)));
    assert_eq!(world.try_aws().await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_can_say_another_thing_than_what_was_minted() {
    let world = World::start().await;
    let (_, good) = world.try_aws().await.unwrap();
    let expires_at = world.sandbox.mints()[0].expires_at;
    for (mode, name, expected) in [
        (FaultMode::LongerExpiry, "Expiration", "2026-11-22T14:00:00Z"),
        (FaultMode::OtherArn, "Arn", "arn:aws:sts::123456789012:assumed-role/other-role/r1"),
        (FaultMode::OtherAccount, "Arn", "arn:aws:sts::999999999999:assumed-role/finance-publish/r1"),
        (FaultMode::MissingToken, "SessionToken", ""),
        (FaultMode::Garbage, "Arn", ""),
    ] {
        world.sandbox.fault(Cloud::Aws, once(mode));
        let (status, body) = world.try_aws().await.unwrap();
        assert_eq!((status, element(&body, name)), (StatusCode::OK, expected), "{mode:?}");
        assert_ne!(element(&good, name), expected);
        let mint = world.sandbox.mints().pop().unwrap();
        assert_eq!(mint.expires_at, expires_at);
        let lost = matches!(mode, FaultMode::MissingToken | FaultMode::Garbage);
        assert_eq!(mint.delivered, !lost, "{mode:?}");
    }
}

#[tokio::test]
async fn faults_and_mints_are_there_for_other_processes() {
    let world = World::start().await;
    for url in [world.sandbox.aws_url(), world.sandbox.google_url(), world.sandbox.snowflake_url()] {
        let fault = json!({"mode": "down"});
        let armed = world.http.post(format!("{url}/_sandbox/fault")).json(&fault).send().await.unwrap();
        assert_eq!(armed.status(), StatusCode::NO_CONTENT);
        assert_eq!(world.http.post(url).send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        world.http.delete(format!("{url}/_sandbox/fault")).send().await.unwrap();
        assert_ne!(world.http.post(url).send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    world.try_aws().await.unwrap();
    let url = format!("{}/_sandbox/mints", world.sandbox.google_url());
    let mints: Value = world.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!((&mints[0]["cloud"], &mints[0]["delivered"]), (&json!("aws"), &json!(true)));
}

#[tokio::test]
async fn cleared_faults_are_gone() {
    let world = World::start().await;
    world.sandbox.fault(Cloud::Aws, Fault { operation: None, mode: FaultMode::Down, remaining: None });
    world.sandbox.clear_faults();
    assert_eq!(world.try_aws().await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn the_sandbox_trusts_nobody_outside_this_machine() {
    for issuer in ["https://cortex.example", "http://10.0.0.1:8080", "http://127.0.0.1.evil.test", "cortex"] {
        let clock = std::sync::Arc::new(cortex_core::clock::SystemClock);
        let started = Sandbox::start(SandboxConfig::demo(issuer.to_owned(), clock)).await;
        assert!(matches!(started, Err(SandboxError::NotLoopback(_))), "{issuer}");
    }
}
