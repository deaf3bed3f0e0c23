//! Both generations of the Snowflake connector, and the SQL API, with each of the three logins.

use cortex_tests::counterparts::{Answer, python, python_sf4};
use cortex_tests::world::{AheadClock, TestWorld, first_run};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::apply;

#[derive(Debug, Clone, Copy)]
enum Connector {
    Four,
    Five,
}

const BOTH: [Connector; 2] = [Connector::Four, Connector::Five];

/// A policy whose Snowflake target logs in by `method`.
fn policy(method: &str) -> String {
    format!(
        "
name: by-{method}
description: Snowflake by {method}
who:
  airflow: prod
  dags: [hello_cortex]
  tasks: [publish_mart]
what:
  snowflake:
    account: acme-prod
    user: FINANCE_SVC
    role: FINANCE_PUBLISH
    method: {method}
when:
  max_ttl: 30m
"
    )
}

/// The token that a run gets for `method`, once its policy is in force.
async fn credential(world: &TestWorld<AheadClock>, method: &str) -> Value {
    let admin = world.person("bob", &["cortex-admins"]);
    let name = format!("by-{method}");
    let applied = apply(world, &admin, &name, &policy(method)).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    let answer = world.ask(&world.token(&first_run("scheduled__1")), json!({"policy": name})).await;
    let entry = &answer.body["credentials"]["snowflake"];
    assert_eq!(entry["status"], "issued", "{answer:?}");
    entry["credential"].clone()
}

/// Logs in as the credential says, in `role`.
async fn login(
    connector: Connector,
    world: &TestWorld<AheadClock>,
    method: &str,
    credential: &Value,
    role: &str,
) -> Answer {
    let text = |name: &str| credential[name].as_str().unwrap();
    let port = world.world.sandbox.snowflake_url().rsplit(':').next().unwrap();
    let args = [
        ["--method", method],
        ["--account", text("account")],
        ["--user", text("user")],
        ["--role", role],
        ["--host", "localhost"],
        ["--port", port],
        ["--protocol", "http"],
        ["--query", "SELECT CURRENT_USER(), CURRENT_ROLE()"],
    ]
    .concat();
    let env = [("SNOWFLAKE_WIF_ALLOWED_HOST_SUFFIXES", "localhost")];
    match connector {
        Connector::Four => python_sf4("snowflake_login.py", &args, &env, text("token")).await,
        Connector::Five => python("snowflake_login.py", &args, &env, text("token")).await,
    }
}

async fn opens_its_role_and_no_other(method: &str, authenticator: &str, refusal: &str) {
    let world = TestWorld::start_live(|_| {}).await;
    let credential = credential(&world, method).await;
    assert_eq!(credential["authenticator"], authenticator);
    for connector in BOTH {
        let said = login(connector, &world, method, &credential, "FINANCE_PUBLISH").await.succeeded();
        assert_eq!(said["rows"], json!([["FINANCE_SVC", "FINANCE_PUBLISH"]]), "{connector:?}: {said}");
        let said = login(connector, &world, method, &credential, "ACCOUNTADMIN").await.failed();
        assert!(said["message"].as_str().unwrap().contains(refusal), "{connector:?}: {said}");
    }
}

#[tokio::test]
async fn an_oauth_token_opens_its_role_and_no_other() {
    opens_its_role_and_no_other("oauth", "oauth", "390317").await;
}

#[tokio::test]
async fn a_workload_identity_opens_the_users_role_and_no_other() {
    opens_its_role_and_no_other("workload-identity", "WORKLOAD_IDENTITY", "390189").await;
}

#[tokio::test]
async fn an_expired_token_opens_nothing() {
    let world = TestWorld::start_live(|_| {}).await;
    let credential = credential(&world, "oauth").await;
    world.clock.advance(jiff::SignedDuration::from_mins(31));
    for connector in BOTH {
        let said = login(connector, &world, "oauth", &credential, "FINANCE_PUBLISH").await.failed();
        assert!(said["message"].as_str().unwrap().contains("390318"), "{connector:?}: {said}");
    }
}

/// One statement through the SQL API.
async fn statement(world: &TestWorld<AheadClock>, credential: &Value, kind: &str, role: &str) -> Answer {
    let text = |name: &str| credential[name].as_str().unwrap();
    let port = world.world.sandbox.snowflake_url().rsplit(':').next().unwrap();
    let args = [
        ["--method", "sql-api"],
        ["--token-type", kind],
        ["--account", text("account")],
        ["--role", role],
        ["--host", "localhost"],
        ["--port", port],
        ["--protocol", "http"],
        ["--query", "SELECT CURRENT_USER(), CURRENT_ROLE()"],
    ]
    .concat();
    python("snowflake_login.py", &args, &[], text("token")).await
}

#[tokio::test]
async fn the_sql_api_takes_the_key_pair_token_and_the_oauth_token_for_their_role() {
    let world = TestWorld::start_live(|_| {}).await;
    let key_pair = credential(&world, "key-pair").await;
    assert_eq!(key_pair["authenticator"], "SNOWFLAKE_JWT");
    let oauth = credential(&world, "oauth").await;
    for (credential, kind, other) in [(&key_pair, "KEYPAIR_JWT", "OAUTH"), (&oauth, "OAUTH", "KEYPAIR_JWT")] {
        let said = statement(&world, credential, kind, "FINANCE_PUBLISH").await.succeeded();
        assert_eq!(said["rows"], json!([["FINANCE_SVC", "FINANCE_PUBLISH"]]), "{kind}: {said}");
        for (kind, role) in [(kind, "ACCOUNTADMIN"), (other, "FINANCE_PUBLISH")] {
            let said = statement(&world, credential, kind, role).await.failed();
            assert_eq!(said["error"], "PermissionError", "{kind}, {role}: {said}");
        }
    }
}
