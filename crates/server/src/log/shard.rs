//! Trees: one for each year, and another one after a recovery. Each opens with what the one before it was.

use cortex_core::record::What;
use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::opening::{Head, ShardOpened, Standing};
use cortex_log::tree::Frontier;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::chain::Role;
use crate::store::log::read::{self, Shard};
use crate::store::log::sequence::{self, NewBatch, Sequenced};
use crate::store::log::{chains, corrupt};
use crate::store::{Stamp, StoreError, micros};

/// How long ago a process may have been seen whose chains go on in a new tree.
const SEEN_WITHIN: SignedDuration = SignedDuration::from_hours(24);
/// How many chains go on: their keys have to fit the first leaf.
const CARRIED: i64 = 80;

/// Why a tree is opened.
#[derive(Debug)]
pub(crate) enum Opening<'a> {
    /// There is none yet.
    First,
    /// The year of this one is over.
    NewYear(&'a Shard),
    /// This one has lost what was published.
    Recovery(&'a Shard, Recovered),
}

/// The year in which a tree that is opened now grows, in UTC.
pub(crate) fn year(now: Timestamp) -> i16 {
    now.to_zoned(TimeZone::UTC).year()
}

/// The year of a tree, by its name.
pub(crate) fn year_of(name: &str) -> i16 {
    name.split('-').next().and_then(|year| year.parse().ok()).unwrap_or(i16::MAX)
}

/// Opens a tree, with its first leaf. The caller holds the lock on the one before it.
pub(crate) async fn open(
    tx: &mut PgConnection,
    stamp: &Stamp,
    opening: Opening<'_>,
) -> Result<Shard, StoreError> {
    let now = stamp.clock.now();
    if matches!(opening, Opening::Recovery(..)) {
        sequence::close_all(tx).await?;
    }
    let since = micros(now.saturating_sub(SEEN_WITHIN).unwrap_or(now));
    let carried = sequence::carry_on(tx, since, CARRIED).await?;
    let chain = stamp.chains.begin(Role::Sequencer, &*stamp.random).map_err(corrupt)?;
    let (previous, recovered) = match opening {
        Opening::First => (None, None),
        Opening::NewYear(before) => (Some(before), None),
        Opening::Recovery(before, recovered) => (Some(before), Some(recovered)),
    };
    let name = name(previous, year(now));
    let origin = format!("{}/{name}", stamp.chains.base());
    let (key, enrolment) = (chain.key(), chain.enrolment.clone());
    let own = Standing { key, enrolment, batch: 0, digest: Hash::ZERO };
    let opened = ShardOpened {
        origin: origin.clone(),
        previous: previous.map(head),
        recovered: recovered.map(serde_json::to_value).transpose().map_err(corrupt)?,
        chains: std::iter::once(own).chain(carried).collect(),
    };
    let first = chains::open_tree(tx, &chain, What::ShardOpened(Box::new(opened)), stamp).await?;
    let empty = Shard {
        number: previous.map_or(1, |before| before.number + 1),
        name,
        origin,
        size: 0,
        root: Frontier::empty().root(),
        time_ms: previous.map_or(0, |before| before.time_ms).max(now.as_millisecond()),
        checkpoint: None,
        published: 0,
    };
    plant(tx, empty, first).await
}

/// Makes the tree of its first batch.
async fn plant(tx: &mut PgConnection, empty: Shard, first: NewBatch) -> Result<Shard, StoreError> {
    let mut tree = Frontier::empty();
    let tiles = tree.append(&first.leaves);
    let planted = Shard { size: tree.size(), root: tree.root(), ..empty.clone() };
    let digest = cortex_log::seal::batch_digest(first.leaves.iter().copied());
    let moved = Sequenced { chain: first.chain, upto: first.batch, digest };
    sequence::open_shard(tx, &empty).await?;
    sequence::put_tiles(tx, empty.number, &tiles).await?;
    sequence::place(tx, empty.number, 0, &[first]).await?;
    sequence::advance_chains(tx, &[moved]).await?;
    sequence::grow(tx, &empty, &planted).await?;
    Ok(planted)
}

/// A year's tree is called after it; another one of that year after a recovery has a number too.
fn name(previous: Option<&Shard>, year: i16) -> String {
    let before = previous.filter(|before| year_of(&before.name) == year);
    let Some(before) = before else { return year.to_string() };
    let number: u32 = before.name.split_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(1);
    format!("{year}-{}", number + 1)
}

fn head(shard: &Shard) -> Head {
    Head { origin: shard.origin.clone(), size: shard.size, root: shard.root }
}

/// What had been published of a tree and is no longer there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// What had been published, by the anchor.
    pub published: Head,
    /// Who wrote it off: two operators, as they named themselves.
    pub by: [String; 2],
    /// Why, in their words.
    pub reason: String,
}

/// The tree of this origin: `newest`, or an earlier one.
pub(crate) async fn of_origin(
    connection: &mut PgConnection,
    origin: &str,
    newest: &Shard,
) -> Result<Option<Shard>, StoreError> {
    if newest.origin == origin {
        return Ok(Some(newest.clone()));
    }
    Ok(read::shards(connection).await?.into_iter().find(|shard| shard.origin == origin))
}

/// Whether what the anchor holds is written off: a recovery said that it was lost.
pub(crate) async fn recovered_from(
    connection: &mut PgConnection,
    anchored: &Checkpoint,
) -> Result<bool, StoreError> {
    let origin = &anchored.origin;
    let written_off = read::recoveries(connection)
        .await?
        .into_iter()
        .any(|recovered| recovered.published.origin == *origin && recovered.published.size >= anchored.size);
    Ok(written_off)
}
