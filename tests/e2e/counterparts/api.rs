//! schemathesis, which asks the API everything that its own description allows, and more.

use cortex_tests::counterparts::python;
use cortex_tests::world::{TestWorld, first_run};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn the_api_is_what_its_description_says_and_never_fails() {
    let world = TestWorld::start_live(|_| {}).await;
    let everybody = world.person("bob", &["cortex-admins", "finance-admins", "auditors"]);
    let url = world.url("/openapi.json");
    // A run's request that cannot be granted answers 400 (RFC 6749, section 5.2), and a document that does not
    // compile 422: no schema says which requests and documents those are.
    let args = [&*url, "--exclude-check", "positive_data_acceptance"];
    let said = python("api_fuzz.py", &args, &[], &everybody).await.succeeded();
    assert!(said["test_cases"]["generated"].as_u64().is_some_and(|cases| cases > 500), "{said}");
}

#[tokio::test]
async fn a_nul_that_postgres_cannot_hold_is_the_callers_fault() {
    let world = TestWorld::start_live(|_| {}).await;
    let everybody = world.person("bob", &["cortex-admins", "finance-admins"]);
    let run = world.token(&first_run("scheduled__1"));
    let guardrail = json!([{"name": "production", "source": "// \0"}]);
    let approval = "/v1/grants/01a203e2-2585-73aa-8302-cdb528aa4636/approve";
    for (path, token, body, status) in [
        ("/v1/credentials", &run, json!({"policy": "first-steps", "reason": "\0"}), 400),
        ("/v1/guardrails", &everybody, guardrail, 422),
        (approval, &everybody, json!({"comment": "\0"}), 400),
    ] {
        let answer = world.as_person(Method::POST, path, token, Some(body)).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
    }
}
