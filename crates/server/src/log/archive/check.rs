//! Reading an archive back: all of it, as `cortex-verify` does it with a copy.

use std::collections::BTreeMap;

use cortex_log::Hash;
use cortex_log::audit::Auditor;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::Verifier;
use cortex_log::opening::Head;
use cortex_log::tile::{self, MAX_BUNDLE_BYTES, MAX_TILE_BYTES, Tile, TilePath};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::write::{MAX_LIST_BYTES, checkpoint, text};
use super::{ArchiveError, Place};

/// How many bundles are read and verified at a time.
const BUNDLES: u64 = 16;
/// How many of them are read at once.
const AT_ONCE: usize = 8;

/// Verifies the archive from the log's first leaf on. Answers how far it has each tree.
pub(super) async fn check(
    key: &Verifier,
    place: &Place,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Vec<Head>, ArchiveError> {
    let absent = |path: &str| ArchiveError::File(format!("{}/{path} is not there", place.address()));
    let names = text(place, "shards", MAX_LIST_BYTES).await?.ok_or_else(|| absent("shards"))?;
    let mut auditor = Auditor::new(key.clone(), Vec::new());
    let (mut heads, mut done) = (Vec::new(), 0);
    for name in names.lines() {
        let covers = checkpoint(key, place, name).await?.ok_or_else(|| absent(name))?;
        let mut upper = BTreeMap::new();
        let mut audit = auditor.begin(&covers.origin);
        let bundles = covers.size.div_ceil(256);
        for first in (0..bundles).step_by(usize::try_from(BUNDLES).unwrap_or(1)) {
            let read = read(place, name, &covers, first..bundles.min(first + BUNDLES)).await?;
            let (leaves, hashes): (Vec<Vec<Vec<u8>>>, Vec<Vec<Hash>>) = read.into_iter().unzip();
            let leaves = leaves.concat();
            let tiles = audit.feed(&leaves, &hashes.concat())?;
            upper.extend(tiles.into_iter().filter(|tile| tile.level > 0).map(|t| ((t.level, t.index), t)));
            done += u64::try_from(leaves.len()).unwrap_or_default();
            progress(done);
        }
        audit.end(&covers)?;
        compare(place, name, &covers, upper.into_values()).await?;
        let Checkpoint { origin, size, root, .. } = covers;
        heads.push(Head { origin, size, root });
    }
    auditor.finish()?;
    Ok(heads)
}

/// Bundles, each with its leaves and their published hashes.
async fn read(
    place: &Place,
    name: &str,
    covers: &Checkpoint,
    indexes: std::ops::Range<u64>,
) -> Result<Vec<(Vec<Vec<u8>>, Vec<Hash>)>, ArchiveError> {
    let read = indexes.filter_map(|index| Some((index, tile::width(covers.size, 0, index)?)));
    let read = read.map(|(index, width)| async move {
        let entries = TilePath::Entries { index, width };
        let bundle = get(place, name, entries, MAX_BUNDLE_BYTES).await?;
        let leaves = tile::decode_bundle(&bundle).map_err(|error| damaged(place, name, entries, &error))?;
        let leaves: Vec<Vec<u8>> = leaves.into_iter().map(<[u8]>::to_vec).collect();
        let path = TilePath::Hashes { level: 0, index, width };
        let hashes = get(place, name, path, MAX_TILE_BYTES).await?;
        let hashes = tile::decode_hashes(&hashes).map_err(|error| damaged(place, name, path, &error))?;
        Ok::<_, ArchiveError>((leaves, hashes))
    });
    futures_util::stream::iter(read).buffered(AT_ONCE).try_collect().await
}

async fn get(place: &Place, name: &str, path: TilePath, limit: usize) -> Result<Vec<u8>, ArchiveError> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let found = place.get(&format!("{name}/{path}"), limit).await?;
    Ok(found.ok_or_else(|| damaged(place, name, path, &"it is not there"))?.bytes)
}

fn damaged(place: &Place, name: &str, path: TilePath, why: &impl ToString) -> ArchiveError {
    ArchiveError::File(format!("{}/{name}/{path}: {}", place.address(), why.to_string()))
}

/// The tiles above the lowest level are those of the leaves.
async fn compare(
    place: &Place,
    name: &str,
    covers: &Checkpoint,
    tiles: impl Iterator<Item = Tile>,
) -> Result<(), ArchiveError> {
    for Tile { level, index, hashes } in tiles {
        let width = tile::width(covers.size, level, index).unwrap_or_default();
        let path = TilePath::Hashes { level, index, width };
        if get(place, name, path, MAX_TILE_BYTES).await? != tile::encode_hashes(&hashes) {
            return Err(damaged(place, name, path, &"it is not that of the leaves"));
        }
    }
    Ok(())
}
