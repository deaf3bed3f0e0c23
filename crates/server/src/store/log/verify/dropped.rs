//! The beginning of a tree whose records are dropped: the hashes are here, and what is kept of the records fits them.

use cortex_log::Hash;
use cortex_log::audit::ShardAudit;
use cortex_log::opening::Standing;
use cortex_log::seal::{batch_digest, join};
use cortex_log::tile::Tile;
use sqlx::PgConnection;

use super::{Finding, Found, PAGE, VerifyError, check_columns, page, rows};
use crate::store::StoreError;
use crate::store::log::corrupt;
use crate::store::log::read::{self, Shard};

/// What was verified of it.
pub(super) struct Skipped {
    /// The tiles that grew.
    pub(super) tiles: Vec<Tile>,
    /// Where the leaves go on: with a batch of which only a part is dropped, it is here.
    pub(super) until: u64,
    /// The first leaf that is not here.
    pub(super) first_missing: Option<u64>,
}

/// Verifies the leaves before `upto` by their hashes, and goes on there with the chains as they stand.
pub(super) async fn verify(
    connection: &mut PgConnection,
    audit: &mut ShardAudit<'_>,
    shard: &Shard,
    upto: u64,
) -> Result<Skipped, VerifyError> {
    let until = whole_batches(connection, shard, upto).await?;
    // How a tree was opened stays.
    let opening = page(connection, shard, 0, 1).await?;
    let mut tiles = audit.feed(&opening.leaves, &opening.hashes)?;
    let (mut next, mut first_missing) = (1, None);
    while next < until {
        let count = PAGE.min(until - next);
        let hashes = read::leaf_hashes(&mut *connection, shard.number, next, count).await?;
        if u64::try_from(hashes.len()).map_err(corrupt)? != count {
            return Err(corrupt(format!("tiles of {} are missing", shard.origin)).into());
        }
        let mut expected = next;
        for found in rows(connection, shard.number, next, count).await? {
            first_missing = first_missing.or((found.index != expected).then_some(expected));
            expected = found.index + 1;
            check_kept(shard, next, &hashes, found)?;
        }
        first_missing = first_missing.or((expected != next + count).then_some(expected));
        tiles.extend(audit.skip(&hashes)?);
        next += count;
    }
    audit.resume(&standing(connection, shard, until).await?)?;
    Ok(Skipped { tiles, until, first_missing })
}

/// Where the batch begins that is cut at `upto`; it is here, all of it.
async fn whole_batches(connection: &mut PgConnection, shard: &Shard, upto: u64) -> Result<u64, StoreError> {
    let upto = i64::try_from(upto).map_err(corrupt)?;
    let cut: Option<i64> = sqlx::query_scalar(
        "SELECT first FROM log_batch WHERE shard = $1 AND first < $2 AND first + count > $2
         ORDER BY first DESC LIMIT 1",
    )
    .bind(shard.number)
    .bind(upto)
    .fetch_optional(connection)
    .await?;
    Ok(cut.unwrap_or(upto).unsigned_abs())
}

/// A record that is here although others went is the one that is in the tree.
fn check_kept(shard: &Shard, first: u64, hashes: &[Hash], found: Found) -> Result<(), VerifyError> {
    let Found { index, extra, row, seal } = found;
    if extra {
        return Err(Finding::Foreign(row.id).into());
    }
    let at = usize::try_from(index - first).map_err(corrupt)?;
    if hashes.get(at) != Some(&Hash::leaf(&join(&row.leaf, &seal))) {
        let (origin, record) = (shard.origin.clone(), row.id);
        return Err(Finding::Column { origin, index, record, column: "leaf" }.into());
    }
    let entry = row.leaf.clone();
    check_columns(shard, index, &row, &entry).map(drop)
}

/// Where the chains stand that go on at `upto`: the digests of their last batches before, from the tree's hashes.
async fn standing(
    connection: &mut PgConnection,
    shard: &Shard,
    upto: u64,
) -> Result<Vec<Standing>, StoreError> {
    type Raw = (String, String, i64, i32, i64, i32);
    let chains: Vec<Raw> = sqlx::query_as(
        "SELECT c.key, c.enrolment, l.batch, l.shard, l.first, l.count
         FROM (SELECT DISTINCT chain FROM log_batch WHERE shard >= $1 AND (shard > $1 OR first >= $2)) later
         JOIN log_chain c ON c.id = later.chain
         JOIN LATERAL (SELECT b.batch, b.shard, b.first, b.count FROM log_batch b
                       WHERE b.chain = c.id AND (b.shard < $1 OR (b.shard = $1 AND b.first < $2))
                       ORDER BY b.batch DESC LIMIT 1) l ON true",
    )
    .bind(shard.number)
    .bind(i64::try_from(upto).map_err(corrupt)?)
    .fetch_all(&mut *connection)
    .await?;
    let mut standing = Vec::with_capacity(chains.len());
    for (key, enrolment, batch, shard, first, count) in chains {
        let (first, count) = (first.unsigned_abs(), u64::from(count.unsigned_abs()));
        let hashes = read::leaf_hashes(&mut *connection, shard, first, count).await?;
        let digest = batch_digest(hashes);
        standing.push(Standing { key, enrolment, batch: batch.unsigned_abs(), digest });
    }
    Ok(standing)
}
