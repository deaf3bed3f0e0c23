//! Cortex's signing keys at rest, sealed. What is published is derived from what was opened, never read here.

use cortex_core::jwt::SigningAlgorithm;
use cortex_core::record::{KeyChange, What};
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection, PgExecutor};

use super::row::{Stamp, insert};
use super::{StoreError, announce, micros, timestamp};

/// One key, as stored.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// Its id: the JWK thumbprint.
    pub kid: String,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// The private half, sealed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it begins to sign.
    pub active_from: Timestamp,
    /// When it was taken out of the key set.
    pub retired_at: Option<Timestamp>,
}

// One lock for all changes of keys, so that two replicas that start at once make one key.
const KEY_LOCK: i64 = 0x636f_7274_6578_0002;

/// Every key that is published, newest first.
pub async fn published(executor: impl PgExecutor<'_>) -> Result<Vec<KeyRow>, StoreError> {
    keys(executor, false).await
}

/// Every key there ever was, newest first.
pub async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<KeyRow>, StoreError> {
    keys(executor, true).await
}

async fn keys(executor: impl PgExecutor<'_>, retired_too: bool) -> Result<Vec<KeyRow>, StoreError> {
    type Raw = (String, String, Vec<u8>, i64, i64, Option<i64>);
    let rows: Vec<Raw> = sqlx::query_as(
        "SELECT kid, algorithm, sealed, (extract(epoch FROM created_at) * 1000000)::int8,
                (extract(epoch FROM active_from) * 1000000)::int8,
                (extract(epoch FROM retired_at) * 1000000)::int8
         FROM signing_key WHERE $1 OR retired_at IS NULL ORDER BY active_from DESC, kid",
    )
    .bind(retired_too)
    .fetch_all(executor)
    .await?;
    rows.into_iter()
        .map(|(kid, algorithm, sealed, created_at, active_from, retired_at)| {
            let algorithm = SigningAlgorithm::from_name(&algorithm)
                .ok_or_else(|| StoreError::Corrupt(format!("the key {kid} is for {algorithm:?}")))?;
            Ok(KeyRow {
                kid,
                algorithm,
                sealed,
                created_at: timestamp(created_at)?,
                active_from: timestamp(active_from)?,
                retired_at: retired_at.map(timestamp).transpose()?,
            })
        })
        .collect()
}

/// Stores a new key, unless `only_first` and there is one for its algorithm already. Answers whether it was stored.
pub async fn add(
    connection: &mut PgConnection,
    key: &KeyRow,
    only_first: bool,
    by: &str,
    stamp: &Stamp,
) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await?;
    lock(&mut tx).await?;
    let any: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM signing_key WHERE retired_at IS NULL AND algorithm = $1)",
    )
    .bind(key.algorithm.name())
    .fetch_one(&mut *tx)
    .await?;
    if any && only_first {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO signing_key (kid, sealed, created_at, active_from, algorithm)
         VALUES ($1, $2, timestamptz 'epoch' + $3 * interval '1 microsecond',
                 timestamptz 'epoch' + $4 * interval '1 microsecond', $5)",
    )
    .bind(&key.kid)
    .bind(&key.sealed)
    .bind(micros(key.created_at))
    .bind(micros(key.active_from))
    .bind(key.algorithm.name())
    .execute(&mut *tx)
    .await?;
    let change = KeyChange { kid: key.kid.clone(), active_from: key.active_from, by: by.to_owned() };
    let what = if any { What::KeyRotated(change) } else { What::KeyCreated(change) };
    note(&mut tx, what, stamp).await?;
    tx.commit().await?;
    Ok(true)
}

/// Takes a key out of the key set. Answers whether it was in it.
pub async fn retire(
    connection: &mut PgConnection,
    key: &KeyRow,
    by: &str,
    stamp: &Stamp,
) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await?;
    lock(&mut tx).await?;
    let done = sqlx::query(
        "UPDATE signing_key SET retired_at = timestamptz 'epoch' + $2 * interval '1 microsecond'
         WHERE kid = $1 AND retired_at IS NULL",
    )
    .bind(&key.kid)
    .bind(micros(stamp.clock.now()))
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if done == 0 {
        return Ok(false);
    }
    let change = KeyChange { kid: key.kid.clone(), active_from: key.active_from, by: by.to_owned() };
    note(&mut tx, What::KeyRetired(change), stamp).await?;
    tx.commit().await?;
    Ok(true)
}

async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(KEY_LOCK).execute(tx).await.map(drop)
}

async fn note(tx: &mut PgConnection, what: What, stamp: &Stamp) -> Result<(), StoreError> {
    let row = stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    insert(tx, &[row], stamp).await?;
    announce(tx, "keys").await?;
    Ok(())
}
