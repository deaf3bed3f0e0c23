//! Dropping archived records. Who does it owns the tables: the server's role cannot.

use cortex_core::record::{Dropped, What};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::corrupt;
use crate::store::StoreError;
use crate::store::row::{Stamp, insert};

/// How many leaves one transaction looks at.
const PAGE: i64 = 4_096;

/// How far a tree's records go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    pub(crate) shard: i32,
    pub(crate) upto: i64,
}

/// What happened to the records that were to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deleted {
    /// How many went.
    pub dropped: u64,
    /// How many are here still, because a hold covers them or the log goes on from them.
    pub kept: u64,
}

/// Whether this role may delete records at all.
pub(crate) async fn may_delete(owner: &mut PgConnection) -> Result<bool, StoreError> {
    let may = sqlx::query_scalar(
        "SELECT has_table_privilege('record', 'DELETE') AND has_table_privilege('log_drop', 'INSERT')",
    );
    Ok(may.fetch_one(owner).await?)
}

/// Writes down that records go, and lets them: nothing is gone yet. Answers with the id of what it wrote.
pub(crate) async fn permit(
    owner: &mut PgConnection,
    reaches: &[Reach],
    dropped: Dropped,
    stamp: &Stamp,
) -> Result<Uuid, StoreError> {
    let draft = stamp.draft(What::Dropped(dropped.clone())).map_err(corrupt)?;
    let id = draft.id();
    let mut tx = owner.begin().await?;
    sqlx::query(
        "INSERT INTO log_drop (shard, upto, archive)
         SELECT shard, upto, $3 FROM unnest($1::int4[], $2::int8[]) AS t (shard, upto)
         ON CONFLICT (shard) DO UPDATE SET upto = GREATEST(log_drop.upto, excluded.upto), archive = excluded.archive",
    )
    .bind(reaches.iter().map(|reach| reach.shard).collect::<Vec<_>>())
    .bind(reaches.iter().map(|reach| reach.upto).collect::<Vec<_>>())
    .bind(&dropped.archive)
    .execute(&mut *tx)
    .await?;
    insert(&mut tx, &[draft], stamp).await?;
    tx.commit().await?;
    Ok(id)
}

/// Whether a record is in a published checkpoint.
pub(crate) async fn is_published(owner: &mut PgConnection, record: Uuid) -> Result<bool, StoreError> {
    let published = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM record r JOIN log_batch b ON b.chain = r.chain AND b.batch = r.batch
                        JOIN log_shard s ON s.number = b.shard
                        WHERE r.id = $1 AND b.first + b.count <= s.published)",
    );
    Ok(published.bind(record).fetch_one(owner).await?)
}

/// The next page of a tree: whole batches of it, without those that a hold covers, and without those that the log goes on
/// from: a tree's opening, and the last batch of a chain that may write on, whose digest its next one names.
const GOING: &str = "
    WITH page AS MATERIALIZED (
        SELECT b.chain, b.batch FROM log_batch b
        WHERE b.shard = $1 AND b.first >= $2 AND b.first < $3 AND b.first > 0 AND b.first + b.count <= $4
          AND NOT EXISTS (SELECT FROM log_chain c WHERE c.id = b.chain AND NOT c.closed
                            AND b.batch = (SELECT max(l.batch) FROM log_batch l WHERE l.chain = c.id))),
    held AS (
        SELECT DISTINCT r.chain, r.batch
        FROM page JOIN record r ON r.chain = page.chain AND r.batch = page.batch
        -- An outcome says little of itself: it is held with its intent.
        LEFT JOIN record o ON r.kind = 'issuance.outcome' AND o.issuance_id = r.issuance_id AND o.kind = 'issuance.intent'
        JOIN log_hold h ON h.lifted_at IS NULL
            AND (h.held_from IS NULL OR COALESCE(o.at, r.at) >= h.held_from)
            AND (h.until IS NULL OR COALESCE(o.at, r.at) < h.until)
            AND (h.scope ->> 'issuer' IS NULL OR COALESCE(o.issuer, r.issuer) = h.scope ->> 'issuer')
            AND (h.scope ->> 'policy' IS NULL OR COALESCE(o.policy, r.policy) = h.scope ->> 'policy')
            AND (h.scope ->> 'dag_id' IS NULL OR COALESCE(o.dag_id, r.dag_id) = h.scope ->> 'dag_id')
            AND (h.scope ->> 'run_id' IS NULL OR COALESCE(o.run_id, r.run_id) = h.scope ->> 'run_id')
            -- Whatever names them: who asked, who approved, who is meant.
            AND (h.scope ->> 'principal' IS NULL
                 OR strpos(convert_from(COALESCE(o.leaf, r.leaf), 'UTF8'), h.scope ->> 'principal') > 0
                 OR strpos(convert_from(r.leaf, 'UTF8'), h.scope ->> 'principal') > 0
                 OR EXISTS (SELECT FROM personal p
                            WHERE p.kind = 'person' AND p.owner = '' AND p.value = h.scope ->> 'principal'
                              AND (strpos(convert_from(COALESCE(o.leaf, r.leaf), 'UTF8'), p.commitment) > 0
                                   OR strpos(convert_from(r.leaf, 'UTF8'), p.commitment) > 0))))
    DELETE FROM record r USING page
    WHERE r.chain = page.chain AND r.batch = page.batch
      AND NOT EXISTS (SELECT FROM held WHERE held.chain = r.chain AND held.batch = r.batch)
    RETURNING r.id";

/// Deletes what may go, page by page; tells `progress` how many leaves were looked at. A hold that is set meanwhile covers
/// what is left when it answers.
pub(crate) async fn delete(
    owner: &mut PgConnection,
    reach: Reach,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Deleted, StoreError> {
    let mut dropped = 0;
    for first in (0..reach.upto).step_by(usize::try_from(PAGE).unwrap_or(1)) {
        let until = reach.upto.min(first + PAGE);
        dropped += page(owner, reach, first, until).await?;
        progress((until - first).unsigned_abs());
    }
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM log_batch b JOIN record r ON r.chain = b.chain AND r.batch = b.batch
         WHERE b.shard = $1 AND b.first + b.count <= $2",
    )
    .bind(reach.shard)
    .bind(reach.upto)
    .fetch_one(owner)
    .await?;
    Ok(Deleted { dropped, kept: kept.unsigned_abs() })
}

async fn page(owner: &mut PgConnection, reach: Reach, first: i64, until: i64) -> Result<u64, StoreError> {
    let mut tx = owner.begin().await?;
    // No hold begins before this page is done; whoever sets one waits for that long.
    sqlx::query("LOCK TABLE log_hold IN SHARE MODE").execute(&mut *tx).await?;
    let gone: Vec<Uuid> = sqlx::query_scalar(GOING)
        .bind(reach.shard)
        .bind(first)
        .bind(until)
        .bind(reach.upto)
        .fetch_all(&mut *tx)
        .await?;
    for sql in ["DELETE FROM record_fact WHERE id = ANY($1)", "DELETE FROM record_rule WHERE id = ANY($1)"] {
        sqlx::query(sql).bind(&gone).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    u64::try_from(gone.len()).map_err(corrupt)
}
