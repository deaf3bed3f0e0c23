//! The log as files: the layout in which it is published, for whoever verifies it without this server.

use std::path::{Path, PathBuf};

use cortex_log::tile::{self, TilePath};
use sqlx::PgPool;

use crate::store::log::read::{self, Shard};
use crate::store::log::{corrupt, tiles};
use crate::store::{StoreError, personal};

/// The file with what opens the leaves' commitments.
const PERSONAL: &str = "personal.jsonl";
/// How many openings are read at a time.
const OPENINGS_AT_ONCE: i64 = 4_096;

/// Why it was not written to its end; what was written is whole as far as it goes.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        error: std::io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the log's trees below `folder`. What is there already of an earlier export is not written again, but for what has
/// grown; checkpoints come last, so that they are never newer than the rest. Tells `progress` how many leaves are done, and
/// of how many.
///
/// With `names`, what opens the leaves' commitments to people comes along, of those who are not erased; without, what an
/// earlier export brought of it goes.
pub async fn export(
    pool: &PgPool,
    folder: &Path,
    names: bool,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<Vec<Shard>, ExportError> {
    let shards = read::shards(pool).await?;
    let total = shards.iter().map(|shard| shard.published).sum();
    let mut done = 0;
    for shard in &shards {
        for level in tile::levels(shard.published) {
            let finished = (shard.published >> (8 * u32::from(level))).div_ceil(256);
            for index in 0..finished {
                let Some(width) = tile::width(shard.published, level, index) else { continue };
                write_tile(pool, folder, shard, (level, index, width)).await?;
                if level == 0 {
                    done += u64::from(width);
                    progress(done, total);
                }
            }
        }
    }
    for shard in &shards {
        if let Some(checkpoint) = &shard.checkpoint {
            put(&folder.join(&shard.name).join("checkpoint"), checkpoint.as_bytes()).await?;
        }
    }
    put(&folder.join("shards"), read::names(&shards).as_bytes()).await?;
    let path = folder.join(PERSONAL);
    if names {
        put(&path, &openings(pool).await?).await?;
    } else if is_there(&path).await? {
        tokio::fs::remove_file(&path).await.map_err(|error| file(&path, error))?;
    }
    Ok(shards)
}

/// What opens commitments, as JSON lines.
async fn openings(pool: &PgPool) -> Result<Vec<u8>, StoreError> {
    let (mut lines, mut after) = (Vec::new(), String::new());
    loop {
        let page = personal::page(pool, &after, OPENINGS_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(lines) };
        after.clone_from(&last.commitment);
        for opening in page {
            serde_json::to_writer(&mut lines, &opening).map_err(corrupt)?;
            lines.push(b'\n');
        }
    }
}

async fn write_tile(
    pool: &PgPool,
    folder: &Path,
    shard: &Shard,
    (level, index, width): (u8, u64, u16),
) -> Result<(), ExportError> {
    let missing = || corrupt(format!("tile {index} of level {level} of {} is missing", shard.origin));
    let root = folder.join(&shard.name);
    let path = root.join(TilePath::Hashes { level, index, width }.to_string());
    if !is_there(&path).await? {
        let bytes = tiles::hashes(pool, shard, level, index, width).await?.ok_or_else(missing)?;
        put(&path, &bytes).await?;
    }
    let path = root.join(TilePath::Entries { index, width }.to_string());
    if level == 0 && !is_there(&path).await? {
        let bytes = tiles::entries(pool, shard, index, width).await?.ok_or_else(missing)?;
        put(&path, &bytes).await?;
    }
    Ok(())
}

async fn is_there(path: &Path) -> Result<bool, ExportError> {
    tokio::fs::try_exists(path).await.map_err(|error| file(path, error))
}

/// Writes a file whole, or not at all.
async fn put(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let new = PathBuf::from(format!("{}.new", path.display()));
    let written = async {
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        tokio::fs::write(&new, bytes).await?;
        tokio::fs::rename(&new, path).await
    };
    written.await.map_err(|error| file(path, error))
}

fn file(path: &Path, error: std::io::Error) -> ExportError {
    ExportError::File { path: path.display().to_string(), error }
}
