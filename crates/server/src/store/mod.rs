//! All SQL. Free functions over a connection where one statement does, and [`Recorder`] where writes of many
//! requests share a commit.

pub mod barrier;
mod commit;
pub mod documents;
mod draft;
pub mod erasure;
pub mod freezes;
pub mod grants;
pub mod holds;
pub mod issuances;
pub mod keys;
pub mod log;
pub(crate) mod measures;
pub mod notifications;
mod pen;
pub mod people;
pub mod personal;
pub mod questions;
mod recorder;
pub mod replay;
pub(crate) mod reports;
pub mod revocations;
mod row;
pub mod sessions;
pub mod streams;
pub mod timeline;

use std::str::FromStr as _;
use std::time::Duration;

use cortex_core::policy::Problem;
use jiff::Timestamp;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};
use tokio::time::Instant;

use crate::config::DatabaseConfig;

pub use recorder::{
    Admission, Admitted, Committed, OpenIntent, RecordError, Recorder, RecorderOptions, Ticket,
};
pub use row::{Author, Stamp};

/// The migrations, embedded.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// How long a start waits for its first connection, whatever a request's patience is.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long Postgres waits for the next statement of a transaction before it ends the connection: what a replica that was
/// stopped or cut off has locked is free again for the others. Nothing that Cortex does in between takes a second.
const IDLE_WITHIN: &str = "5s";

/// How long a connection may have been idle without being asked whether it is alive.
const IDLE_UNCHECKED: Duration = Duration::from_secs(1);

/// The channel on which a change of policies, keys, freezes or revocations is announced.
pub const CHANGES: &str = "cortex_changes";

/// Why the database cannot be used; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No database is configured.
    #[error("no database: set DATABASE_URL or database.url, or run `cortex dev` for a private one")]
    NoDatabase,
    /// The URL cannot be read.
    #[error("database.url cannot be read: {0}")]
    BadUrl(String),
    /// The schema is newer than this binary.
    #[error(
        "the database's schema (migration {0}) is newer than this cortex: run the newer version, or restore \
         the backup from before the upgrade; nothing was changed"
    )]
    Newer(i64),
    /// A migration was changed after it was applied.
    #[error("the database's migration {0} is not the one that this cortex carries; nothing was changed")]
    Changed(i64),
    /// A migration failed.
    #[error("migrating failed and was rolled back: {0}")]
    Migrate(MigrateError),
    /// The server's role may change the record.
    #[error(
        "the database role {0:?} may change or delete rows of the record: grant it only what the migrations \
         grant to cortex_server, or set database.role to cortex_server"
    )]
    RoleTooStrong(String),
    /// Postgres may lose what it has committed.
    #[error(
        "Postgres may lose what it has committed: {0} is off. Turn it on; Cortex hands nothing out that it cannot keep on \
         record (database.require_durable)"
    )]
    NotDurable(String),
    /// Guardrails that do not go together, such as two rules of one `@id`.
    #[error("the guardrails do not go together, so nothing was changed: {}", faults(.0))]
    Guardrails(Vec<Problem>),
    /// Postgres failed or is away.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Postgres knows no such time zone.
    #[error("the database does not know this time zone")]
    UnknownTimezone,
    /// Records were dropped from the database.
    #[error(
        "records from {first} of {origin} on are in the archive {archive} and no longer in the database: copy that archive there \
         first, or give `cortex-verify` a copy of it with --archive"
    )]
    Archived {
        /// The archive.
        archive: String,
        /// The tree.
        origin: String,
        /// The first leaf that was asked for.
        first: u64,
    },
    /// A row does not read as what it should be.
    #[error("the database holds what this cortex cannot read: {0}")]
    Corrupt(String),
}

fn faults(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn options(config: &DatabaseConfig) -> Result<PgConnectOptions, StoreError> {
    let url = config.url.as_deref().ok_or(StoreError::NoDatabase)?;
    let options = PgConnectOptions::from_str(url).map_err(|e| StoreError::BadUrl(e.to_string()))?;
    Ok(options.application_name("cortex"))
}

/// Brings the schema up to this binary's, under a lock, as the URL's own role.
pub async fn migrate(config: &DatabaseConfig) -> Result<(), StoreError> {
    let mut connection = PgConnection::connect_with(&options(config)?).await?;
    let done = MIGRATIONS.run(&mut connection).await;
    connection.close().await?;
    done.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            StoreError::Newer(version)
        }
        MigrateError::VersionMismatch(version) => StoreError::Changed(version),
        other => StoreError::Migrate(other),
    })
}

/// Opens the server's pool, in the role that can only append, and checks that it is no stronger.
pub async fn connect(config: &DatabaseConfig) -> Result<PgPool, StoreError> {
    let options = options(config)?
        .options([("role", config.role.as_str()), ("idle_in_transaction_session_timeout", IDLE_WITHIN)]);
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_millis(config.acquire_timeout_ms.max(50)))
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                // One that was used just now is alive, or its loss is noticed when it is used.
                if meta.idle_for > IDLE_UNCHECKED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options);
    let mut connection = first_connection(&pool).await?;
    let strong: bool = sqlx::query_scalar(
        "SELECT has_table_privilege('record', 'UPDATE') OR has_table_privilege('record', 'DELETE')
             OR has_table_privilege('record', 'TRUNCATE')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if strong { Err(StoreError::RoleTooStrong(config.role.clone())) } else { Ok(pool) }
}

/// Connects as the URL's own role, which owns the tables: for what the server's role may not do.
pub async fn connect_as_owner(config: &DatabaseConfig) -> Result<PgConnection, StoreError> {
    Ok(PgConnection::connect_with(&options(config)?).await?)
}

/// Refuses a Postgres that may lose what it has committed, and warns of one that loses it with its disk.
pub async fn check_durable(pool: &PgPool) -> Result<(), StoreError> {
    let settings: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, setting FROM pg_settings
         WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'synchronous_standby_names') ORDER BY name",
    )
    .fetch_all(pool)
    .await?;
    if let Some((name, _)) = settings.iter().find(|(_, setting)| setting == "off") {
        return Err(StoreError::NotDurable(name.clone()));
    }
    if settings.iter().any(|(name, setting)| name == "synchronous_standby_names" && setting.is_empty()) {
        tracing::warn!("Postgres has no synchronous standby: what was committed last is lost with its disk");
    }
    Ok(())
}

/// Opens the pool's first connection. A start may wait longer for it than a request does.
async fn first_connection(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    let until = Instant::now() + START_PATIENCE;
    loop {
        match pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) if Instant::now() < until => {}
            other => return other,
        }
    }
}

/// Microseconds since 1970, the resolution of `timestamptz`.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

pub(crate) fn timestamp(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|e| StoreError::Corrupt(e.to_string()))
}

/// What the database's clock says.
pub async fn clock(pool: &PgPool) -> Result<Timestamp, StoreError> {
    let micros = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8");
    timestamp(micros.fetch_one(pool).await?)
}

/// Wakes every replica that listens: something in `what` changed.
pub(crate) async fn announce(connection: &mut PgConnection, what: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANGES).bind(what).execute(connection).await.map(drop)
}
