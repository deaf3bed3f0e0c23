//! The log as it is published: tiles, bundles of leaves and proofs, as wide as the newest checkpoint is.

use std::collections::HashMap;

use cortex_log::Hash;
use cortex_log::proof::{Plan, ProofFile};
use cortex_log::{seal, tile};
use sqlx::PgPool;

use super::corrupt;
use super::read::{self, Shard};
use crate::store::StoreError;

/// The bytes of a tile of this width; none if the checkpoint does not cover it.
pub(crate) async fn hashes(
    pool: &PgPool,
    shard: &Shard,
    level: u8,
    index: u64,
    width: u16,
) -> Result<Option<Vec<u8>>, StoreError> {
    if tile::width(shard.published, level, index).is_none_or(|published| width > published) {
        return Ok(None);
    }
    let hashes = read::tile(pool, shard.number, level, index).await?;
    let wide = hashes.as_ref().and_then(|hashes| hashes.get(..usize::from(width)));
    Ok(wide.map(tile::encode_hashes))
}

/// The bytes of a bundle of this many leaves; none if the checkpoint does not cover it. A bundle that is not whole any more,
/// because records of it were dropped, is an error that says where it is.
pub(crate) async fn entries(
    pool: &PgPool,
    shard: &Shard,
    index: u64,
    width: u16,
) -> Result<Option<Vec<u8>>, StoreError> {
    if tile::width(shard.published, 0, index).is_none_or(|published| width > published) {
        return Ok(None);
    }
    let first = index.saturating_mul(256);
    let mut connection = pool.acquire().await?;
    let leaves = read::leaves(&mut connection, shard.number, first, u64::from(width)).await?;
    if leaves.len() != usize::from(width) {
        if let Some(gone) = read::dropped(&mut *connection, shard.number).await?
            && first < gone.upto
        {
            return Err(StoreError::Archived { archive: gone.archive, origin: shard.origin.clone(), first });
        }
        return Err(StoreError::Corrupt(format!("leaves from {first} of {} are missing", shard.origin)));
    }
    let leaves: Vec<Vec<u8>> = leaves.iter().map(|(entry, seal)| seal::join(entry, seal)).collect();
    tile::encode_bundle(&leaves).map(Some).map_err(corrupt)
}

/// The proof that the published tree begins with the tree of its first `old` leaves.
pub(crate) async fn consistency(pool: &PgPool, shard: &Shard, old: u64) -> Result<Vec<Hash>, StoreError> {
    read_plan(pool, shard, &Plan::consistency(old, shard.published).map_err(corrupt)?).await
}

/// The proof of a leaf; none if the checkpoint does not cover it.
pub(crate) async fn proof(pool: &PgPool, shard: &Shard, index: u64) -> Result<Option<ProofFile>, StoreError> {
    let Some(checkpoint) = shard.checkpoint.clone().filter(|_| index < shard.published) else {
        return Ok(None);
    };
    let plan = Plan::inclusion(index, shard.published).map_err(corrupt)?;
    let hashes = read_plan(pool, shard, &plan).await?;
    Ok(Some(ProofFile { index, hashes, checkpoint }))
}

async fn read_plan(pool: &PgPool, shard: &Shard, plan: &Plan) -> Result<Vec<Hash>, StoreError> {
    let mut tiles: HashMap<(u8, u64), Vec<Hash>> = HashMap::new();
    for (level, index, _) in plan.tiles() {
        let hashes = read::tile(pool, shard.number, level, index).await?;
        tiles.insert((level, index), hashes.unwrap_or_default());
    }
    let read = |level: u8, index: u64, width: u16| {
        let wide = tiles.get(&(level, index)).and_then(|hashes| hashes.get(..usize::from(width)));
        wide.map(<[Hash]>::to_vec).ok_or_else(|| format!("tile {index} of level {level} is missing"))
    };
    plan.hashes(read).map_err(|error| corrupt(format!("{error:?}")))
}
