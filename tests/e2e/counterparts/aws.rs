//! boto3 and the AWS SDK for JavaScript, with nothing but the container protocol's two variables.

use cortex_tests::counterparts::{Answer, node, python};
use cortex_tests::world::{AheadClock, TestWorld, first_run};
use serde_json::{Value, json};

use super::relay::Relay;

const RUN: &str = "scheduled__1";
const INSIDE: &str = "hello_cortex/scheduled__1/out.csv";
const OUTSIDE: &str = "hello_cortex/scheduled__2/out.csv";

/// The SDK of one language, asked to say who it is, to write and read inside the scope, and to write outside.
#[derive(Debug, Clone, Copy)]
enum Sdk {
    Python,
    JavaScript,
}

impl Sdk {
    async fn run(self, world: &TestWorld<AheadClock>, credentials_url: &str, token: &str) -> Answer {
        let aws = world.world.sandbox.aws_url();
        let args = [
            ["--sts-endpoint", aws],
            ["--s3-endpoint", aws],
            ["--bucket", "finance-mart"],
            ["--key", INSIDE],
            ["--body", "42"],
            ["--read-key", INSIDE],
            ["--denied-key", OUTSIDE],
        ]
        .concat();
        let env = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials_url),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token),
        ];
        match self {
            Self::Python => python("aws_container.py", &args, &env, "").await,
            Self::JavaScript => node("aws_container.mjs", &args, &env, "").await,
        }
    }
}

/// The lease of one AWS session, of its shortest life if `ttl` says so.
async fn lease(world: &TestWorld<AheadClock>, ttl: Option<u32>) -> Value {
    let body = json!({"policy": "first-steps", "targets": ["aws"], "ttl_seconds": ttl});
    let answer = world.ask(&world.token(&first_run(RUN)), body).await;
    let entry = answer.body["credentials"]["aws"].clone();
    assert_eq!(entry["status"], "issued", "{answer:?}");
    entry
}

fn worked(said: &Value) {
    assert_eq!(said["account"], "123456789012", "{said}");
    let arn = said["arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:sts::123456789012:assumed-role/finance-publish/hello_cortex"), "{arn}");
    assert_eq!(said["read"], "42", "{said}");
    assert_eq!(said["denied"], "AccessDenied", "{said}");
}

#[tokio::test]
async fn each_sdk_works_inside_the_runs_scope_and_not_outside_with_a_lease_handle() {
    let world = TestWorld::start_live(|_| {}).await;
    let lease = lease(&world, None).await;
    let handle = lease["lease_handle"].as_str().unwrap();
    for sdk in [Sdk::Python, Sdk::JavaScript] {
        let said = sdk.run(&world, &world.url("/v1/aws/first-steps"), handle).await.succeeded();
        worked(&said);
        assert_eq!(said["access_key_id"], lease["credential"]["access_key_id"], "{sdk:?}");
    }
    assert_eq!(world.minted_leases().len(), 1, "both had the same session");
}

#[tokio::test]
async fn boto3_works_with_the_runs_own_token() {
    let world = TestWorld::start_live(|_| {}).await;
    let token = world.token(&first_run(RUN));
    let said = Sdk::Python.run(&world, &world.url("/v1/aws/first-steps"), &token).await.succeeded();
    worked(&said);
    assert_eq!(said["method"], "container-role");
    assert_eq!(world.minted_leases().len(), 1);
}

#[tokio::test]
async fn what_cortex_refuses_reaches_the_sdks_user() {
    let world = TestWorld::start_live(|_| {}).await;
    for sdk in [Sdk::Python, Sdk::JavaScript] {
        let url = world.url("/v1/aws/first-steps");
        let said = sdk.run(&world, &url, "cortex_lease_of_nobody").await.failed();
        assert!(said["message"].as_str().unwrap().contains("lease"), "{sdk:?}: {said}");
    }
    assert!(world.minted_leases().is_empty());
}

#[tokio::test]
async fn boto3_asks_again_for_a_short_lease_and_gets_the_same_session() {
    let world = TestWorld::start_live(|_| {}).await;
    let lease = lease(&world, Some(900)).await;
    let relay = Relay::start(world.url("")).await;
    let handle = lease["lease_handle"].as_str().unwrap();
    let url = format!("{}/v1/aws/first-steps", relay.url);
    let said = Sdk::Python.run(&world, &url, handle).await.succeeded();
    worked(&said);
    assert_eq!(said["access_key_id"], lease["credential"]["access_key_id"]);
    // boto3 wants fifteen minutes to be left before each request that it signs.
    assert!(relay.seen().len() >= 4, "{} requests", relay.seen().len());
    assert_eq!(world.minted_leases().len(), 1);
}
