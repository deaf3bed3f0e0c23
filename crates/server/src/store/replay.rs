//! Reading the record for a replay: what was asked of one policy, from the newest on.

use cortex_core::RecordId;
use jiff::Timestamp;
use sqlx::PgPool;
use uuid::Uuid;

use super::{StoreError, personal};

/// Up to `limit` requests of `policy` since a time, older than the row `before`, newest first: the id of each row and
/// its leaf as readers are shown it. Rows' ids sort by time, so both bounds are bounds of `record_by_policy`.
pub async fn requests(
    pool: &PgPool,
    policy: &str,
    since: Timestamp,
    before: Uuid,
    limit: i64,
) -> Result<Vec<(Uuid, Vec<u8>)>, StoreError> {
    let mut rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT id, leaf FROM record
         WHERE policy = $1 AND id >= $2 AND id < $3
           AND kind IN ('issuance.intent', 'issuance.issued', 'denial', 'grant.requested')
         ORDER BY id DESC LIMIT $4",
    )
    .bind(policy)
    .bind(RecordId::new(since, [0; 10]).uuid())
    .bind(before)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let leaves = personal::open_leaves(pool, rows.iter().map(|(_, leaf)| leaf.as_slice())).await?;
    rows.iter_mut().zip(leaves).for_each(|((_, leaf), shown)| *leaf = shown);
    Ok(rows)
}
