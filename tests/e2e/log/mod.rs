//! The issuance log: complete, and verifiable by whoever has its key.

mod anchor;
mod archive;
mod erasure;
mod faults;
mod nemesis;
mod outside;
mod recovery;
mod replicas;
mod witness;

use cortex_log::note::Verifier;
use cortex_server::store::log::{VerifyError, verify};
use cortex_tests::world::{TestWorld, first_run};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

/// The log's key.
fn key(world: &TestWorld) -> Verifier {
    world.world.cortex.broker.recorder.stamp().chains.verifier()
}

/// Brings the log up to date.
async fn round(world: &TestWorld) {
    let broker = &world.world.cortex.broker;
    broker.log.round(&broker.pool).await.unwrap();
}

/// Issues something, and answers its entry.
async fn issue(world: &TestWorld, run: &str) -> Value {
    let answer =
        world.ask(&world.token(&first_run(run)), json!({"policy": "first-steps", "targets": ["api"]})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["credentials"]["api"].clone()
}

/// As the database's administrator, whom no trigger stops.
async fn administrator(world: &TestWorld) -> PgConnection {
    let url = world.world.config.database.url.as_deref().unwrap();
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query("SET session_replication_role = replica").execute(&mut connection).await.unwrap();
    connection
}

/// What is wrong with the log, in words.
async fn finding(world: &TestWorld) -> Option<String> {
    let pool = &world.world.cortex.broker.pool;
    match verify(pool, &key(world), Vec::new(), |_, _| {}).await {
        Ok(_) => None,
        Err(VerifyError::Found(finding)) => Some(finding.to_string()),
        Err(VerifyError::Store(error)) => panic!("{error}"),
    }
}
