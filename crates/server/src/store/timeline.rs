//! The record read along time: everything about one DAG run, and how much of what happened when.

use cortex_core::RecordId;
use cortex_core::record::Entry;
use jiff::Timestamp;
use sqlx::PgPool;
use uuid::Uuid;

use super::{StoreError, personal};

/// Everything on record about one DAG run, oldest first: what its tasks asked for, what became of it, and what people
/// said to it.
pub async fn of_run(
    pool: &PgPool,
    issuer: &str,
    dag_id: &str,
    run_id: &str,
    limit: i64,
) -> Result<Vec<Entry>, StoreError> {
    let leaves: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "WITH own AS (
             SELECT id, issuance_id, grant_id, leaf FROM record
             WHERE issuer = $1 AND dag_id = $2 AND run_id = $3 ORDER BY id LIMIT $4)
         SELECT id, leaf FROM own
         UNION SELECT id, leaf FROM record
               WHERE kind = 'issuance.outcome' AND issuance_id IN (SELECT issuance_id FROM own)
         UNION SELECT id, leaf FROM record
               WHERE issuance_id IS NULL AND grant_id IN (SELECT grant_id FROM own)
         ORDER BY id",
    )
    .bind(issuer)
    .bind(dag_id)
    .bind(run_id)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let entry = |(_, leaf): &(Uuid, Vec<u8>)| {
        serde_json::from_slice(leaf).map_err(|e| StoreError::Corrupt(e.to_string()))
    };
    let mut entries: Vec<Entry> = leaves.iter().map(entry).collect::<Result<_, _>>()?;
    personal::open_entries(pool, &mut entries).await?;
    Ok(entries)
}

/// How many issuances and denials of one kind fell into one stretch of time.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Count {
    /// Which stretch, from 0.
    pub bucket: i64,
    /// The policy; none where the caller named none that exists.
    pub policy: Option<String>,
    /// The provider; none where it did not get that far.
    pub provider: Option<String>,
    /// `issued`, `failed`, `indeterminate`, `open` or `denied`.
    pub outcome: String,
    /// How many.
    pub count: i64,
}

/// Counts issuances and denials from `since` on, in stretches of `bucket_s` seconds.
pub async fn activity(pool: &PgPool, since: Timestamp, bucket_s: i64) -> Result<Vec<Count>, StoreError> {
    // Ids begin with their time, so the primary key finds where to begin.
    let first = RecordId::new(since, [0; 10]).uuid();
    Ok(sqlx::query_as(
        "SELECT floor((extract(epoch FROM o.at) - $2) / $3)::int8 AS bucket, o.policy, o.provider,
                CASE WHEN o.kind = 'denial' THEN 'denied' ELSE COALESCE(e.outcome, o.outcome, 'open') END
                    AS outcome,
                count(*) AS count
         FROM record o
         LEFT JOIN record e ON e.kind = 'issuance.outcome' AND e.issuance_id = o.issuance_id
         WHERE o.id >= $1 AND o.kind IN ('issuance.intent', 'issuance.issued', 'denial')
         GROUP BY 1, 2, 3, 4 ORDER BY 1",
    )
    .bind(first)
    .bind(since.as_second())
    .bind(bucket_s)
    .fetch_all(pool)
    .await?)
}
