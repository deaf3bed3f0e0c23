//! The database: migrated under a lock, never by an older binary, and append-only for the server.

use cortex_server::config::DatabaseConfig;
use cortex_server::store::{self, StoreError};
use cortex_tests::world::{TestWorld, database, first_run};
use reqwest::StatusCode;
use sqlx::error::DatabaseError;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Duration, Instant};

fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig { url: Some(url.to_owned()), ..DatabaseConfig::default() }
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_binary_is_refused_and_left_alone() {
    let url = database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '\\x00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let refused = store::migrate(&config(&url)).await;
    assert!(matches!(refused, Err(StoreError::Newer(9999))), "{refused:?}");
}

#[tokio::test]
async fn replicas_that_start_at_once_migrate_once() {
    let url = database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&mut connection).await.unwrap();
    let config = config(&url);
    let all = tokio::join!(store::migrate(&config), store::migrate(&config), store::migrate(&config));
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok(), "{all:?}");
}

#[tokio::test]
async fn a_role_that_may_change_the_record_is_refused() {
    let url = database().await;
    let strong = DatabaseConfig { role: "postgres".to_owned(), ..config(&url) };
    let refused = store::connect(&strong).await;
    assert!(matches!(refused, Err(StoreError::RoleTooStrong(_))), "{refused:?}");
}

#[tokio::test]
async fn a_postgres_that_may_lose_what_it_has_committed_is_refused() {
    // The tests' own.
    let pool = store::connect(&config(&database().await)).await.unwrap();
    let refused = store::check_durable(&pool).await;
    assert!(matches!(&refused, Err(StoreError::NotDurable(setting)) if setting == "fsync"), "{refused:?}");
}

#[tokio::test]
async fn a_replica_that_is_lost_within_a_transaction_holds_nobody_up() {
    let url = database().await;
    let world = TestWorld::start_on(url.clone(), |_| {}).await;
    let lost = store::connect(&config(&url)).await.unwrap();
    let mut tx = lost.begin().await.unwrap();
    // Nothing is released by anybody while this lock is held.
    sqlx::query("SELECT close_releases()").execute(&mut *tx).await.unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while world.ask_for(&first_run("scheduled__1"), "first-steps").await.status != StatusCode::OK {
        assert!(Instant::now() < until, "the others still wait for a replica that is gone");
    }
    let more = sqlx::query("SELECT 1").execute(&mut *tx).await;
    assert!(more.is_err(), "its transaction was not ended");
}

#[tokio::test]
async fn the_server_can_append_to_the_record_and_change_nothing_in_it() {
    let world = TestWorld::start().await;
    world.ask_for(&first_run("scheduled__1"), "first-steps").await;
    let before = world.record(&["issuance.intent", "issuance.outcome", "issuance.issued"]).await;
    assert!(!before.is_empty());
    for attempt in [
        "UPDATE record SET outcome = 'failed'",
        "DELETE FROM record",
        "TRUNCATE record",
        "UPDATE document SET source = 'x'",
        "DELETE FROM grant_decision",
        "DROP TABLE record",
        "ALTER TABLE record DISABLE TRIGGER ALL",
    ] {
        let refused = sqlx::query(attempt).execute(world.pool()).await;
        let code =
            refused.as_ref().err().and_then(sqlx::Error::as_database_error).and_then(DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{attempt}: {refused:?}");
    }
    assert_eq!(world.record(&["issuance.intent", "issuance.outcome", "issuance.issued"]).await, before);
}

#[tokio::test]
async fn even_the_owner_of_the_tables_is_stopped_by_the_trigger() {
    let world = TestWorld::start().await;
    world.ask_for(&first_run("scheduled__1"), "first-steps").await;
    let mut owner = PgConnection::connect(&world.world.database_url).await.unwrap();
    for attempt in ["UPDATE record SET outcome = 'failed'", "DELETE FROM record", "TRUNCATE record"] {
        let refused = sqlx::query(attempt).execute(&mut owner).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("append-only")), "{attempt}");
    }
}

#[tokio::test]
async fn a_key_that_was_planted_in_the_database_is_not_published() {
    let world = TestWorld::start().await;
    let mut owner = PgConnection::connect(&world.world.database_url).await.unwrap();
    let stolen = "INSERT INTO signing_key (kid, algorithm, sealed, created_at, active_from)
                  SELECT 'planted', algorithm, sealed, created_at, created_at - interval '1 day' FROM signing_key";
    sqlx::query(stolen).execute(&mut owner).await.unwrap();
    world.world.cortex.broker.keyring.refresh(world.pool()).await.unwrap();
    let jwks = world.http.get(world.url("/jwks")).send().await.unwrap().text().await.unwrap();
    assert!(jwks.contains("x5c") && !jwks.contains("planted"), "{jwks}");
}
