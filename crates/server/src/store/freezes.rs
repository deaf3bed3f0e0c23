//! Freezes: set and lifted between two releases, never during one.

use cortex_core::record::What;
use cortex_core::{Freeze, FreezeId, Scope};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::row::{Stamp, insert};
use super::{StoreError, announce, micros, timestamp};

/// How many freezes may be in force at once: every replica keeps them in memory.
pub const MAX_IN_FORCE: i64 = 10_000;
/// What a change of the barrier announces.
const ANNOUNCED: &str = "barrier";

/// Why a freeze was not set or lifted.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// There is no such freeze.
    #[error("there is no such freeze")]
    NotFound,
    /// It was lifted before.
    #[error("the freeze was lifted before")]
    Lifted,
    /// Too many are in force.
    #[error("{MAX_IN_FORCE} freezes are in force; lift some, or freeze a wider scope")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for FreezeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What is to be stopped.
#[derive(Debug, Clone)]
pub struct NewFreeze {
    /// What.
    pub scope: Scope,
    /// Why.
    pub reason: String,
    /// Who wants it, as a principal.
    pub by: String,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// A freeze and what became of it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct StoredFreeze {
    /// The freeze.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub freeze: Freeze,
    /// Whether it is in force.
    pub in_force: bool,
    /// When it was lifted.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifted_at: Option<Timestamp>,
    /// Who lifted it, as a principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifted_by: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(super) struct FreezeRow {
    id: Uuid,
    scope: Json<Scope>,
    reason: String,
    set_by: String,
    set_at: i64,
    until: Option<i64>,
    lifted_at: Option<i64>,
    lifted_by: Option<String>,
}

/// The columns of a [`FreezeRow`].
macro_rules! select_freeze {
    ($rest:literal) => {
        concat!(
            "SELECT id, scope, reason, set_by, (extract(epoch FROM set_at) * 1000000)::int8 AS set_at,
                    (extract(epoch FROM until) * 1000000)::int8 AS until,
                    (extract(epoch FROM lifted_at) * 1000000)::int8 AS lifted_at, lifted_by
             FROM frozen ",
            $rest
        )
    };
}

impl FreezeRow {
    fn read(self, now: Timestamp) -> Result<StoredFreeze, StoreError> {
        let Self { id, scope, reason, set_by, set_at, until, lifted_at, lifted_by } = self;
        let freeze = Freeze {
            id: id.into(),
            scope: scope.0,
            reason,
            by: set_by,
            at: timestamp(set_at)?,
            until: until.map(timestamp).transpose()?,
        };
        let in_force = lifted_at.is_none() && freeze.holds_at(now);
        Ok(StoredFreeze { freeze, in_force, lifted_at: lifted_at.map(timestamp).transpose()?, lifted_by })
    }
}

/// Closes the door to all releases until `tx` has ended, for seconds at the most.
pub(super) async fn close_releases(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Should this replica lose its way in between, nobody else waits for it.
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '2s'").execute(&mut *tx).await?;
    sqlx::query("SELECT close_releases()").execute(tx).await.map(drop)
}

/// Begins a new epoch: whatever was decided before has to be decided again before it is released.
pub(super) async fn next_epoch(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE release_epoch SET epoch = epoch + 1").execute(&mut *tx).await?;
    announce(tx, ANNOUNCED).await
}

/// Sets a freeze. When this returns, nothing within its scope is released any more.
pub async fn set(
    connection: &mut PgConnection,
    new: NewFreeze,
    stamp: &Stamp,
) -> Result<StoredFreeze, FreezeError> {
    let mut tx = connection.begin().await?;
    close_releases(&mut tx).await?;
    let freeze = add(&mut tx, new, stamp).await?;
    next_epoch(&mut tx).await?;
    tx.commit().await?;
    Ok(StoredFreeze { freeze, in_force: true, lifted_at: None, lifted_by: None })
}

/// The same within a transaction that closes releases and begins an epoch itself.
pub(super) async fn add(tx: &mut PgConnection, new: NewFreeze, stamp: &Stamp) -> Result<Freeze, FreezeError> {
    let at = stamp.clock.now();
    let in_force: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM frozen WHERE lifted_at IS NULL
             AND (until IS NULL OR until > timestamptz 'epoch' + $1 * interval '1 microsecond')",
    )
    .bind(micros(at))
    .fetch_one(&mut *tx)
    .await?;
    if in_force >= MAX_IN_FORCE {
        return Err(FreezeError::TooMany);
    }
    let NewFreeze { scope, reason, by, until } = new;
    let freeze = Freeze { id: FreezeId::new(at, stamp.random.id_bits()), scope, reason, by, at, until };
    sqlx::query(
        "INSERT INTO frozen (id, scope, reason, set_by, set_at, until)
         VALUES ($1, $2, $3, $4, timestamptz 'epoch' + $5 * interval '1 microsecond',
                 timestamptz 'epoch' + $6 * interval '1 microsecond')",
    )
    .bind(freeze.id.uuid())
    .bind(Json(&freeze.scope))
    .bind(&freeze.reason)
    .bind(&freeze.by)
    .bind(micros(at))
    .bind(freeze.until.map(micros))
    .execute(&mut *tx)
    .await?;
    let Freeze { id: freeze_id, scope, reason, by, at: _, until } = freeze.clone();
    let what = What::FreezeSet { freeze_id, scope, reason, by, until };
    let row = stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    insert(tx, &[row], stamp).await?;
    Ok(freeze)
}

/// Lifts a freeze.
pub async fn lift(
    connection: &mut PgConnection,
    id: FreezeId,
    by: &str,
    stamp: &Stamp,
) -> Result<StoredFreeze, FreezeError> {
    let now = stamp.clock.now();
    let mut tx = connection.begin().await?;
    let row: Option<FreezeRow> = sqlx::query_as(select_freeze!("WHERE id = $1 FOR UPDATE"))
        .bind(id.uuid())
        .fetch_optional(&mut *tx)
        .await?;
    let found = row.ok_or(FreezeError::NotFound)?.read(now)?;
    if found.lifted_at.is_some() {
        return Err(FreezeError::Lifted);
    }
    sqlx::query(
        "UPDATE frozen SET lifted_at = timestamptz 'epoch' + $2 * interval '1 microsecond', lifted_by = $3
         WHERE id = $1",
    )
    .bind(id.uuid())
    .bind(micros(now))
    .bind(by)
    .execute(&mut *tx)
    .await?;
    let what = What::FreezeLifted { freeze_id: id, scope: found.freeze.scope.clone(), by: by.to_owned() };
    insert(&mut tx, &[stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?], stamp).await?;
    next_epoch(&mut tx).await?;
    tx.commit().await?;
    Ok(StoredFreeze { in_force: false, lifted_at: Some(now), lifted_by: Some(by.to_owned()), ..found })
}

/// Freezes, newest first, before `before`; only those in force, if so asked.
pub async fn list(
    pool: &PgPool,
    in_force_only: bool,
    before: Option<FreezeId>,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<StoredFreeze>, StoreError> {
    let rows: Vec<FreezeRow> = sqlx::query_as(select_freeze!(
        "WHERE (NOT $1 OR (lifted_at IS NULL
                           AND (until IS NULL OR until > timestamptz 'epoch' + $2 * interval '1 microsecond')))
           AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4"
    ))
    .bind(in_force_only)
    .bind(micros(now))
    .bind(before.map(FreezeId::uuid))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(|row| row.read(now)).collect()
}

/// One freeze.
pub async fn get(pool: &PgPool, id: FreezeId, now: Timestamp) -> Result<Option<StoredFreeze>, StoreError> {
    let row: Option<FreezeRow> =
        sqlx::query_as(select_freeze!("WHERE id = $1")).bind(id.uuid()).fetch_optional(pool).await?;
    row.map(|row| row.read(now)).transpose()
}

/// The number of the epoch now.
pub async fn epoch(executor: impl PgExecutor<'_>) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT epoch FROM release_epoch").fetch_one(executor).await?)
}
