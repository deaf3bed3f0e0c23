//! People who are no longer let in, whatever token or session they show.

use cortex_core::IssuerName;
use cortex_core::record::{PersonChange, SessionEnd, What};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Connection as _, PgConnection, PgExecutor};

use super::row::{Stamp, insert};
use super::{StoreError, micros, sessions, timestamp};

/// A person who is not let in.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct DisabledPerson {
    /// The issuer that vouches for them.
    pub issuer: String,
    /// The `sub` that it knows them by.
    pub subject: String,
    /// The admin who disabled them, as principal.
    pub disabled_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub disabled_at: Timestamp,
}

/// Whether this person is disabled. It is asked anew each time, so that it holds on every replica at once.
pub async fn is_disabled(
    executor: impl PgExecutor<'_>,
    issuer: &IssuerName,
    subject: &str,
) -> Result<bool, StoreError> {
    let query =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM disabled_person WHERE issuer = $1 AND subject = $2)");
    Ok(query.bind(issuer.as_str()).bind(subject).fetch_one(executor).await?)
}

/// Disables a person and ends their sessions. Whether they were let in until now.
pub async fn disable(
    connection: &mut PgConnection,
    change: PersonChange,
    stamp: &Stamp,
) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await?;
    let new = sqlx::query(
        "INSERT INTO disabled_person (issuer, subject, disabled_by, disabled_at)
         VALUES ($1, $2, $3, timestamptz 'epoch' + $4 * interval '1 microsecond') ON CONFLICT DO NOTHING",
    )
    .bind(change.issuer.as_str())
    .bind(&change.subject)
    .bind(&change.by)
    .bind(micros(stamp.clock.now()))
    .execute(&mut *tx)
    .await?
    .rows_affected()
        == 1;
    if !new {
        return Ok(false);
    }
    let by = change.by.clone();
    sessions::end_all_of(&mut tx, &change.issuer, &change.subject, SessionEnd::Disabled, &by, stamp).await?;
    note(&mut tx, What::PersonDisabled(change), stamp).await?;
    tx.commit().await?;
    Ok(true)
}

/// Lets a person in again. Whether they were disabled until now.
pub async fn enable(
    connection: &mut PgConnection,
    change: PersonChange,
    stamp: &Stamp,
) -> Result<bool, StoreError> {
    let mut tx = connection.begin().await?;
    let gone = sqlx::query("DELETE FROM disabled_person WHERE issuer = $1 AND subject = $2")
        .bind(change.issuer.as_str())
        .bind(&change.subject)
        .execute(&mut *tx)
        .await?
        .rows_affected()
        == 1;
    if gone {
        note(&mut tx, What::PersonEnabled(change), stamp).await?;
        tx.commit().await?;
    }
    Ok(gone)
}

async fn note(tx: &mut PgConnection, what: What, stamp: &Stamp) -> Result<(), StoreError> {
    let row = stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    insert(tx, &[row], stamp).await?;
    Ok(())
}

/// Everybody who is disabled, the latest first; 1,000 at the most.
pub async fn disabled(executor: impl PgExecutor<'_>) -> Result<Vec<DisabledPerson>, StoreError> {
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT issuer, subject, disabled_by, (extract(epoch FROM disabled_at) * 1000000)::int8
         FROM disabled_person ORDER BY disabled_at DESC LIMIT 1000",
    )
    .fetch_all(executor)
    .await?;
    let person = |(issuer, subject, disabled_by, at)| {
        Ok(DisabledPerson { issuer, subject, disabled_by, disabled_at: timestamp(at)? })
    };
    rows.into_iter().map(person).collect()
}
