//! What the log's tables say.

use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::seal::enrolled_in;
use cortex_log::tile;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{corrupt, hash};
use crate::log::Recovered;
use crate::store::StoreError;

/// A tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its number, from 1.
    pub number: i32,
    /// What it is called: the last part of its origin.
    pub name: String,
    /// Its origin.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// The hash of them all.
    pub root: Hash,
    /// When it had this size, in milliseconds since 1970.
    pub time_ms: i64,
    /// The newest checkpoint, a signed note.
    pub checkpoint: Option<String>,
    /// The size that the checkpoint is of.
    pub published: u64,
}

impl Shard {
    /// What is said of it in a checkpoint.
    pub(crate) fn state(&self) -> Checkpoint {
        Checkpoint { origin: self.origin.clone(), size: self.size, root: self.root, time_ms: self.time_ms }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct ShardRow {
    number: i32,
    name: String,
    origin: String,
    size: i64,
    root: Vec<u8>,
    time_ms: i64,
    checkpoint: Option<String>,
    published: i64,
}

impl TryFrom<ShardRow> for Shard {
    type Error = StoreError;

    fn try_from(row: ShardRow) -> Result<Self, StoreError> {
        let ShardRow { number, name, origin, size, root, time_ms, checkpoint, published } = row;
        let count = |count: i64| u64::try_from(count).map_err(corrupt);
        let (size, published) = (count(size)?, count(published)?);
        Ok(Self { number, name, origin, size, root: hash(&root)?, time_ms, checkpoint, published })
    }
}

/// The tree that grows.
pub async fn newest(executor: impl PgExecutor<'_>) -> Result<Option<Shard>, StoreError> {
    let row: Option<ShardRow> = sqlx::query_as(
        "SELECT number, name, origin, size, root, time_ms, checkpoint, published FROM log_shard ORDER BY number DESC LIMIT 1",
    )
    .fetch_optional(executor)
    .await?;
    row.map(Shard::try_from).transpose()
}

/// What the log is called: as its newest tree says, or before there is one, as the chains say that wrote already.
pub(crate) async fn base(pool: &PgPool) -> Result<Option<String>, StoreError> {
    if let Some(shard) = newest(pool).await? {
        let base = shard.origin.rsplit_once('/').map_or(shard.origin.as_str(), |(base, _)| base);
        return Ok(Some(base.to_owned()));
    }
    let first: Option<String> =
        sqlx::query_scalar("SELECT enrolment FROM log_chain ORDER BY opened_at, id LIMIT 1")
            .fetch_optional(pool)
            .await?;
    first.map(|enrolment| enrolled_in(&enrolment).map(str::to_owned).map_err(corrupt)).transpose()
}

/// Every tree, oldest first.
pub(crate) async fn shards(executor: impl PgExecutor<'_>) -> Result<Vec<Shard>, StoreError> {
    let rows: Vec<ShardRow> = sqlx::query_as(
        "SELECT number, name, origin, size, root, time_ms, checkpoint, published FROM log_shard ORDER BY number",
    )
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(Shard::try_from).collect()
}

/// What was lost and written off: the recoveries that trees opened with.
pub(crate) async fn recoveries(connection: &mut PgConnection) -> Result<Vec<Recovered>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Opened {
        recovered: Option<Recovered>,
    }
    let entries: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT r.leaf FROM log_batch b JOIN record r ON r.chain = b.chain AND r.batch = b.batch
         WHERE b.first = 0 AND r.kind = 'log.shard_opened' ORDER BY b.shard",
    )
    .fetch_all(connection)
    .await?;
    let opened = entries.iter().map(|entry| serde_json::from_slice::<Opened>(entry).map_err(corrupt));
    opened.filter_map(|opened| opened.map(|opened| opened.recovered).transpose()).collect()
}

/// The names of trees, one on each line: what a published log lists.
pub(crate) fn names(shards: &[Shard]) -> String {
    shards.iter().flat_map(|shard| [shard.name.as_str(), "\n"]).collect()
}

/// A tile, as wide as it is; none if it is not there.
pub(crate) async fn tile(
    executor: impl PgExecutor<'_>,
    shard: i32,
    level: u8,
    index: u64,
) -> Result<Option<Vec<Hash>>, StoreError> {
    let hashes: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT hashes FROM log_tile WHERE shard = $1 AND level = $2 AND idx = $3")
            .bind(shard)
            .bind(i16::from(level))
            .bind(i64::try_from(index).unwrap_or(i64::MAX))
            .fetch_optional(executor)
            .await?;
    hashes.map(|hashes| tile::decode_hashes(&hashes).map_err(corrupt)).transpose()
}

/// Leaves from `first` on, `count` of them, as entry and seal in the order of the tree.
pub(crate) async fn leaves(
    connection: &mut PgConnection,
    shard: i32,
    first: u64,
    count: u64,
) -> Result<Vec<(Vec<u8>, String)>, StoreError> {
    let first = i64::try_from(first).map_err(corrupt)?;
    let count = i64::try_from(count).map_err(corrupt)?;
    let rows: Vec<(Vec<u8>, String)> = sqlx::query_as(
        "SELECT leaf, seal FROM
            (SELECT b.first, b.count, row_number() OVER (PARTITION BY b.first ORDER BY r.place) - 1 AS nth, r.leaf, r.seal
             FROM log_batch b JOIN record r ON r.chain = b.chain AND r.batch = b.batch
             WHERE b.shard = $1 AND b.first < $2 + $3
               AND b.first >= COALESCE((SELECT max(first) FROM log_batch WHERE shard = $1 AND first <= $2), 0)) leaves
         WHERE nth < count AND first + nth >= $2 AND first + nth < $2 + $3 ORDER BY first, nth",
    )
    .bind(shard)
    .bind(first)
    .bind(count)
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Which of a tree's records are in an archive, and no longer here.
#[derive(Debug, Clone)]
pub(crate) struct DroppedPart {
    /// Those of the leaves before this one, but for what is kept nonetheless.
    pub(crate) upto: u64,
    /// The archive.
    pub(crate) archive: String,
}

/// What is dropped of a tree, if anything is.
pub(crate) async fn dropped(
    executor: impl PgExecutor<'_>,
    shard: i32,
) -> Result<Option<DroppedPart>, StoreError> {
    let row: Option<(i64, String)> = sqlx::query_as("SELECT upto, archive FROM log_drop WHERE shard = $1")
        .bind(shard)
        .fetch_optional(executor)
        .await?;
    row.map(|(upto, archive)| Ok(DroppedPart { upto: u64::try_from(upto).map_err(corrupt)?, archive }))
        .transpose()
}

/// Where a record is in the log.
#[derive(Debug)]
pub(crate) struct LeafAt {
    pub(crate) shard: Shard,
    pub(crate) index: u64,
}

/// Where the record is that a chain sealed at this place; none if it is in no tree. One that was dropped is found by its
/// leaf's hash.
pub(crate) async fn find(
    pool: &PgPool,
    (chain, batch, place): (Uuid, i64, i32),
    leaf: Option<Hash>,
) -> Result<Option<LeafAt>, StoreError> {
    let found: Option<(i32, i64)> = sqlx::query_as(
        "SELECT b.shard, b.first + (SELECT count(*) FROM record r
                                    WHERE r.chain = $1 AND r.batch = $2 AND r.place < $3)
         FROM log_batch b
         WHERE b.chain = $1 AND b.batch = $2
           AND EXISTS (SELECT FROM record r WHERE r.chain = $1 AND r.batch = $2 AND r.place = $3)",
    )
    .bind(chain)
    .bind(batch)
    .bind(place)
    .fetch_optional(pool)
    .await?;
    let found = match (found, leaf) {
        (None, Some(leaf)) => find_hash(pool, chain, batch, leaf).await?,
        _ => found,
    };
    let Some((number, index)) = found else { return Ok(None) };
    let shard = shards(pool).await?.into_iter().find(|shard| shard.number == number);
    let index = u64::try_from(index).map_err(corrupt)?;
    Ok(shard.map(|shard| LeafAt { shard, index }))
}

/// The tree and the index of a batch's leaf, found in the tree's lowest tiles.
async fn find_hash(
    pool: &PgPool,
    chain: Uuid,
    batch: i64,
    leaf: Hash,
) -> Result<Option<(i32, i64)>, StoreError> {
    let placed: Option<(i32, i64, i32)> =
        sqlx::query_as("SELECT shard, first, count FROM log_batch WHERE chain = $1 AND batch = $2")
            .bind(chain)
            .bind(batch)
            .fetch_optional(pool)
            .await?;
    let Some((shard, first, count)) = placed else { return Ok(None) };
    let hashes =
        leaf_hashes(pool, shard, u64::try_from(first).map_err(corrupt)?, count.unsigned_abs().into());
    let at = hashes.await?.iter().position(|hash| *hash == leaf);
    Ok(at.and_then(|at| Some((shard, first + i64::try_from(at).ok()?))))
}

/// The hashes of the lowest level for these leaves.
pub(crate) async fn leaf_hashes(
    executor: impl PgExecutor<'_>,
    shard: i32,
    first: u64,
    count: u64,
) -> Result<Vec<Hash>, StoreError> {
    let last = first + count.saturating_sub(1);
    let tiles: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT hashes FROM log_tile WHERE shard = $1 AND level = 0 AND idx BETWEEN $2 AND $3 ORDER BY idx",
    )
    .bind(shard)
    .bind(i64::try_from(first / 256).map_err(corrupt)?)
    .bind(i64::try_from(last / 256).map_err(corrupt)?)
    .fetch_all(executor)
    .await?;
    let all: Vec<u8> = tiles.concat();
    let skipped = usize::try_from(first % 256).unwrap_or_default();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    all.chunks(32).skip(skipped).take(count).map(hash).collect()
}
