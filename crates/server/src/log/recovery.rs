//! After an older state of the database was restored: what had been published is gone for good, and a new tree says so.

use cortex_log::opening::Head;
use sqlx::{Connection as _, PgPool};

use super::shard::{self, Opening, Recovered};
use super::{Anchor, AnchorError, LogConfig, ObjectError};
use crate::store::log::read::Shard;
use crate::store::log::{corrupt, read, sequence};
use crate::store::{Stamp, StoreError};

/// Why nothing was recovered; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Nothing is missing.
    #[error("the database has everything that the anchor says was published: there is nothing to recover")]
    NothingLost,
    /// There is no log to go on with.
    #[error(
        "the database has no log: point `log.anchor_file` or `log.anchor_url` at one that is not there to begin one"
    )]
    NoLog,
    /// The anchor.
    #[error("the log's anchor: {0}")]
    Anchor(#[from] AnchorError),
    /// A replica runs.
    #[error("a replica is at work on the log: stop every replica first")]
    Busy,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ObjectError> for RecoverError {
    fn from(error: ObjectError) -> Self {
        Self::Anchor(error.into())
    }
}

impl From<sqlx::Error> for RecoverError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Writes off what the anchor says was published and the database does not have, and opens a new tree that says so. The old
/// one gets a last checkpoint, of what it has. Every chain ends: whoever wrote to one has forgotten what is lost, or
/// remembers too much.
pub async fn recover(
    pool: &PgPool,
    config: &LogConfig,
    stamp: &Stamp,
    by: [String; 2],
    reason: String,
) -> Result<(Recovered, Shard), RecoverError> {
    let anchor = Anchor::open(config)?;
    let anchored = anchor.read().await?.ok_or(RecoverError::NothingLost)?;
    let mut connection = pool.acquire().await?;
    if read::newest(&mut *connection).await?.is_none() {
        return Err(RecoverError::NoLog);
    }
    let mut tx = connection.begin().await?;
    let old = sequence::lock(&mut tx).await?.ok_or(RecoverError::Busy)?;
    if old.origin == anchored.origin && old.size >= anchored.size {
        return Err(RecoverError::NothingLost);
    }
    let published = Head { origin: anchored.origin.clone(), size: anchored.size, root: anchored.root };
    let recovered = Recovered { published, by, reason };
    let opening = Opening::Recovery(&old, recovered.clone());
    let next = shard::open(&mut tx, stamp, opening).await?;
    tx.commit().await?;
    drop(connection);
    for shard in [&old, &next] {
        let signer = stamp.chains.log().named(&shard.origin).map_err(corrupt)?;
        let checkpoint = shard.state().sign(&signer).map_err(corrupt)?;
        if shard.origin == next.origin && !anchor.replace(Some(&anchored), &shard.state()).await? {
            return Err(RecoverError::Busy);
        }
        sequence::publish_last(pool, shard.number, &checkpoint).await?;
    }
    Ok((recovered, next))
}
