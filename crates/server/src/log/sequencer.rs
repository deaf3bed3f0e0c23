//! The sequencer: takes what the chains have written into the tree, and publishes what the tree is then.
//!
//! Every replica runs it; the row lock on the tree only saves work. What makes it true is that the tree is changed by
//! comparing what it was, that the anchor outside the database is changed by comparing what it held, and that nothing is
//! signed before both.

use std::time::Duration;

use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::Verifier;
use cortex_log::seal::{self, Seal, batch_digest};
use cortex_log::tile;
use cortex_log::tree::Frontier;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::shard::{self, year};
use super::{Anchor, AnchorError, Fault, Health, LogConfig, ObjectError};
use crate::log::chain::Chains;
use crate::store::log::corrupt;
use crate::store::log::read::{self, Shard};
use crate::store::log::sequence::{self, NewBatch, Sequenced, WaitingChain, WrittenLeaf};
use crate::store::{Stamp, StoreError};

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The log is not what it has to be.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The anchor cannot be read or written.
    #[error("the log's anchor: {0}")]
    Anchor(#[from] AnchorError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RoundError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A replica's sequencer.
pub struct Sequencer {
    anchor: Anchor,
    health: Health,
    stamp: Stamp,
    known: Mutex<Known>,
}

/// What this replica has seen itself, so that it need not read it again.
#[derive(Default)]
struct Known {
    /// The tree that grows.
    tree: Option<(i32, Frontier)>,
    /// What the anchor held when it was last compared with the database.
    anchored: Option<Checkpoint>,
}

impl Sequencer {
    /// One that works for whoever writes by `stamp`, and tells `health`.
    pub fn new(config: &LogConfig, stamp: Stamp, health: Health) -> Result<Self, ObjectError> {
        Ok(Self { anchor: Anchor::open(config)?, health, stamp, known: Mutex::default() })
    }

    /// Whether something is wrong with the log.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Works for as long as it is polled.
    pub(crate) async fn work_forever(&self, pool: &PgPool, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.round(pool).await {
                tracing::warn!(%error, "the log was not brought up to date; trying again");
            }
        }
    }

    /// Integrates what has been written, and publishes the tree. Says what is wrong to whoever shares its health.
    pub async fn round(&self, pool: &PgPool) -> Result<(), RoundError> {
        let mut known = self.known.lock().await;
        let done = self.integrate(pool, &mut known).await;
        let outcome = match &done {
            Ok(()) => {
                self.health.found(None);
                self.health.anchored(None);
                "done"
            }
            Err(RoundError::Fault(fault)) => {
                self.health.found(Some(fault.clone()));
                "fault"
            }
            Err(RoundError::Anchor(error)) => {
                self.health.anchored(Some(error.to_string()));
                "anchor"
            }
            Err(RoundError::Store(_)) => "database",
        };
        metrics::counter!("cortex_log_rounds_total", "outcome" => outcome).increment(1);
        if done.is_err() {
            known.tree = None;
        }
        done
    }

    async fn integrate(&self, pool: &PgPool, known: &mut Known) -> Result<(), RoundError> {
        // Before the database, which is always ahead of it; and before the lock, which nobody holds while a store far away
        // takes its time.
        let anchored = self.anchor.read().await?;
        let mut connection = pool.acquire().await?;
        let mut tx = connection.begin().await?;
        let Some(shard) = sequence::lock(&mut tx).await? else {
            tx.rollback().await?;
            drop(connection);
            return self.follow(pool, known, anchored).await;
        };
        self.compare(&mut tx, known, &shard, anchored).await?;
        let now = self.stamp.clock.now();
        if year(now) > shard::year_of(&shard.name) && shard.published == shard.size {
            let next = shard::open(&mut tx, &self.stamp, shard::Opening::NewYear(&shard)).await?;
            tx.commit().await?;
            known.tree = None;
            return self.publish(pool, known, &next).await;
        }
        let waiting = sequence::waiting(&mut tx).await?;
        let (batches, moved) = gather(&mut tx, &self.stamp.chains, waiting).await?;
        let next = if moved.is_empty() {
            shard.clone()
        } else {
            self.grow(&mut tx, known, &shard, (&batches, &moved)).await?
        };
        tx.commit().await?;
        drop(connection);
        if next.published < next.size || next.checkpoint.is_none() {
            self.publish(pool, known, &next).await?;
        }
        Ok(())
    }

    async fn grow(
        &self,
        tx: &mut PgConnection,
        known: &mut Known,
        shard: &Shard,
        (batches, moved): (&[NewBatch], &[Sequenced]),
    ) -> Result<Shard, RoundError> {
        let mut tree = frontier(tx, known, shard).await?;
        let leaves: Vec<Hash> = batches.iter().flat_map(|batch| batch.leaves.iter().copied()).collect();
        let tiles = tree.append(&leaves);
        let now = self.stamp.clock.now().as_millisecond();
        // The order is the index, not the time; but the time never goes back either.
        let time_ms = if leaves.is_empty() { shard.time_ms } else { now.max(shard.time_ms) };
        let next = Shard { size: tree.size(), root: tree.root(), time_ms, ..shard.clone() };
        sequence::put_tiles(tx, shard.number, &tiles).await?;
        sequence::place(tx, shard.number, shard.size, batches).await?;
        sequence::advance_chains(tx, moved).await?;
        if !sequence::grow(tx, shard, &next).await? {
            return Err(StoreError::Corrupt("the tree changed under its lock".to_owned()).into());
        }
        known.tree = Some((shard.number, tree));
        Ok(next)
    }

    /// Anchors what is committed, and only then signs it. Signing the same again gives the same, so a crash in between
    /// does no harm.
    async fn publish(&self, pool: &PgPool, known: &mut Known, shard: &Shard) -> Result<(), RoundError> {
        let state = shard.state();
        // Another replica was quicker: what it has anchored is looked at before anything is signed.
        if !self.anchor.replace(known.anchored.as_ref(), &state).await? {
            return Ok(());
        }
        known.anchored = Some(state.clone());
        let signer = self.stamp.chains.log().named(&shard.origin).map_err(corrupt)?;
        let checkpoint = state.sign(&signer).map_err(corrupt)?;
        if let Some(last) = last_of_its_month(shard, &signer.verifier()) {
            sequence::keep_month_end(pool, shard, last.time_ms).await?;
        }
        sequence::publish(pool, shard.number, shard.size, &checkpoint).await?;
        metrics::gauge!("cortex_log_checkpoint_timestamp_seconds")
            .set(as_float(state.time_ms.unsigned_abs()) / 1_000.0);
        Ok(())
    }

    /// While another replica integrates, this one sees to it that what was published continues what it has seen.
    async fn follow(
        &self,
        pool: &PgPool,
        known: &mut Known,
        anchored: Option<Checkpoint>,
    ) -> Result<(), RoundError> {
        let mut connection = pool.acquire().await?;
        let Some(shard) = read::newest(&mut *connection).await? else {
            let mut tx = connection.begin().await?;
            sequence::lock_opening(&mut tx).await?;
            if read::newest(&mut *tx).await?.is_none() {
                if let Some(published) = anchored {
                    return Err(Fault::Behind { published, kept: 0 }.into());
                }
                shard::open(&mut tx, &self.stamp, shard::Opening::First).await?;
            }
            return Ok(tx.commit().await?);
        };
        self.compare(&mut connection, known, &shard, anchored).await?;
        let Some(checkpoint) = &shard.checkpoint else { return Ok(()) };
        let verifier = self.stamp.chains.log().verifier().named(&shard.origin).map_err(corrupt)?;
        let published = Checkpoint::open(checkpoint, &verifier).map_err(|e| Fault::Tree(e.to_string()))?;
        let newer = known
            .anchored
            .as_ref()
            .is_none_or(|seen| seen.origin != published.origin || seen.size < published.size);
        drop(connection);
        if newer && self.anchor.replace(known.anchored.as_ref(), &published).await? {
            known.anchored = Some(published);
        }
        Ok(())
    }

    /// What the database has continues what was seen before, or is at fault.
    async fn compare(
        &self,
        connection: &mut PgConnection,
        known: &mut Known,
        shard: &Shard,
        anchored: Option<Checkpoint>,
    ) -> Result<(), RoundError> {
        let Some(published) = &anchored else {
            if shard.published > 0 && known.anchored.is_none() {
                tracing::warn!(
                    "the log's anchor is empty: what this replica finds in the database is taken for granted"
                );
            }
            return Ok(());
        };
        if known.anchored.as_ref() == Some(published)
            && published.origin == shard.origin
            && published.size <= shard.size
        {
            return Ok(());
        }
        if published.origin != shard.origin && shard::recovered_from(connection, published).await? {
            known.anchored = anchored;
            return Ok(());
        }
        let found = shard::of_origin(connection, &published.origin, shard).await?;
        let kept = found.as_ref().map_or(0, |found| found.size);
        let Some(shard) = found.filter(|found| found.size >= published.size) else {
            return Err(Fault::Behind { published: published.clone(), kept }.into());
        };
        let found = load(connection, &shard, published.size).await?.root();
        if found != published.root {
            return Err(Fault::Forked { published: published.clone(), found }.into());
        }
        known.anchored = anchored;
        Ok(())
    }
}

/// The checkpoint that is published of the tree, if what the tree is now belongs to a later month.
fn last_of_its_month(shard: &Shard, verifier: &Verifier) -> Option<Checkpoint> {
    let before = Checkpoint::open(shard.checkpoint.as_deref()?, verifier).ok()?;
    (month(before.time_ms)? < month(shard.time_ms)?).then_some(before)
}

/// The month of a checkpoint's time, in UTC.
fn month(time_ms: i64) -> Option<(i16, i8)> {
    let time = Timestamp::from_millisecond(time_ms).ok()?.to_zoned(TimeZone::UTC);
    Some((time.year(), time.month()))
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// The right edge of the tree, from memory or from its tiles; it has the tree's root.
async fn frontier(
    connection: &mut PgConnection,
    known: &mut Known,
    shard: &Shard,
) -> Result<Frontier, RoundError> {
    if let Some((number, tree)) = known.tree.take()
        && (number, tree.size()) == (shard.number, shard.size)
        && tree.root() == shard.root
    {
        return Ok(tree);
    }
    let tree = load(connection, shard, shard.size).await?;
    if tree.root() == shard.root {
        return Ok(tree);
    }
    Err(Fault::Tree(format!("at {} of {}", shard.size, shard.origin)).into())
}

/// The right edge of the tree when it had `size` leaves: tiles only grow, so it is in what they are now.
async fn load(connection: &mut PgConnection, shard: &Shard, size: u64) -> Result<Frontier, RoundError> {
    let mut tiles = std::collections::HashMap::new();
    for level in tile::levels(size) {
        let (index, width) = tile::unfinished(size, level);
        if width > 0 {
            let mut hashes =
                read::tile(&mut *connection, shard.number, level, index).await?.unwrap_or_default();
            hashes.truncate(usize::from(width));
            tiles.insert((level, index), hashes);
        }
    }
    let read = |level: u8, index: u64| {
        let missing = || format!("tile {index} of level {level} is missing");
        tiles.remove(&(level, index)).ok_or_else(missing)
    };
    Frontier::load(size, read).map_err(|error| Fault::Tree(format!("{error:?}")).into())
}

/// What goes into the tree now: batches in an order in which each chain's are one after the other, and how far that
/// brings each chain.
async fn gather(
    tx: &mut PgConnection,
    own: &Chains,
    waiting: Vec<WaitingChain>,
) -> Result<(Vec<NewBatch>, Vec<Sequenced>), RoundError> {
    let mut batches = Vec::new();
    let mut moved = Vec::new();
    for chain in waiting {
        let remembered = own.take(chain.id, chain.sequenced, chain.head);
        let (found, upto) = match remembered.last() {
            Some(&(last, _)) => (remembered, last),
            None => read_chain(tx, own, &chain).await?,
        };
        let found = found.into_iter().filter(|(_, leaves)| !leaves.is_empty());
        let found: Vec<_> =
            found.map(|(batch, leaves)| NewBatch { chain: chain.id, batch, leaves }).collect();
        let last = found.last().map(|batch| batch_digest(batch.leaves.iter().copied()));
        moved.push(Sequenced { chain: chain.id, upto, digest: last.unwrap_or(chain.digest) });
        batches.extend(found);
    }
    Ok((batches, moved))
}

/// Batches by number, each with its leaves.
type Batches = Vec<(i64, Vec<Hash>)>;

/// What another process wrote, or this one long ago: read, and believed only as far as it is sealed.
async fn read_chain(
    tx: &mut PgConnection,
    own: &Chains,
    chain: &WaitingChain,
) -> Result<(Batches, i64), RoundError> {
    let leaves = sequence::written(tx, chain.id, chain.sequenced, chain.head).await?;
    let upto = leaves.last().map_or(chain.head, |last| last.batch);
    let fault = |batch: i64, why: String| Fault::Chain { chain: chain.id, batch, why };
    let key = verifier(own, chain).map_err(|error| fault(chain.sequenced + 1, error.to_string()))?;
    let (digest, id) = (chain.digest, chain.id);
    let checked = tokio::task::spawn_blocking(move || check(&key, digest, &leaves));
    let checked = checked.await.map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let found = checked.map_err(|(batch, why)| Fault::Chain { chain: id, batch, why })?;
    Ok((found, upto))
}

fn verifier(own: &Chains, chain: &WaitingChain) -> Result<Verifier, seal::SealError> {
    let key = seal::enrolled(&own.log().verifier(), &chain.enrolment)?;
    if key.to_string() == chain.key && key.name() == chain.id.to_string() {
        return Ok(key);
    }
    Err(seal::SealError::Enrolment)
}

/// That each leaf is sealed by this key, one batch after the other.
fn check(key: &Verifier, mut digest: Hash, leaves: &[WrittenLeaf]) -> Result<Batches, (i64, String)> {
    let mut batches = Vec::new();
    for batch in leaves.chunk_by(|one, next| one.batch == next.batch) {
        let hashes: Result<Vec<Hash>, _> = batch.iter().map(|leaf| check_leaf(key, digest, leaf)).collect();
        let number = batch.first().map_or(0, |leaf| leaf.batch);
        let hashes = hashes.map_err(|why| (number, why))?;
        digest = batch_digest(hashes.iter().copied());
        batches.push((number, hashes));
    }
    Ok(batches)
}

fn check_leaf(key: &Verifier, previous: Hash, leaf: &WrittenLeaf) -> Result<Hash, String> {
    let sealed = Seal::verify(&leaf.seal, key).map_err(|error| error.to_string())?;
    let place = (sealed.batch, sealed.place);
    if place != (leaf.batch.unsigned_abs(), leaf.place.unsigned_abs()) {
        return Err("it is not where its seal says".to_owned());
    }
    if sealed.entry != Hash::of(&leaf.leaf) {
        return Err("it is not what was sealed".to_owned());
    }
    if sealed.previous != previous {
        return Err("what comes before it is not what came before it".to_owned());
    }
    Ok(Hash::leaf(&seal::join(&leaf.leaf, &leaf.seal)))
}
