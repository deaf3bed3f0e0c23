//! Integrating what chains have written into the tree.

use cortex_log::Hash;
use cortex_log::opening::Standing;
use cortex_log::tile::{self, Tile};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::read::{Shard, ShardRow};
use super::{corrupt, hash};
use crate::store::StoreError;

/// The most leaves that one round takes of one chain.
const LEAVES: i64 = 5_000;

/// A chain that has written more than is in the tree.
#[derive(Debug, Clone)]
pub(crate) struct WaitingChain {
    pub(crate) id: Uuid,
    pub(crate) key: String,
    pub(crate) enrolment: String,
    pub(crate) head: i64,
    pub(crate) sequenced: i64,
    /// Of its last batch with leaves that is in the tree.
    pub(crate) digest: Hash,
}

/// A leaf that is not in the tree yet.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct WrittenLeaf {
    pub(crate) batch: i64,
    pub(crate) place: i32,
    pub(crate) leaf: Vec<u8>,
    pub(crate) seal: String,
}

/// A batch on its way into the tree.
#[derive(Debug, Clone)]
pub(crate) struct NewBatch {
    pub(crate) chain: Uuid,
    pub(crate) batch: i64,
    pub(crate) leaves: Vec<Hash>,
}

/// How far a chain is in the tree now.
#[derive(Debug, Clone)]
pub(crate) struct Sequenced {
    pub(crate) chain: Uuid,
    pub(crate) upto: i64,
    pub(crate) digest: Hash,
}

/// The tree that grows, for this transaction alone; none if another one has it, or there is none.
pub(crate) async fn lock(tx: &mut PgConnection) -> Result<Option<Shard>, StoreError> {
    let row: Option<ShardRow> = sqlx::query_as(
        "SELECT number, name, origin, size, root, time_ms, checkpoint, published FROM log_shard
         WHERE number = (SELECT max(number) FROM log_shard) FOR UPDATE SKIP LOCKED",
    )
    .fetch_optional(tx)
    .await?;
    row.map(Shard::try_from).transpose()
}

/// Keeps every other process from opening a tree until this transaction ends.
pub(crate) async fn lock_opening(tx: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("LOCK TABLE log_shard IN SHARE ROW EXCLUSIVE MODE").execute(tx).await?;
    Ok(())
}

/// The chains that have something for the tree.
pub(crate) async fn waiting(tx: &mut PgConnection) -> Result<Vec<WaitingChain>, StoreError> {
    type Raw = (Uuid, String, String, i64, i64, Vec<u8>);
    let rows: Vec<Raw> = sqlx::query_as(
        "SELECT id, key, enrolment, head, sequenced, digest FROM log_chain WHERE sequenced < head ORDER BY opened_at, id LIMIT 1000",
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(id, key, enrolment, head, sequenced, digest)| {
            Ok(WaitingChain { id, key, enrolment, head, sequenced, digest: hash(&digest)? })
        })
        .collect()
}

/// What a chain has written after batch `after`, up to `upto`: whole batches, at least one if there is one.
pub(crate) async fn written(
    tx: &mut PgConnection,
    chain: Uuid,
    after: i64,
    upto: i64,
) -> Result<Vec<WrittenLeaf>, StoreError> {
    let leaves = sqlx::query_as(
        "SELECT batch, place, leaf, seal FROM record WHERE chain = $1 AND batch > $2
           AND batch <= LEAST($3, (SELECT COALESCE(max(batch), $3) FROM
                (SELECT batch FROM record WHERE chain = $1 AND batch > $2 ORDER BY batch, place LIMIT $4) page))
         ORDER BY batch, place",
    )
    .bind(chain)
    .bind(after)
    .bind(upto)
    .bind(LEAVES)
    .fetch_all(tx)
    .await?;
    Ok(leaves)
}

/// Writes down where batches are, the first of them at `first`.
pub(crate) async fn place(
    tx: &mut PgConnection,
    shard: i32,
    first: u64,
    batches: &[NewBatch],
) -> Result<(), StoreError> {
    let counts: Vec<i32> =
        batches.iter().map(|batch| i32::try_from(batch.leaves.len()).unwrap_or(i32::MAX)).collect();
    let firsts: Vec<i64> = counts
        .iter()
        .scan(i64::try_from(first).map_err(corrupt)?, |next, count| {
            let first = *next;
            *next += i64::from(*count);
            Some(first)
        })
        .collect();
    sqlx::query(
        "INSERT INTO log_batch (shard, first, count, chain, batch)
         SELECT $1, first, count, chain, batch FROM unnest($2::int8[], $3::int4[], $4::uuid[], $5::int8[])
                AS t (first, count, chain, batch)",
    )
    .bind(shard)
    .bind(firsts)
    .bind(counts)
    .bind(batches.iter().map(|batch| batch.chain).collect::<Vec<_>>())
    .bind(batches.iter().map(|batch| batch.batch).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes tiles that are new or longer.
pub(crate) async fn put_tiles(tx: &mut PgConnection, shard: i32, tiles: &[Tile]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO log_tile (shard, level, idx, hashes)
         SELECT $1, level, idx, hashes FROM unnest($2::int2[], $3::int8[], $4::bytea[]) AS t (level, idx, hashes)
         ON CONFLICT (shard, level, idx) DO UPDATE SET hashes = excluded.hashes
         WHERE octet_length(log_tile.hashes) < octet_length(excluded.hashes)",
    )
    .bind(shard)
    .bind(tiles.iter().map(|tile| i16::from(tile.level)).collect::<Vec<_>>())
    .bind(tiles.iter().map(|tile| i64::try_from(tile.index).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(tiles.iter().map(|tile| tile::encode_hashes(&tile.hashes)).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes how far each chain is in the tree.
pub(crate) async fn advance_chains(tx: &mut PgConnection, chains: &[Sequenced]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE log_chain c SET sequenced = t.upto, digest = t.digest
         FROM unnest($1::uuid[], $2::int8[], $3::bytea[]) AS t (id, upto, digest) WHERE c.id = t.id",
    )
    .bind(chains.iter().map(|chain| chain.chain).collect::<Vec<_>>())
    .bind(chains.iter().map(|chain| chain.upto).collect::<Vec<_>>())
    .bind(chains.iter().map(|chain| chain.digest.0.to_vec()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes the tree what `to` says, if it still is what `from` says: the fence between two sequencers.
pub(crate) async fn grow(tx: &mut PgConnection, from: &Shard, to: &Shard) -> Result<bool, StoreError> {
    let grown = sqlx::query(
        "UPDATE log_shard SET size = $4, root = $5, time_ms = $6 WHERE number = $1 AND size = $2 AND root = $3",
    )
    .bind(from.number)
    .bind(i64::try_from(from.size).map_err(corrupt)?)
    .bind(from.root.0.as_slice())
    .bind(i64::try_from(to.size).map_err(corrupt)?)
    .bind(to.root.0.as_slice())
    .bind(to.time_ms)
    .execute(tx)
    .await?;
    Ok(grown.rows_affected() == 1)
}

/// Publishes a checkpoint of `size`, unless a newer one is published.
pub(crate) async fn publish(
    pool: &PgPool,
    shard: i32,
    size: u64,
    checkpoint: &str,
) -> Result<(), StoreError> {
    let size = i64::try_from(size).map_err(corrupt)?;
    sqlx::query(
        "UPDATE log_shard SET checkpoint = $3, published = $2
         WHERE number = $1 AND (published < $2 OR checkpoint IS NULL OR
                                (published = $2 AND octet_length(checkpoint) < octet_length($3)))",
    )
    .bind(shard)
    .bind(size)
    .bind(checkpoint)
    .execute(pool)
    .await?;
    Ok(())
}

/// Keeps the published checkpoint, which is the last of its month, before a newer one takes its place.
pub(crate) async fn keep_month_end(pool: &PgPool, shard: &Shard, time_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO log_month_end (shard, size, time_ms, checkpoint)
         SELECT number, published, $3, checkpoint FROM log_shard
         WHERE number = $1 AND published = $2 AND published > 0 AND checkpoint IS NOT NULL ON CONFLICT DO NOTHING",
    )
    .bind(shard.number)
    .bind(i64::try_from(shard.published).map_err(corrupt)?)
    .bind(time_ms)
    .execute(pool)
    .await?;
    Ok(())
}

/// Publishes the last checkpoint of a tree, of what it has.
pub(crate) async fn publish_last(pool: &PgPool, shard: i32, checkpoint: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE log_shard SET checkpoint = $2, published = size WHERE number = $1")
        .bind(shard)
        .bind(checkpoint)
        .execute(pool)
        .await?;
    Ok(())
}

/// Closes every chain.
pub(crate) async fn close_all(tx: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE log_chain SET closed = true WHERE NOT closed").execute(tx).await?;
    Ok(())
}

/// Opens a tree, empty.
pub(crate) async fn open_shard(tx: &mut PgConnection, shard: &Shard) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO log_shard (number, name, origin, size, root, time_ms) VALUES ($1, $2, $3, 0, $4, $5)",
    )
    .bind(shard.number)
    .bind(&shard.name)
    .bind(&shard.origin)
    .bind(shard.root.0.as_slice())
    .bind(shard.time_ms)
    .execute(tx)
    .await?;
    Ok(())
}

/// Closes every chain but those that go on: those of processes that were seen since `since`, or have something for the
/// tree; `most` at the most. Answers those of them that are in a tree, as they stand there.
pub(crate) async fn carry_on(
    tx: &mut PgConnection,
    since: i64,
    most: i64,
) -> Result<Vec<Standing>, StoreError> {
    sqlx::query(
        "UPDATE log_chain SET closed = true
         WHERE NOT closed AND id NOT IN
            (SELECT id FROM log_chain WHERE NOT closed AND role <> 'sequencer'
               AND (sequenced < head OR seen_at >= timestamptz 'epoch' + $1 * interval '1 microsecond')
             ORDER BY sequenced < head DESC, seen_at DESC, id LIMIT $2)",
    )
    .bind(since)
    .bind(most)
    .execute(&mut *tx)
    .await?;
    let rows: Vec<(String, String, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT key, enrolment, batch, digest FROM
            (SELECT id, key, enrolment, digest,
                    (SELECT max(b.batch) FROM log_batch b WHERE b.chain = c.id) AS batch
             FROM log_chain c WHERE NOT closed) chains
         WHERE batch IS NOT NULL ORDER BY id",
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(key, enrolment, batch, digest)| {
            Ok(Standing { key, enrolment, batch: batch.unsigned_abs(), digest: hash(&digest)? })
        })
        .collect()
}
