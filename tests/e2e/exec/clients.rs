//! The clouds' own clients live on across renewals: each makes one client object, and its requests go on to succeed
//! when the credential that it began with has ended.

use std::path::PathBuf;

use cortex_tests::counterparts::{node_command, python_command, python_sf4_command};
use cortex_tests::world::{AheadClock, TestWorld, first_run};
use jiff::SignedDuration;
use reqwest::StatusCode;

use super::{Desk, Session, text, token_command};
use crate::counterparts::apply;

const RUN: &str = "scheduled__1";

/// A world where every ask mints anew, so that a renewal is seen at once. `behind` is how far its clock is behind the
/// machine's.
async fn world(behind: SignedDuration) -> TestWorld<AheadClock> {
    let clock = AheadClock::default();
    clock.advance(-behind);
    TestWorld::start_live_at(clock, |config| config.leases.renew_below_percent = 100).await
}

/// What a client is tried with.
struct Trial<'a> {
    policy: &'a str,
    target: &'a str,
    ttl: &'a str,
    script: [PathBuf; 2],
    arguments: Vec<&'a str>,
    /// After this the first credential has ended.
    life: SignedDuration,
}

/// Sees the client succeed with three credentials, ends the life of all of them, and sees it succeed once more.
async fn lives_across_renewals(world: &TestWorld<AheadClock>, trial: Trial<'_>) {
    let desk = Desk::new();
    let token_command = token_command(world, &first_run(RUN)).await;
    let server = world.url("");
    let mut arguments = vec!["exec", "--server", &server, "--policy", trial.policy, "--target", trial.target];
    arguments.extend(["--token-command", &token_command, "--ttl", trial.ttl, "--renew-before", "2h", "--"]);
    arguments.extend(trial.script.iter().map(|path| text(path)));
    arguments.extend(trial.arguments);
    let mut session = Session::start(desk.command(&arguments));
    let mut used = Vec::new();
    for _ in 0..3 {
        used.push(session.json("used").await);
    }
    world.clock.advance(trial.life);
    session.say("go on").await;
    used.push(session.json("used").await);
    let status = session.end().await;
    assert!(status.success(), "{}", session.complaints().await);
    desk.is_clean().await;

    let kinds = ["issuance.intent", "issuance.issued"];
    let issued = world.record(&kinds).await.len();
    assert!(issued >= used.len(), "{issued} on record, {used:?}");
}

/// AWS sessions live for 15 minutes at least. By a clock that is 14 minutes behind they end a minute from now for the
/// SDKs, which then ask before each request.
#[tokio::test]
async fn boto3_goes_on_across_renewals() {
    let world = world(SignedDuration::from_mins(14)).await;
    let aws = world.world.sandbox.aws_url().to_owned();
    let trial = Trial {
        policy: "first-steps",
        target: "aws",
        ttl: "15m",
        script: python_command("long_task.py").await,
        arguments: vec![
            "aws",
            "--endpoint",
            &aws,
            "--bucket",
            "finance-mart",
            "--key",
            "hello_cortex/scheduled__1/x",
        ],
        life: SignedDuration::from_mins(16),
    };
    lives_across_renewals(&world, trial).await;
    assert!(world.minted_leases().len() >= 4);
}

#[tokio::test]
async fn the_aws_sdk_for_javascript_goes_on_across_renewals() {
    let world = world(SignedDuration::from_mins(14)).await;
    let aws = world.world.sandbox.aws_url().to_owned();
    let trial = Trial {
        policy: "first-steps",
        target: "aws",
        ttl: "15m",
        script: node_command("long_task.mjs").await,
        arguments: vec![
            "--endpoint",
            &aws,
            "--bucket",
            "finance-mart",
            "--key",
            "hello_cortex/scheduled__1/x",
        ],
        life: SignedDuration::from_mins(16),
    };
    lives_across_renewals(&world, trial).await;
    assert!(world.minted_leases().len() >= 4);
}

/// BigQuery through a service account, whose tokens may live for as short as the policy says: google-auth then asks
/// for a new one before each request.
const BY_SERVICE_ACCOUNT: &str = "
name: short-reports
description: Reports, two minutes at a time
who:
  airflow: prod
  dags: [hello_cortex]
  tasks: [publish_mart]
what:
  bigquery:
    project: acme-finance
    grant: finance-publish
    service_account: finance-publish@acme-finance.iam.gserviceaccount.com
    scopes: [bigquery]
when:
  max_ttl: 2m
";

#[tokio::test]
async fn google_auth_goes_on_across_renewals() {
    let world = world(SignedDuration::ZERO).await;
    let admin = world.person("bob", &["cortex-admins"]);
    let applied = apply(&world, &admin, "short-reports", BY_SERVICE_ACCOUNT).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    let google = world.world.sandbox.google_url().to_owned();
    let query = "SELECT COUNT(*) FROM `acme-finance.mart.daily`";
    let trial = Trial {
        policy: "short-reports",
        target: "bigquery",
        ttl: "2m",
        script: python_command("long_task.py").await,
        arguments: vec!["google", "--endpoint", &google, "--query", query],
        life: SignedDuration::from_secs(125),
    };
    lives_across_renewals(&world, trial).await;
}

async fn snowflake(script: [PathBuf; 2]) {
    let world = world(SignedDuration::ZERO).await;
    let port = world.world.sandbox.snowflake_url().rsplit(':').next().unwrap().to_owned();
    let trial = Trial {
        policy: "first-steps",
        target: "snowflake",
        ttl: "1m",
        script,
        arguments: vec!["snowflake", "--host", "localhost", "--port", &port],
        life: SignedDuration::from_secs(65),
    };
    lives_across_renewals(&world, trial).await;
}

#[tokio::test]
async fn version_five_of_the_snowflake_connector_goes_on_across_renewals() {
    snowflake(python_command("long_task.py").await).await;
}

#[tokio::test]
async fn version_four_of_the_snowflake_connector_goes_on_across_renewals() {
    snowflake(python_sf4_command("long_task.py").await).await;
}
