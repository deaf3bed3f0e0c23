//! Verifying the log where it is: every leaf, every chain, every tile, every checkpoint, that each row's columns say
//! what its leaf says, and that the people whom leaves name by commitments are known or were erased.

mod dropped;

use std::collections::BTreeMap;

use cortex_core::record::{Dropped, Entry, Extent, What};
use cortex_log::audit::{Auditor, Fault, Summary};
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::Verifier;
use cortex_log::tile::Tile;
use cortex_log::{Hash, seal};
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::corrupt;
use super::people::People;
use super::read::{self, Shard};
use crate::store::StoreError;
use crate::store::questions::{self, Fact};
use crate::store::row::Row;

/// How many leaves are verified at a time, about.
const PAGE: u64 = 8_192;

/// What is wrong with the log in the database.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// The tree, a chain or a checkpoint.
    #[error(transparent)]
    Log(#[from] Fault),
    /// A column of a row is not what its leaf says.
    #[error("record {record}, leaf {index} of {origin}: the column {column} is not what the leaf says")]
    Column {
        /// The tree.
        origin: String,
        /// The leaf.
        index: u64,
        /// The row's id.
        record: Uuid,
        /// The column.
        column: &'static str,
    },
    /// A leaf that is in the tree has no row any more.
    #[error("leaf {index} of {origin}: its record is gone")]
    Gone {
        /// The tree.
        origin: String,
        /// The leaf.
        index: u64,
    },
    /// A tile above the lowest level is not that of the leaves.
    #[error("tile {index} of level {level} of {origin} is not that of the leaves, which are whole")]
    Tile {
        /// The tree.
        origin: String,
        /// The level.
        level: u8,
        /// The tile.
        index: u64,
    },
    /// What auditors ask by, which is made from the leaves.
    #[error("record {0}: what is noted of it in record_fact or record_rule is not what its leaf says")]
    Fact(Uuid),
    /// What opens a commitment does not.
    #[error("the commitment {0} is to another value than the one that is kept beside the log")]
    Opening(String),
    /// Who a commitment stands for is not known, and nobody was erased.
    #[error(
        "leaf {index} of {origin}: nobody knows who {commitment} is, and no record says that they were erased"
    )]
    Unopened {
        /// The tree.
        origin: String,
        /// The first leaf that has it.
        index: u64,
        /// The commitment.
        commitment: String,
    },
    /// A row that no chain wrote.
    #[error("record {0} is in no tree, and no chain has written it: somebody else has")]
    Foreign(Uuid),
    /// The checkpoint that is published.
    #[error("the checkpoint of {origin} is not one that the log's key signed: {why}")]
    Checkpoint {
        /// The tree.
        origin: String,
        /// Why.
        why: String,
    },
}

/// Why it was not verified to its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Something is wrong.
    #[error(transparent)]
    Found(#[from] Box<Finding>),
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<T: Into<Finding>> From<T> for VerifyError {
    fn from(finding: T) -> Self {
        Self::Found(Box::new(finding.into()))
    }
}

/// Verifies everything, from the first leaf. `older` are checkpoints that were kept, which the log has to continue. Tells
/// `progress` how many leaves are verified, and of how many.
pub async fn verify(
    pool: &PgPool,
    key: &Verifier,
    older: Vec<Checkpoint>,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<Summary, VerifyError> {
    let mut connection = pool.acquire().await.map_err(StoreError::from)?;
    let shards = read::shards(&mut *connection).await?;
    let total = shards.iter().map(|shard| shard.published).sum();
    let mut auditor = Auditor::new(key.clone(), older);
    let (mut missing, mut permitted) = (BTreeMap::new(), Vec::new());
    let known_to = questions::known_to(&mut *connection).await?;
    let mut people = People::default();
    let mut done = 0;
    for shard in &shards {
        let checkpoint = published(key, shard)?;
        let mut upper = BTreeMap::new();
        let mut audit = auditor.begin(&shard.origin);
        let gone = read::dropped(&mut *connection, shard.number).await?;
        let mut next = 0;
        if let Some(gone) = gone.filter(|gone| gone.upto > 1 && gone.upto <= checkpoint.size) {
            let skipped = dropped::verify(&mut connection, &mut audit, shard, gone.upto).await?;
            let dropped::Skipped { tiles, until, first_missing } = skipped;
            upper.extend(tiles.into_iter().filter(|tile| tile.level > 0).map(|t| ((t.level, t.index), t)));
            next = until;
            done += until;
            missing.extend(first_missing.map(|index| (shard.origin.clone(), (index, gone.upto))));
            progress(done, total);
        }
        while next < checkpoint.size {
            let page = page(&mut connection, shard, next, checkpoint.size - next).await?;
            permitted.extend(page.entries.iter().filter_map(|entry| permits(entry)).flatten());
            let (tiles, mut entries) = check(&mut audit, shard, &page)?;
            people.note(&shard.origin, next, &mut entries);
            facts(&mut connection, shard, next, entries, known_to).await?;
            upper.extend(tiles.into_iter().filter(|tile| tile.level > 0).map(|t| ((t.level, t.index), t)));
            next += count(page.leaves.len());
            done += count(page.leaves.len());
            progress(done, total);
        }
        audit.end(&checkpoint)?;
        compare(&mut connection, shard, upper.into_values()).await?;
    }
    // What is not here was dropped, and a record says so that is itself in the tree: the table alone proves nothing.
    for (origin, (index, upto)) in missing {
        if !permitted.iter().any(|of: &Extent| of.origin == origin && of.size >= upto) {
            return Err(Finding::Gone { origin, index }.into());
        }
    }
    let summary = auditor.finish()?;
    people.check(&mut connection).await?;
    if let Some(record) = questions::unfounded(&mut *connection).await? {
        return Err(Finding::Fact(record).into());
    }
    match foreign(&mut connection).await? {
        Some(record) => Err(Finding::Foreign(record).into()),
        None => Ok(summary),
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn published(key: &Verifier, shard: &Shard) -> Result<Checkpoint, VerifyError> {
    let wrong = |why: String| Finding::Checkpoint { origin: shard.origin.clone(), why };
    let note = shard.checkpoint.as_deref().ok_or_else(|| wrong("there is none".to_owned()))?;
    Ok(Checkpoint::open_under(note, key).map_err(|error| wrong(error.to_string()))?)
}

/// Leaves that follow one another, with what their rows say.
struct Page {
    first: u64,
    leaves: Vec<Vec<u8>>,
    rows: Vec<Row>,
    entries: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
}

/// A row that a batch has.
struct Found {
    index: u64,
    /// The batch has fewer leaves in the tree.
    extra: bool,
    row: Row,
    seal: String,
}

async fn page(
    connection: &mut PgConnection,
    shard: &Shard,
    first: u64,
    left: u64,
) -> Result<Page, VerifyError> {
    let count = PAGE.min(left);
    let found = rows(connection, shard.number, first, count).await?;
    let mut page =
        Page { first, leaves: Vec::new(), rows: Vec::new(), entries: Vec::new(), hashes: Vec::new() };
    for Found { index, extra, row, seal } in found {
        if extra {
            return Err(Finding::Foreign(row.id).into());
        }
        let expected = first + self::count(page.leaves.len());
        if index != expected {
            return Err(Finding::Gone { origin: shard.origin.clone(), index: expected }.into());
        }
        page.leaves.push(seal::join(&row.leaf, &seal));
        page.entries.push(row.leaf.clone());
        page.rows.push(row);
    }
    if page.leaves.is_empty() {
        return Err(Finding::Gone { origin: shard.origin.clone(), index: first }.into());
    }
    let count = self::count(page.leaves.len());
    page.hashes = read::leaf_hashes(&mut *connection, shard.number, first, count).await?;
    Ok(page)
}

async fn rows(
    connection: &mut PgConnection,
    shard: i32,
    first: u64,
    count: u64,
) -> Result<Vec<Found>, StoreError> {
    let rows = sqlx::query(
        "SELECT first + nth AS idx, nth >= count AS extra, id, (extract(epoch FROM at) * 1000000)::int8 AS at, kind, issuance_id, decision_id, principal, issuer, dag_id,
                run_id, task_id, policy, policy_digest, provider, outcome, reason, grant_id,
                (extract(epoch FROM expires_at) * 1000000)::int8 AS expires_at, leaf, seal
         FROM (SELECT b.first, b.count, row_number() OVER (PARTITION BY b.first ORDER BY r.place) - 1 AS nth, r.*
               FROM log_batch b JOIN record r ON r.chain = b.chain AND r.batch = b.batch
               WHERE b.shard = $1 AND b.first < $2 + $3
                 AND b.first >= COALESCE((SELECT max(first) FROM log_batch WHERE shard = $1 AND first <= $2), 0)) leaves
         WHERE first + nth >= $2 AND first + nth < $2 + $3 ORDER BY first, nth",
    )
    .bind(shard)
    .bind(i64::try_from(first).map_err(corrupt)?)
    .bind(i64::try_from(count).map_err(corrupt)?)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let index: i64 = row.try_get("idx")?;
            let index = u64::try_from(index).map_err(corrupt)?;
            Ok(Found {
                index,
                extra: row.try_get("extra")?,
                row: Row::read(row)?,
                seal: row.try_get("seal")?,
            })
        })
        .collect()
}

/// What a record says was dropped.
fn permits(entry: &[u8]) -> Option<Vec<Extent>> {
    const KIND: &[u8] = b"\"kind\":\"log.dropped\"";
    entry.windows(KIND.len()).any(|window| window == KIND).then_some(())?;
    match serde_json::from_slice::<Entry>(entry).ok()?.what {
        What::Dropped(Dropped { trees, .. }) => Some(trees),
        _ => None,
    }
}

fn check(
    audit: &mut cortex_log::audit::ShardAudit<'_>,
    shard: &Shard,
    page: &Page,
) -> Result<(Vec<Tile>, Vec<Entry>), VerifyError> {
    let tiles = audit.feed(&page.leaves, &page.hashes)?;
    let mut entries = Vec::with_capacity(page.entries.len());
    for ((index, row), entry) in (page.first..).zip(&page.rows).zip(&page.entries) {
        entries.push(check_columns(shard, index, row, entry)?);
    }
    Ok((tiles, entries))
}

/// That what auditors ask by is what these entries say, as far as it is known.
async fn facts(
    connection: &mut PgConnection,
    shard: &Shard,
    first: u64,
    entries: Vec<Entry>,
    known_to: Option<(i32, i64)>,
) -> Result<(), VerifyError> {
    let known = match known_to {
        Some((number, next)) if number == shard.number => next.unsigned_abs().saturating_sub(first),
        Some((number, _)) if number > shard.number => u64::MAX,
        _ => 0,
    };
    let known = entries.into_iter().take(usize::try_from(known).unwrap_or(usize::MAX));
    let expected: Vec<Fact> = known
        .map(|entry| {
            let id = entry.id.uuid();
            Fact::of(entry).unwrap_or_else(|| Fact::none_of(id))
        })
        .collect();
    match questions::differing(connection, &expected).await? {
        Some(record) => Err(Finding::Fact(record).into()),
        None => Ok(()),
    }
}

/// The entry, whose row's columns say what it says.
fn check_columns(shard: &Shard, index: u64, row: &Row, entry: &[u8]) -> Result<Entry, VerifyError> {
    let column = |column| {
        let (origin, record) = (shard.origin.clone(), row.id);
        Finding::Column { origin, index, record, column }
    };
    let entry: Entry = serde_json::from_slice(entry).map_err(|_| column("leaf"))?;
    match row.differs_from(&entry) {
        Some(differing) => Err(column(differing).into()),
        None => Ok(entry),
    }
}

async fn compare(
    connection: &mut PgConnection,
    shard: &Shard,
    tiles: impl Iterator<Item = Tile>,
) -> Result<(), VerifyError> {
    for Tile { level, index, hashes } in tiles {
        let kept = read::tile(&mut *connection, shard.number, level, index).await?;
        if !kept.is_some_and(|kept| kept.starts_with(&hashes)) {
            return Err(Finding::Tile { origin: shard.origin.clone(), level, index }.into());
        }
    }
    Ok(())
}

/// A row that is in no tree although it should be, or that no chain ever sealed.
async fn foreign(connection: &mut PgConnection) -> Result<Option<Uuid>, StoreError> {
    let found = sqlx::query_scalar(
        "SELECT r.id FROM record r LEFT JOIN log_chain c ON c.id = r.chain
         WHERE (r.chain IS NULL AND r.id > (SELECT id FROM record WHERE kind = 'log.shard_opened' ORDER BY id LIMIT 1))
            OR (r.chain IS NOT NULL AND c.id IS NULL)
            OR (r.batch <= c.sequenced AND NOT EXISTS (
                    SELECT FROM log_batch b WHERE b.chain = r.chain AND b.batch = r.batch))
         ORDER BY r.id LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    Ok(found)
}
