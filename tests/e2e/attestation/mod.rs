//! Runs that their Airflow does not sign for: claimed by a service and confirmed by the Airflow's API, or vouched
//! for by the cluster that their pod runs in. What each gets, what is on record, and what must bring nothing.

mod claims;
mod pods;

use cortex_cli::world::{AUDIENCE, CLAIMANT};
use cortex_sandbox::{Cloud, Fault, FaultMode, RunClaims, TaskInstance};
use cortex_server::Config;
use cortex_tests::attack::nothing_was_issued;
use cortex_tests::world::{Answer, TestWorld, first_run};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A policy for `hello_cortex` that takes this attestation and no other.
fn policy(attestation: &str) -> String {
    format!(
        "name: by-{attestation}
description: Runs that are proven in this way
who:
  airflow: prod
  dags: [hello_cortex]
  attestation: [{attestation}]
what:
  api: {{audience: https://ledger.acme.example, scopes: [postings:read]}}
  bigquery: {{project: acme-finance, grant: finance-publish}}
when:
  max_ttl: 30m
"
    )
}

/// A world with a policy for each attestation.
async fn open_with(adjust: impl FnOnce(&mut Config) + Send + 'static) -> TestWorld {
    let world = TestWorld::start_with(|config| {
        config.airflows[0].timeout = 2;
        config.clusters[0].timeout = 2;
        adjust(config);
    })
    .await;
    let documents = ["issuer", "kubernetes", "verified-claim"].map(policy);
    let admin = world.person("erin", &["cortex-admins"]);
    let body = json!({"documents": documents});
    let applied = world.as_person(Method::POST, "/v1/policies", &admin, Some(body)).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    world.world.cortex.broker.library.refresh(world.pool()).await.unwrap();
    world
}

async fn open() -> TestWorld {
    open_with(|_| ()).await
}

/// The Airflow runs it, since a minute.
fn running(world: &TestWorld, run: &RunClaims) {
    in_state(world, run, "running");
}

fn in_state(world: &TestWorld, run: &RunClaims, state: &str) {
    let start_date = Some(world.now() - SignedDuration::from_mins(1));
    let instance = TaskInstance { run: run.clone(), state: Some(state.to_owned()), start_date };
    world.world.sandbox.put_task(instance);
}

fn service(world: &TestWorld, sub: &str) -> String {
    world.world.sandbox.service_token(sub).unwrap()
}

/// What a service says of the run that it acts for.
fn words(run: &RunClaims) -> Value {
    json!({
        "dag_id": run.dag_id, "run_id": run.run_id, "task_id": run.task_id,
        "map_index": run.map_index, "try_number": run.try_number,
    })
}

/// Claims `run` as the service that may, for the policy that takes claims.
async fn claim(world: &TestWorld, run: &Value) -> Answer {
    let body = json!({"policy": "by-verified-claim", "run": run});
    world.ask(&service(world, CLAIMANT), body).await
}

fn break_down(world: &TestWorld, cloud: Cloud, mode: FaultMode) {
    world.world.sandbox.fault(cloud, Fault { operation: None, mode, remaining: None });
}

/// The codes of all denials on record.
async fn denied(world: &TestWorld) -> Vec<String> {
    let denials = world.record(&["denial"]).await;
    denials.iter().map(|denial| denial["code"].as_str().unwrap().to_owned()).collect()
}

/// The denial that the caller was told of.
async fn denial_of(world: &TestWorld, answer: &Answer) -> Value {
    let denials = world.record(&["denial"]).await;
    let is_told = |denial: &&Value| denial["decision_id"] == answer.body["decision_id"];
    denials.iter().find(is_told).unwrap_or_else(|| panic!("not on record: {answer:?}")).clone()
}

fn refused_with(answer: &Answer, sentence: &str, what: &str) {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}: {answer:?}");
    assert_eq!(answer.body["error"], "invalid_request", "{what}: {answer:?}");
    assert!(answer.body["decision_id"].is_string(), "{what}: {answer:?}");
    let told = answer.body["error_description"].as_str().unwrap();
    assert!(told.contains(sentence), "{what}: {told}");
}

fn come_back(answer: &Answer, what: &str) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{what}: {answer:?}");
    assert_eq!(answer.body["error"], "temporarily_unavailable", "{what}: {answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{what}: {answer:?}");
}

/// How a witness fails so that nothing can be said of what it knows.
const AWAY: [FaultMode; 7] = [
    FaultMode::Down,
    FaultMode::Reset,
    FaultMode::Throttle,
    FaultMode::Garbage,
    FaultMode::Huge,
    FaultMode::Redirect,
    FaultMode::Delay(60_000),
];
