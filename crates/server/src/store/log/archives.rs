//! What can be archived of the log, and what was.

use cortex_core::record::{Archived, Entry, What};
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::Verifier;
use jiff::Timestamp;
use sqlx::{Connection as _, PgExecutor, PgPool};

use super::corrupt;
use super::read::{self, Shard};
use crate::store::StoreError;
use crate::store::row::{Stamp, insert};

/// A tree as far as it was published before a time, with the checkpoint that says so.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) shard: Shard,
    pub(crate) checkpoint: Checkpoint,
    /// The checkpoint as it was signed.
    pub(crate) note: String,
    /// Nothing comes after it in this tree.
    pub(crate) whole: bool,
}

/// Every tree as far as it was published before `before`, oldest first; a tree that was not is left out.
pub(crate) async fn cuts(pool: &PgPool, key: &Verifier, before: Timestamp) -> Result<Vec<Cut>, StoreError> {
    let mut cuts = Vec::new();
    let mut later = read::shards(pool).await?.into_iter().peekable();
    while let Some(shard) = later.next() {
        let whole = later.peek().is_some();
        cuts.extend(cut(pool, key, shard, before, whole).await?);
    }
    Ok(cuts)
}

async fn cut(
    pool: &PgPool,
    key: &Verifier,
    shard: Shard,
    before: Timestamp,
    closed: bool,
) -> Result<Option<Cut>, StoreError> {
    let Some(note) = shard.checkpoint.clone() else { return Ok(None) };
    let newest = Checkpoint::open_under(&note, key).map_err(corrupt)?;
    if newest.time_ms < before.as_millisecond() {
        let whole = closed && newest.size == shard.size;
        return Ok(Some(Cut { shard, checkpoint: newest, note, whole }));
    }
    let ended: Option<String> = sqlx::query_scalar(
        "SELECT checkpoint FROM log_month_end WHERE shard = $1 AND time_ms < $2 ORDER BY size DESC LIMIT 1",
    )
    .bind(shard.number)
    .bind(before.as_millisecond())
    .fetch_optional(pool)
    .await?;
    let Some(note) = ended else { return Ok(None) };
    let checkpoint = Checkpoint::open_under(&note, key).map_err(corrupt)?;
    Ok(Some(Cut { shard, checkpoint, note, whole: false }))
}

/// Writes down that the log's beginning was archived.
pub(crate) async fn note(pool: &PgPool, archived: Archived, stamp: &Stamp) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut tx = connection.begin().await?;
    insert(&mut tx, &[stamp.draft(What::Archived(archived)).map_err(corrupt)?], stamp).await?;
    Ok(tx.commit().await?)
}

/// What was archived last.
pub(crate) async fn last(executor: impl PgExecutor<'_>) -> Result<Option<Archived>, StoreError> {
    let leaf: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT leaf FROM record WHERE kind = 'log.archived' ORDER BY id DESC LIMIT 1")
            .fetch_optional(executor)
            .await?;
    let Some(leaf) = leaf else { return Ok(None) };
    let entry: Entry = serde_json::from_slice(&leaf).map_err(corrupt)?;
    Ok(match entry.what {
        What::Archived(archived) => Some(archived),
        _ => None,
    })
}
