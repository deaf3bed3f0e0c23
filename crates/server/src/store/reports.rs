//! What reports are made of: published records of a period, each with its place in the log.

use cortex_core::{IssuanceId, RecordId};
use jiff::{SignedDuration, Timestamp};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::log::read::{self, Shard};
use super::streams::{self, Progress};
use super::{StoreError, micros, questions, timestamp};

/// A stretch of time: from its beginning on, before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl Period {
    /// Ids begin with their time, so that a period is a range of them.
    fn ids(self) -> (Uuid, Uuid) {
        let id = |at: Timestamp| RecordId::new(at, [0; 10]).uuid();
        let end = self.to.saturating_add(SignedDuration::from_millis(1)).unwrap_or(Timestamp::MAX);
        (id(self.from), id(end))
    }
}

/// A published record, and what proves that it is in the log.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Published {
    pub(crate) id: Uuid,
    pub(crate) leaf: Vec<u8>,
    pub(crate) seal: String,
    pub(crate) shard: String,
    pub(crate) origin: String,
    pub(crate) index: i64,
}

macro_rules! published {
    ($where:literal) => {
        concat!(
            "SELECT r.id, r.leaf, r.seal, s.name AS shard, s.origin,
                    b.first + (SELECT count(*) FROM record p
                               WHERE p.chain = r.chain AND p.batch = r.batch AND p.place < r.place) AS index
             FROM record r JOIN log_batch b ON b.chain = r.chain AND b.batch = r.batch
                  JOIN log_shard s ON s.number = b.shard
             WHERE (b.shard < $1 OR (b.shard = $1 AND b.first + b.count <= $2)) AND ",
            $where
        )
    };
}

/// The newest tree that has a checkpoint; none where nothing is published yet.
pub(crate) async fn checkpoint(pool: &PgPool) -> Result<Option<Shard>, StoreError> {
    let shards = read::shards(pool).await?;
    Ok(shards.into_iter().rev().find(|shard| shard.published > 0 && shard.checkpoint.is_some()))
}

/// Whether everything of a checkpoint is known to whoever asks by facts.
pub(crate) async fn facts_cover(pool: &PgPool, shard: &Shard) -> Result<bool, StoreError> {
    let progress = streams::progress(pool, &[questions::CURSOR]).await?;
    let covers = |Progress { shard: in_tree, next, .. }: &Progress| {
        in_tree.as_deref() == Some(&shard.name)
            && u64::try_from(*next).is_ok_and(|next| next >= shard.published)
    };
    Ok(progress.first().is_some_and(covers))
}

/// Records of these kinds within a period, behind the row `after`, oldest first, as far as the checkpoint of `shard` goes.
pub(crate) async fn of_kinds(
    pool: &PgPool,
    shard: &Shard,
    kinds: &[&str],
    period: Period,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Published>, StoreError> {
    let (first, end) = period.ids();
    Ok(sqlx::query_as(published!(
        "r.kind = ANY($3) AND r.id >= $4 AND r.id < $5 AND ($6::uuid IS NULL OR r.id > $6)
           AND r.at >= timestamptz 'epoch' + $7 * interval '1 microsecond'
           AND r.at < timestamptz 'epoch' + $8 * interval '1 microsecond'
           AND r.kind NOT IN ('issuance.intent', 'issuance.issued', 'issuance.outcome')
         ORDER BY r.id LIMIT $9"
    ))
    .bind(shard.number)
    .bind(size(shard))
    .bind(kinds)
    .bind(first)
    .bind(end)
    .bind(after)
    .bind(micros(period.from))
    .bind(micros(period.to))
    .bind(limit)
    .persistent(false)
    .fetch_all(pool)
    .await?)
}

/// The same of every record about a break of the glass.
pub(crate) async fn of_glass(
    pool: &PgPool,
    shard: &Shard,
    period: Period,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Published>, StoreError> {
    let (first, end) = period.ids();
    Ok(sqlx::query_as(published!(
        "r.id IN (SELECT f.id FROM record_fact f
                  WHERE f.break_glass AND f.id >= $3 AND f.id < $4 AND ($5::uuid IS NULL OR f.id > $5))
           AND r.at >= timestamptz 'epoch' + $6 * interval '1 microsecond'
           AND r.at < timestamptz 'epoch' + $7 * interval '1 microsecond'
         ORDER BY r.id LIMIT $8"
    ))
    .bind(shard.number)
    .bind(size(shard))
    .bind(first)
    .bind(end)
    .bind(after)
    .bind(micros(period.from))
    .bind(micros(period.to))
    .bind(limit)
    .persistent(false)
    .fetch_all(pool)
    .await?)
}

/// These records, oldest first.
pub(crate) async fn of_ids(pool: &PgPool, shard: &Shard, ids: &[Uuid]) -> Result<Vec<Published>, StoreError> {
    let query = sqlx::query_as(published!("r.id = ANY($3) ORDER BY r.id"));
    Ok(query.bind(shard.number).bind(size(shard)).bind(ids).fetch_all(pool).await?)
}

/// Who has used which access, how often, and between when.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Access {
    pub(crate) issuer: Option<String>,
    pub(crate) dag_id: Option<String>,
    pub(crate) task_id: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) asked: i64,
    pub(crate) issued: i64,
    /// The first record of it.
    pub(crate) first: Uuid,
    /// The last.
    pub(crate) last: Uuid,
}

/// Every access that was used within a period, as far as the checkpoint of `shard` goes; `limit` at the most.
pub(crate) async fn accesses(
    pool: &PgPool,
    shard: &Shard,
    period: Period,
    limit: i64,
) -> Result<Vec<Access>, StoreError> {
    let (first, end) = period.ids();
    Ok(sqlx::query_as(
        "SELECT o.issuer, o.dag_id, o.task_id, o.policy, o.provider, f.target, count(*) AS asked,
                count(*) FILTER (WHERE COALESCE(e.outcome, o.outcome) = 'issued') AS issued,
                min(o.id::text)::uuid AS first, max(o.id::text)::uuid AS last
         FROM record o JOIN record_fact f ON f.id = o.id
              JOIN log_batch b ON b.chain = o.chain AND b.batch = o.batch
              LEFT JOIN record e ON e.kind = 'issuance.outcome' AND e.issuance_id = o.issuance_id
                                    AND o.kind = 'issuance.intent'
         WHERE (b.shard < $1 OR (b.shard = $1 AND b.first + b.count <= $2))
           AND o.kind IN ('issuance.intent', 'issuance.issued') AND o.id >= $3 AND o.id < $4
           AND o.at >= timestamptz 'epoch' + $5 * interval '1 microsecond'
           AND o.at < timestamptz 'epoch' + $6 * interval '1 microsecond'
         GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6 LIMIT $7",
    )
    .bind(shard.number)
    .bind(size(shard))
    .bind(first)
    .bind(end)
    .bind(micros(period.from))
    .bind(micros(period.to))
    .bind(limit)
    .persistent(false)
    .fetch_all(pool)
    .await?)
}

/// When the first of these issuances was revoked.
pub(crate) async fn revoked_at(
    executor: impl PgExecutor<'_>,
    issuances: &[IssuanceId],
) -> Result<Option<Timestamp>, StoreError> {
    let first: Option<i64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM min(revoked_at)) * 1000000)::int8 FROM revoked_lease WHERE issuance_id = ANY($1)",
    )
    .bind(issuances.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_one(executor)
    .await?;
    first.map(timestamp).transpose()
}

fn size(shard: &Shard) -> i64 {
    i64::try_from(shard.published).unwrap_or(i64::MAX)
}
