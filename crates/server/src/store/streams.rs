//! How far each stream has come, and what comes next in it.

use cortex_log::{Hash, seal};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use super::log::corrupt;
use super::log::read::{self, Shard};
use super::{StoreError, micros, timestamp};

/// A stream that is this replica's for now.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Claimed {
    /// Its configured name.
    pub(crate) name: String,
    /// The tree that it is in.
    shard: i32,
    /// The index in that tree that comes next.
    next: i64,
    /// Which claim this is.
    claim: i64,
    /// How many tries have failed in a row.
    pub(crate) failures: i32,
}

/// A place of the log: the tree by its number, and an index in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    shard: i32,
    next: i64,
}

/// A published leaf of the log.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// The name of its tree.
    pub(crate) shard: String,
    /// The origin of its tree.
    pub(crate) origin: String,
    /// Its index there.
    pub(crate) index: u64,
    /// Its hash, as the tree has it.
    pub(crate) hash: Hash,
    /// The record: canonical JSON.
    pub(crate) record: Vec<u8>,
    /// The record's seal.
    pub(crate) seal: String,
}

/// What comes next in a stream, and where it is when that has arrived.
#[derive(Debug)]
pub(crate) struct Next {
    /// The leaves, in the order of the log.
    pub(crate) leaves: Vec<Leaf>,
    /// The place behind them.
    pub(crate) then: Place,
}

/// What follows a failed try.
#[derive(Debug)]
pub(crate) struct Pause {
    /// Why it failed.
    pub(crate) error: String,
    /// When it is tried again.
    pub(crate) until: Timestamp,
}

/// Begins those of these streams that are new, at the beginning of the log; of what is here of it, where old records were
/// dropped.
pub(crate) async fn begin(
    executor: impl PgExecutor<'_>,
    names: &[&str],
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO stream_cursor (name, shard, next, due_at)
         SELECT name, COALESCE(d.shard, 1), COALESCE(d.upto, 0), timestamptz 'epoch' + $2 * interval '1 microsecond'
         FROM unnest($1::text[]) AS t (name)
         LEFT JOIN (SELECT shard, upto FROM log_drop ORDER BY shard DESC LIMIT 1) d ON true
         ON CONFLICT DO NOTHING",
    )
    .bind(names)
    .bind(micros(now))
    .execute(executor)
    .await?;
    Ok(())
}

/// Takes those of these streams that are nobody's and that something waits for. They are this replica's until
/// `mine_until`; should it end before it says how it went, another one sends the same again.
pub(crate) async fn claim(
    executor: impl PgExecutor<'_>,
    names: &[&str],
    now: Timestamp,
    mine_until: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    Ok(sqlx::query_as(
        "UPDATE stream_cursor c SET claim = c.claim + 1, due_at = timestamptz 'epoch' + $3 * interval '1 microsecond'
         FROM (SELECT s.name FROM stream_cursor s
               WHERE s.name = ANY($1) AND s.due_at <= timestamptz 'epoch' + $2 * interval '1 microsecond'
                 AND EXISTS (SELECT FROM log_shard t
                             WHERE (t.number = s.shard AND t.published > s.next)
                                OR (t.number > s.shard AND t.published > 0))
               ORDER BY s.due_at, s.name FOR UPDATE OF s SKIP LOCKED) due
         WHERE c.name = due.name
         RETURNING c.name, c.shard, c.next, c.claim, c.failures",
    )
    .bind(names)
    .bind(micros(now))
    .bind(micros(mine_until))
    .fetch_all(executor)
    .await?)
}

/// What comes next in a stream: published leaves of one tree, `limit` at the most. Where a tree is through, its
/// successor is begun.
pub(crate) async fn next(pool: &PgPool, stream: &Claimed, limit: u64) -> Result<Next, StoreError> {
    let shards = read::shards(pool).await?;
    let published = |shard: &&Shard| shard.number > stream.shard && shard.published > 0;
    let current = shards.iter().find(|shard| shard.number == stream.shard);
    let from = u64::try_from(stream.next).map_err(corrupt)?;
    let (shard, from) = match current.filter(|shard| shard.published > from) {
        Some(shard) => (shard, from),
        None => match shards.iter().find(published) {
            Some(following) => (following, 0),
            None => return Ok(Next { leaves: Vec::new(), then: stream.place() }),
        },
    };
    let count = limit.min(shard.published - from);
    let mut connection = pool.acquire().await?;
    let found = read::leaves(&mut connection, shard.number, from, count).await?;
    if u64::try_from(found.len()).map_err(corrupt)? != count {
        return Err(corrupt(format!("leaves from {from} of {} are missing", shard.origin)));
    }
    let leaves = (from..).zip(found).map(|(index, (record, seal))| Leaf {
        shard: shard.name.clone(),
        origin: shard.origin.clone(),
        index,
        hash: Hash::leaf(&seal::join(&record, &seal)),
        record,
        seal,
    });
    let then = Place { shard: shard.number, next: i64::try_from(from + count).map_err(corrupt)? };
    Ok(Next { leaves: leaves.collect(), then })
}

impl Claimed {
    fn place(&self) -> Place {
        Place { shard: self.shard, next: self.next }
    }
}

impl Next {
    /// The same without what is more than `bytes` together; one leaf stays in any case.
    pub(crate) fn within(mut self, bytes: usize) -> Self {
        let mut total = 0_usize;
        let fits = self.leaves.iter().take_while(|leaf| {
            total = total.saturating_add(leaf.record.len() + leaf.seal.len());
            total <= bytes
        });
        let fits = fits.count().max(1);
        if let Some(last) = self.leaves.get(fits) {
            self.then.next = i64::try_from(last.index).unwrap_or(i64::MAX);
            self.leaves.truncate(fits);
        }
        self
    }
}

/// What was sent has arrived: the stream goes on behind it, and is anybody's. A replica that was overtaken in the
/// meantime changes nothing.
pub(crate) async fn arrived(
    executor: impl PgExecutor<'_>,
    stream: &Claimed,
    then: Place,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE stream_cursor SET shard = $3, next = $4, failures = 0, last_error = NULL,
                due_at = timestamptz 'epoch' + $5 * interval '1 microsecond'
         WHERE name = $1 AND claim = $2",
    )
    .bind(&stream.name)
    .bind(stream.claim)
    .bind(then.shard)
    .bind(then.next)
    .bind(micros(now))
    .execute(executor)
    .await?;
    Ok(())
}

/// It did not arrive: the stream stays where it is. A replica that was overtaken in the meantime changes nothing.
pub(crate) async fn failed(
    executor: impl PgExecutor<'_>,
    stream: &Claimed,
    pause: &Pause,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE stream_cursor SET failures = failures + 1, last_error = $3,
                due_at = timestamptz 'epoch' + $4 * interval '1 microsecond'
         WHERE name = $1 AND claim = $2",
    )
    .bind(&stream.name)
    .bind(stream.claim)
    .bind(&pause.error)
    .bind(micros(pause.until))
    .execute(executor)
    .await?;
    Ok(())
}

/// One of these streams that has not come past this place yet.
pub(crate) async fn one_before(
    executor: impl PgExecutor<'_>,
    names: &[&str],
    shard: i32,
    upto: i64,
) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT name FROM stream_cursor
         WHERE name = ANY($1) AND (shard < $2 OR (shard = $2 AND next < $3)) ORDER BY shard, next LIMIT 1",
    )
    .bind(names)
    .bind(shard)
    .bind(upto)
    .fetch_optional(executor)
    .await?)
}

/// How far a stream has come.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Stream)]
pub struct Progress {
    /// Its configured name.
    pub name: String,
    /// The tree of the log that it is in; none where nothing is published yet.
    pub shard: Option<String>,
    /// The index in that tree that comes next: everything before has arrived.
    pub next: i64,
    /// How many published records have not arrived yet.
    pub behind: i64,
    /// How many tries have failed in a row.
    pub failures: i32,
    /// Why the last of them did.
    pub last_error: Option<String>,
    /// When it goes on, at the earliest.
    #[schema(value_type = String, format = DateTime)]
    pub due_at: Timestamp,
}

type Listed = (String, Option<String>, i64, i64, i32, Option<String>, i64);

/// How far these streams have come, by name.
pub async fn progress(executor: impl PgExecutor<'_>, names: &[&str]) -> Result<Vec<Progress>, StoreError> {
    let rows: Vec<Listed> = sqlx::query_as(
        "SELECT c.name, s.name, c.next,
                GREATEST(0, (SELECT COALESCE(sum(t.published), 0)::int8 FROM log_shard t WHERE t.number >= c.shard)
                            - c.next),
                c.failures, c.last_error, (extract(epoch FROM c.due_at) * 1000000)::int8
         FROM stream_cursor c LEFT JOIN log_shard s ON s.number = c.shard
         WHERE c.name = ANY($1) ORDER BY c.name",
    )
    .bind(names)
    .fetch_all(executor)
    .await?;
    let progress = |(name, shard, next, behind, failures, last_error, due_at): Listed| {
        Ok(Progress { name, shard, next, behind, failures, last_error, due_at: timestamp(due_at)? })
    };
    rows.into_iter().map(progress).collect()
}
