//! Cortex against software that nobody here wrote: a certified `OpenID` Provider, the clouds' own clients, moto
//! and schemathesis. They read the machine's clock, so these worlds run on it.

mod api;
mod aws;
mod bigquery;
mod moto;
mod openid;
mod relay;
mod snowflake;

use std::time::Duration;

use cortex_core::Clock;
use cortex_tests::world::{Answer, TestWorld};
use reqwest::{Method, StatusCode};
use serde_json::json;

/// Applies a policy over REST and waits until the replica decides by it.
pub(crate) async fn apply<C: Clock + Clone>(
    world: &TestWorld<C>,
    admin: &str,
    name: &str,
    policy: &str,
) -> Answer {
    let body = json!({"documents": [policy]});
    let applied = world.as_person(Method::POST, "/v1/policies", admin, Some(body)).await;
    if applied.status != StatusCode::OK {
        return applied;
    }
    let path = format!("/v1/policies/{name}/explain");
    let in_force = async {
        while world.as_person(Method::GET, &path, admin, None).await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), in_force).await.expect("the policy comes into force");
    applied
}
