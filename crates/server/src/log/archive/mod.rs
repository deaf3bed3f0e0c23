//! Old records leave the database: the log's beginning is written to an archive, read back and verified there, and then
//! dropped here. The archive has the layout in which the log is published, so that whoever verifies the log verifies it.

mod check;
mod write;

use std::time::Duration;

use cortex_core::record::{Archived, Dropped, Extent};
use cortex_log::audit::Fault;
use cortex_log::note::Verifier;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use super::{LogConfig, MERGE_DELAY, ObjectError, Place};
use crate::store::log::archives::{self, Cut};
use crate::store::log::drops::{self, Deleted, Reach};
use crate::store::questions;
use crate::store::{Stamp, StoreError, streams};

/// How long a record may take until it is published: what a receipt promises.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(MERGE_DELAY.as_secs().unsigned_abs());
/// How often it is looked for.
const LOOKED_FOR_EVERY: Duration = Duration::from_millis(100);

/// Why records were not archived or dropped; what was done before is whole as far as it goes.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The month is not over.
    #[error("{0} is not over yet: name this month, or an earlier one")]
    Future(String),
    /// Nothing was published before.
    #[error("nothing that was published before {0} can be told from what was published since")]
    Nothing(Timestamp),
    /// The archive cannot be read or written.
    #[error(transparent)]
    Place(#[from] ObjectError),
    /// What is in the archive is not the log, or not all of it.
    #[error("the archive is not whole: {0}")]
    Unsound(#[from] Fault),
    /// A file of the archive is not what it has to be.
    #[error("the archive is not whole: {0}")]
    File(String),
    /// Nobody said how long records are kept.
    #[error("log.retention_months is not set: records stay in the database for good")]
    KeptForGood,
    /// They are to stay longer.
    #[error("log.retention_months is {months}: name {latest} or an earlier month")]
    Retained {
        /// How many months they stay.
        months: u32,
        /// The latest month that may be named.
        latest: String,
    },
    /// There is no archive of it.
    #[error("nothing of it is archived yet: `cortex log archive` first")]
    NotArchived,
    /// A stream has not sent it.
    #[error("the stream {0:?} has not come that far: records that it has not sent stay")]
    Unsent(String),
    /// No replica publishes the log.
    #[error(
        "that records go is on record and not yet in the log, so nothing was dropped: start a replica, and drop again"
    )]
    Unpublished,
    /// The role may not.
    #[error(
        "this role may not drop records, and the server's must not: set DATABASE_URL to the owner of the tables"
    )]
    NotOwner,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first instant of a month, written as 2026-01. It has to be over, up to now.
pub fn month(text: &str, now: Timestamp) -> Result<Timestamp, ArchiveError> {
    let first = format!("{text}-01T00:00:00Z").parse::<Timestamp>();
    first.ok().filter(|first| *first <= now).ok_or_else(|| ArchiveError::Future(text.to_owned()))
}

/// Writes what was published before `before` to `place`, where an earlier archive of this log may be, reads all of it back,
/// verifies it, and puts that on record. Tells `progress` how many leaves are done, and of how many.
pub async fn archive(
    pool: &PgPool,
    key: &Verifier,
    place: &Place,
    (before, by): (Timestamp, String),
    stamp: &Stamp,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<Archived, ArchiveError> {
    let cuts = archives::cuts(pool, key, before).await?;
    if cuts.is_empty() {
        return Err(ArchiveError::Nothing(before));
    }
    let total = 2 * cuts.iter().map(|cut| cut.checkpoint.size).sum::<u64>();
    write::write(pool, key, place, &cuts, |done| progress(done, total)).await?;
    let trees = check::check(key, place, |done| progress(total / 2 + done, total)).await?;
    let missing = cuts.iter().find(|cut| {
        !trees.iter().any(|tree| tree.origin == cut.checkpoint.origin && tree.size >= cut.checkpoint.size)
    });
    if let Some(cut) = missing {
        return Err(ArchiveError::File(format!("{} does not go as far as it should", cut.checkpoint.origin)));
    }
    let archived = Archived { place: place.address().to_owned(), before, trees, by };
    archives::note(pool, archived.clone(), stamp).await?;
    Ok(archived)
}

/// Drops what was published before `before`, is archived, and is old enough; puts that on record first. `owner` is a
/// connection of the tables' owner. Tells `progress` how many leaves are done, and of how many.
pub async fn drop_before(
    pool: &PgPool,
    owner: &mut PgConnection,
    config: &LogConfig,
    streams: &[&str],
    (before, by): (Timestamp, String),
    stamp: &Stamp,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<(Dropped, Deleted), ArchiveError> {
    old_enough(config, before, stamp.clock.now())?;
    if !drops::may_delete(owner).await? {
        return Err(ArchiveError::NotOwner);
    }
    let archived = archives::last(pool).await?.ok_or(ArchiveError::NotArchived)?;
    let verifier = stamp.chains.verifier();
    let cuts = archives::cuts(pool, &verifier, before).await?;
    let going: Vec<(Reach, Extent)> = cuts.iter().filter_map(|cut| reach(cut, &archived)).collect();
    let Some((newest, _)) = going.last() else { return Err(ArchiveError::NotArchived) };
    let names: Vec<&str> = streams.iter().copied().chain([questions::CURSOR]).collect();
    if let Some(name) = streams::one_before(pool, &names, newest.shard, newest.upto).await? {
        let name = if name == questions::CURSOR { "of what auditors ask by".to_owned() } else { name };
        return Err(ArchiveError::Unsent(name));
    }
    let (reaches, trees): (Vec<Reach>, Vec<Extent>) = going.into_iter().unzip();
    let dropped = Dropped { archive: archived.place, before, trees, by };
    let record = drops::permit(owner, &reaches, dropped.clone(), stamp).await?;
    published(owner, record).await?;
    let total = reaches.iter().map(|reach| reach.upto.unsigned_abs()).sum();
    let (mut done, mut deleted) = (0, Deleted::default());
    for reach in reaches {
        let of_tree = drops::delete(owner, reach, |leaves| {
            done += leaves;
            progress(done, total);
        });
        let of_tree = of_tree.await?;
        deleted.dropped += of_tree.dropped;
        deleted.kept += of_tree.kept;
    }
    Ok((dropped, deleted))
}

/// Waits until the log itself says that records go: whoever verifies it then knows why they are not there.
async fn published(owner: &mut PgConnection, record: uuid::Uuid) -> Result<(), ArchiveError> {
    let until = Instant::now() + PUBLISHED_WITHIN;
    while !drops::is_published(owner, record).await? {
        if Instant::now() > until {
            return Err(ArchiveError::Unpublished);
        }
        tokio::time::sleep(LOOKED_FOR_EVERY).await;
    }
    Ok(())
}

fn old_enough(config: &LogConfig, before: Timestamp, now: Timestamp) -> Result<(), ArchiveError> {
    let months = config.retention_months.ok_or(ArchiveError::KeptForGood)?;
    let this_month = now.to_zoned(TimeZone::UTC).first_of_month().map_err(|e| corrupt(&e))?;
    let latest = this_month.checked_sub(Span::new().months(months)).map_err(|e| corrupt(&e))?;
    let latest = latest.start_of_day().map_err(|e| corrupt(&e))?;
    if before <= latest.timestamp() {
        return Ok(());
    }
    Err(ArchiveError::Retained { months, latest: latest.strftime("%Y-%m").to_string() })
}

fn corrupt(error: &jiff::Error) -> ArchiveError {
    crate::store::log::corrupt(error).into()
}

/// How far records of a tree may go: as far as the archive has them. A bundle goes whole, so that what is published of the log
/// is in the archive or here.
fn reach(cut: &Cut, archived: &Archived) -> Option<(Reach, Extent)> {
    let kept = archived.trees.iter().find(|tree| tree.origin == cut.checkpoint.origin)?;
    let size = if cut.whole && kept.size >= cut.checkpoint.size {
        cut.checkpoint.size
    } else {
        cut.checkpoint.size.min(kept.size) / 256 * 256
    };
    let upto = i64::try_from(size).ok().filter(|upto| *upto > 0)?;
    let extent = Extent { origin: kept.origin.clone(), size };
    Some((Reach { shard: cut.shard.number, upto }, extent))
}
