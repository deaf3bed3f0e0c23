//! What would a change of a policy have done? The requests on record, decided again.

mod changes;
mod command_line;
mod same;
mod suggestions;

use cortex_core::Clock;
use cortex_sandbox::RunClaims;
use cortex_tests::world::{Answer, TestWorld, first_run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::grants::{bob_approves, by_hand, pending};

/// The policy that the story is told under: open at every hour, four targets, runs by hand need an approval.
const FIRST_STEPS: &str = include_str!("../../../config/dev/first-steps.yaml");

/// `first-steps`, changed.
fn changed(old: &str, new: &str) -> String {
    let text = FIRST_STEPS.replace(old, new);
    assert_ne!(text, FIRST_STEPS, "{old:?} is in the policy");
    text
}

/// A run that `first-steps` does not name.
fn stranger(run_id: &str) -> RunClaims {
    RunClaims::scheduled("hello_cortex", run_id, "other_task")
}

/// One run that is permitted, one that people approve, and one that is denied: eight issuances and a denial, and the
/// request for the approval.
async fn story(world: &TestWorld) {
    permitted(world, "s1").await;
    let grant = pending(world, &by_hand("m1"), "first-steps").await;
    bob_approves(world, &grant).await;
    let issued = world.ask_for(&by_hand("m1"), "first-steps").await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
    let denied = world.ask_for(&stranger("s2"), "first-steps").await;
    assert_eq!(denied.body["error"], "invalid_target", "{denied:?}");
}

/// A scheduled run gets its four credentials.
async fn permitted<C: Clock + Clone>(world: &TestWorld<C>, run_id: &str) {
    let issued = world.ask_for(&first_run(run_id), "first-steps").await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
}

/// Replays documents as erin, an admin: every line of the answer.
async fn replay(world: &TestWorld, documents: &[&str]) -> Vec<Value> {
    let answer = replay_as(world, "cortex-admins", json!({"documents": documents})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/jsonl");
    lines(&answer)
}

async fn replay_as(world: &TestWorld, group: &str, body: Value) -> Answer {
    let person = world.person("erin", &[group]);
    world.as_person(Method::POST, "/v1/replays", &person, Some(body)).await
}

fn lines(answer: &Answer) -> Vec<Value> {
    match &answer.body {
        Value::String(text) => text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
        one => vec![one.clone()],
    }
}

/// What a replay came to.
async fn result(world: &TestWorld, documents: &[&str]) -> Value {
    let lines = replay(world, documents).await;
    lines.last().expect("a line")["result"].clone()
}

/// How many requests would end differently, by change.
fn counts(result: &Value) -> Value {
    let changed = result["changed"].as_array().expect("changes").iter();
    changed.map(|one| (one["change"].as_str().expect("a change").to_owned(), one["count"].clone())).collect()
}
