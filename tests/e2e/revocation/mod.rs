//! Credentials that worked and are revoked: each is refused as and when Cortex says, or said not to be revocable.

mod aws;
mod crash;
mod google;
mod many;
mod races;
pub(crate) mod selectors;

use std::time::Duration;

use cortex_core::Clock;
use cortex_sandbox::RunClaims;
use cortex_server::revoking;
use cortex_server::store::StoreError;
use cortex_tests::world::{Answer, TestWorld, first_run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::Instant;

/// Asks for a revocation, as an admin.
async fn revoke<C: Clock + Clone>(world: &TestWorld<C>, body: Value) -> Answer {
    let admin = world.person("erin", &["cortex-admins"]);
    world.as_person(Method::POST, "/v1/revocations", &admin, Some(body)).await
}

/// Revokes one issuance. Answers how the revocation begins.
async fn revoke_issuance<C: Clock + Clone>(world: &TestWorld<C>, id: &Value) -> Value {
    let answer = revoke(world, json!({"issuance_id": id, "reason": "it leaked"})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(answer.body["complete"], true, "{answer:?}");
    answer.body
}

/// How far the revocation of an issuance has come, as an auditor sees it.
async fn state<C: Clock + Clone>(world: &TestWorld<C>, id: &Value) -> Value {
    let auditor = world.person("ann", &["auditors"]);
    let path = format!("/v1/issuances/{}", id.as_str().expect("an id"));
    let answer = world.as_person(Method::GET, &path, &auditor, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["revocation"].clone()
}

/// Lets a worker do what is due. On a machine that is busy it may find no connection free, and comes again.
async fn work<C: Clock + Clone>(world: &TestWorld<C>) {
    match revoking::work(&world.world.cortex.broker).await {
        Ok(()) | Err(StoreError::Database(sqlx::Error::PoolTimedOut)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Waits until nothing has to be denied at any cloud; a worker of the replica may be at it already.
async fn until_nothing_is_denied<C: Clock + Clone>(world: &TestWorld<C>) {
    let until = Instant::now() + Duration::from_mins(1);
    let pool = PgPool::connect(&world.world.database_url).await.expect("the database");
    let left = async || {
        let left = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM revocation_target");
        left.fetch_one(&pool).await.expect("a count")
    };
    while left().await > 0 {
        assert!(Instant::now() < until, "something is denied that has expired");
        work(world).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a run got: its entry for `target` of `first-steps`.
async fn issued<C: Clock + Clone>(world: &TestWorld<C>, run: &RunClaims, target: &str) -> Value {
    let answer = world.ask(&world.token(run), json!({"policy": "first-steps", "targets": [target]})).await;
    let entry = answer.body["credentials"][target].clone();
    assert_eq!(entry["status"], "issued", "{answer:?}");
    entry
}

/// The run that the examples are about.
fn run(id: &str) -> RunClaims {
    first_run(id)
}
