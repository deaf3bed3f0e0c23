//! What waits, counted for those who watch.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::PgPool;

use super::{StoreError, micros, timestamp};

/// What waits somewhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// How many.
    pub(crate) count: u64,
    /// Since when the oldest does.
    pub(crate) oldest: Option<Timestamp>,
}

impl Waiting {
    fn new(count: i64, oldest: Option<i64>) -> Result<Self, StoreError> {
        Ok(Self { count: unsigned(count), oldest: oldest.map(timestamp).transpose()? })
    }
}

/// What was measured in one look.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The time by the database's clock.
    pub(crate) database_clock: Timestamp,
    /// Mints whose outcome is not on record.
    pub(crate) open_intents: u64,
    /// Requests for approval.
    pub(crate) grants: Waiting,
    /// Leaves in the newest tree.
    pub(crate) log_size: u64,
    /// Of these, those that no checkpoint covers.
    pub(crate) log_unpublished: u64,
    /// Records that are not in the tree.
    pub(crate) log: Waiting,
}

#[derive(sqlx::FromRow)]
struct Raw {
    database_clock: i64,
    open_intents: i64,
    grants: i64,
    oldest_grant: Option<i64>,
    log_size: Option<i64>,
    log_published: Option<i64>,
    log_waiting: i64,
    log_oldest: Option<i64>,
}

/// Looks. What waits for the tree is counted up to ten thousand of each chain, oldest first.
pub(crate) async fn read(pool: &PgPool, now: Timestamp) -> Result<Measured, StoreError> {
    let raw: Raw = sqlx::query_as(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS database_clock,
                (SELECT count(*) FROM open_intent) AS open_intents,
                g.grants, g.oldest_grant, s.size AS log_size, s.published AS log_published,
                w.log_waiting, w.log_oldest
         FROM (SELECT count(*) AS grants, (extract(epoch FROM min(requested_at)) * 1000000)::int8 AS oldest_grant
               FROM grant_request
               WHERE status = 'requested' AND expires_at > timestamptz 'epoch' + $1 * interval '1 microsecond') g
         CROSS JOIN (SELECT count(*) AS log_waiting, (extract(epoch FROM min(r.at)) * 1000000)::int8 AS log_oldest
                     FROM log_chain c CROSS JOIN LATERAL
                          (SELECT at FROM record WHERE chain = c.id AND batch > c.sequenced
                           ORDER BY batch, place LIMIT 10000) r
                     WHERE c.sequenced < c.head) w
         LEFT JOIN (SELECT size, published FROM log_shard ORDER BY number DESC LIMIT 1) s ON true",
    )
    .bind(micros(now))
    .fetch_one(pool)
    .await?;
    let size = raw.log_size.unwrap_or_default();
    Ok(Measured {
        database_clock: timestamp(raw.database_clock)?,
        open_intents: unsigned(raw.open_intents),
        grants: Waiting::new(raw.grants, raw.oldest_grant)?,
        log_size: unsigned(size),
        log_unpublished: unsigned(size - raw.log_published.unwrap_or_default()),
        log: Waiting::new(raw.log_waiting, raw.log_oldest)?,
    })
}

/// What is still to be told, by endpoint.
pub(crate) async fn outbox(pool: &PgPool) -> Result<HashMap<String, Waiting>, StoreError> {
    let rows: Vec<(String, i64, Option<i64>)> = sqlx::query_as(
        "SELECT endpoint, count(*), (extract(epoch FROM min(created_at)) * 1000000)::int8
         FROM notification WHERE status = 'pending' GROUP BY endpoint",
    )
    .fetch_all(pool)
    .await?;
    let waiting = |(endpoint, count, oldest)| Ok((endpoint, Waiting::new(count, oldest)?));
    rows.into_iter().map(waiting).collect()
}

fn unsigned(count: i64) -> u64 {
    count.try_into().unwrap_or_default()
}
