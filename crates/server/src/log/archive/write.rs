//! Writing an archive: tiles and bundles first, then the checkpoints that cover them, then the list of trees.

use std::collections::BTreeSet;

use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::{MAX_NOTE_BYTES, Verifier};
use cortex_log::tile::{self, TilePath};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::PgPool;

use super::ArchiveError;
use crate::log::Place;
use crate::log::objects::{Condition, ObjectError};
use crate::store::log::archives::Cut;
use crate::store::log::{corrupt, tiles};

/// How many files are written at once; each takes a connection of the pool while it is read.
const AT_ONCE: usize = 4;
/// The longest list of trees, in bytes.
pub(super) const MAX_LIST_BYTES: u64 = 64 * 1024;

/// Writes each tree as far as it is cut. What an earlier archive there has is not written again.
pub(super) async fn write(
    pool: &PgPool,
    key: &Verifier,
    place: &Place,
    cuts: &[Cut],
    mut progress: impl FnMut(u64) + Send,
) -> Result<(), ArchiveError> {
    let mut done = 0;
    for cut in cuts {
        let there = checkpoint(key, place, &cut.shard.name).await?.map_or(0, |there| there.size);
        if there < cut.checkpoint.size {
            write_tree(pool, place, cut, there).await?;
        }
        done += cut.checkpoint.size;
        progress(done);
    }
    let mut names: BTreeSet<(i32, String)> = BTreeSet::new();
    names.extend(cuts.iter().map(|cut| (cut.shard.number, cut.shard.name.clone())));
    let listed: String = names.iter().flat_map(|(_, name)| [name.as_str(), "\n"]).collect();
    // An archive that goes further than what is written now keeps its list.
    if text(place, "shards", MAX_LIST_BYTES).await?.is_none_or(|there| listed.len() > there.len()) {
        put(place, "shards", listed.into_bytes()).await?;
    }
    Ok(())
}

async fn write_tree(pool: &PgPool, place: &Place, cut: &Cut, there: u64) -> Result<(), ArchiveError> {
    let size = cut.checkpoint.size;
    let files = tile::levels(size).flat_map(|level| {
        let count = (size >> (8 * u32::from(level))).div_ceil(256);
        (0..count).filter_map(move |index| Some((level, index, tile::width(size, level, index)?)))
    });
    // What is full in the earlier archive never changes.
    let missing = files.filter(|(level, index, _)| tile::width(there, *level, *index) != Some(256));
    futures_util::stream::iter(missing.map(|file| write_tile(pool, place, cut, file)))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    put(place, &format!("{}/checkpoint", cut.shard.name), cut.note.clone().into_bytes()).await
}

async fn write_tile(
    pool: &PgPool,
    place: &Place,
    cut: &Cut,
    (level, index, width): (u8, u64, u16),
) -> Result<(), ArchiveError> {
    let Cut { shard, .. } = cut;
    let missing = || corrupt(format!("tile {index} of level {level} of {} is missing", shard.origin));
    let hashes = tiles::hashes(pool, shard, level, index, width).await?.ok_or_else(missing)?;
    put(place, &format!("{}/{}", shard.name, TilePath::Hashes { level, index, width }), hashes).await?;
    if level == 0 {
        let entries = tiles::entries(pool, shard, index, width).await?.ok_or_else(missing)?;
        put(place, &format!("{}/{}", shard.name, TilePath::Entries { index, width }), entries).await?;
    }
    Ok(())
}

async fn put(place: &Place, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
    place.put(name, bytes, Condition::Any).await?;
    Ok(())
}

/// The checkpoint that an archive has of a tree; it has to be the log's.
pub(super) async fn checkpoint(
    key: &Verifier,
    place: &Place,
    name: &str,
) -> Result<Option<Checkpoint>, ArchiveError> {
    let limit = u64::try_from(MAX_NOTE_BYTES).unwrap_or(u64::MAX);
    let path = format!("{name}/checkpoint");
    let Some(note) = text(place, &path, limit).await? else { return Ok(None) };
    let key = key.named(&format!("{}/{name}", key.name())).map_err(corrupt)?;
    let wrong = |error| ArchiveError::File(format!("{}/{path} is not this log's: {error}", place.address()));
    Checkpoint::open(&note, &key).map(Some).map_err(wrong)
}

pub(super) async fn text(place: &Place, name: &str, limit: u64) -> Result<Option<String>, ObjectError> {
    let Some(found) = place.get(name, limit).await? else { return Ok(None) };
    let text = String::from_utf8(found.bytes);
    text.map(Some).map_err(|_| ObjectError::new(format!("{}/{name}", place.address()), "not a text"))
}
