//! What operators see of a replica that works: `cortex serve` as a process, so that what it measures is its own.

mod logs;
mod metrics;
mod traces;

use cortex_sandbox::RunClaims;
use cortex_tests::served::Served;
use cortex_tests::world::{Answer, answer, first_run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
const ALL: [&str; 4] = ["api", "aws", "bigquery", "snowflake"];

async fn as_person(served: &Served, groups: &[&str], method: Method, path: &str, body: Value) -> Answer {
    let token = served.sandbox.person_token("someone", groups).unwrap();
    let request = served.http().request(method, format!("{}{path}", served.url)).bearer_auth(token);
    answer(request.json(&body)).await
}

fn token(served: &Served, run: &RunClaims) -> String {
    served.sandbox.run_token(run).unwrap()
}

/// A run gets all of its credentials.
async fn issued(served: &Served, run_id: &str) -> Answer {
    let answer = served.ask(&token(served, &first_run(run_id)), &ALL).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer
}

/// A run that no policy names gets nothing.
async fn denied(served: &Served) -> Answer {
    let run = RunClaims::scheduled("somebody_else", "r1", "publish_mart");
    let answer = served.ask(&token(served, &run), &["api"]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    answer
}

/// A run that a person started waits until another person approves it, and gets its credential.
async fn approved(served: &Served, run_id: &str) {
    let run = RunClaims {
        run_type: Some("manual".into()),
        triggering_user_name: Some("alice".into()),
        ..first_run(run_id)
    };
    let pending = served.ask(&token(served, &run), &["api"]).await;
    let path = format!("/v1/grants/{}", pending.body["grant_id"].as_str().expect("a grant"));
    let approver = ["finance-admins"];
    let grant = as_person(served, &approver, Method::GET, &path, Value::Null).await;
    let word = json!({"request_digest": grant.body["request_digest"]});
    let said = as_person(served, &approver, Method::POST, &format!("{path}/approve"), word).await;
    assert_eq!(said.status, StatusCode::OK, "{said:?}");
    let answer = served.ask(&token(served, &run), &["api"]).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}
