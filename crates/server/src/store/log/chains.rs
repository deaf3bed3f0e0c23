//! Chains: who writes to the log, and where each writer is.

use std::sync::Arc;

use cortex_core::record::What;
use cortex_log::Hash;
use cortex_log::opening::{ChainOpened, Predecessor};
use cortex_log::seal::{batch_digest, join};
use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::corrupt;
use super::sequence::NewBatch;
use crate::log::chain::{Batch, Chain, Role, Tail};
use crate::store::row::{Row, Stamp, write};
use crate::store::{StoreError, micros};

/// After how long without a sign a process is taken to be gone.
const GONE_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// Opens a chain for the recorder.
pub(crate) async fn open_for_recorder(
    connection: &mut PgConnection,
    stamp: &Stamp,
) -> Result<(Arc<Chain>, Tail), StoreError> {
    let chain = stamp.chains.begin(Role::Recorder, &*stamp.random).map_err(corrupt)?;
    let mut tx = connection.begin().await?;
    let tail = open(&mut tx, &chain, stamp).await?;
    tx.commit().await?;
    Ok((chain, tail))
}

/// Writes that the chain begins, as its first batch.
async fn open(tx: &mut PgConnection, chain: &Chain, stamp: &Stamp) -> Result<Tail, StoreError> {
    let predecessor = predecessor(tx, chain, stamp).await?;
    enter(tx, chain, stamp).await?;
    let what = What::ChainOpened(Box::new(ChainOpened {
        chain: chain.id,
        key: chain.key(),
        enrolment: chain.enrolment.clone(),
        predecessor,
    }));
    let row = stamp.row(what).map_err(corrupt)?;
    let batch = seal(chain, Tail::NEW, &[&row], stamp)?;
    write(tx, &[&row], &batch).await?;
    Ok(Tail { head: batch.number, digest: batch_digest(batch.seals.iter().map(|sealed| sealed.leaf)) })
}

/// Begins a chain that opens a tree: `what` is all that it ever says.
pub(crate) async fn open_tree(
    tx: &mut PgConnection,
    chain: &Chain,
    what: What,
    stamp: &Stamp,
) -> Result<NewBatch, StoreError> {
    let row = stamp.row(what).map_err(corrupt)?;
    enter(tx, chain, stamp).await?;
    let batch = seal(chain, Tail::NEW, &[&row], stamp)?;
    write(tx, &[&row], &batch).await?;
    let leaves = batch.seals.iter().map(|sealed| sealed.leaf).collect();
    Ok(NewBatch { chain: chain.id, batch: batch.number, leaves })
}

/// Makes the chain known, with nothing in it.
async fn enter(tx: &mut PgConnection, chain: &Chain, stamp: &Stamp) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO log_chain (id, process, replica, role, key, enrolment, opened_at, seen_at, head, sequenced, digest)
         SELECT $1, $2, $3, $4, $5, $6, at, at, 0, 0, $8
         FROM (SELECT timestamptz 'epoch' + $7 * interval '1 microsecond' AS at) t",
    )
    .bind(chain.id)
    .bind(stamp.chains.process())
    .bind(&stamp.author.replica)
    .bind(chain.role.name())
    .bind(chain.key())
    .bind(&chain.enrolment)
    .bind(micros(stamp.clock.now()))
    .bind(Hash::ZERO.0.as_slice())
    .execute(tx)
    .await?;
    Ok(())
}

/// The chain that this replica wrote to before, in a process that is gone: it is closed, so that nobody who finds its key
/// writes to it, and what it wrote last cannot be taken away unseen.
async fn predecessor(
    tx: &mut PgConnection,
    chain: &Chain,
    stamp: &Stamp,
) -> Result<Option<Predecessor>, StoreError> {
    let now = stamp.clock.now();
    let before: Option<(Uuid, i64)> = sqlx::query_as(
        "UPDATE log_chain SET closed = true
         WHERE id = (SELECT id FROM log_chain
                     WHERE replica = $1 AND role = $2 AND process <> $3 AND NOT closed
                       AND seen_at < timestamptz 'epoch' + $4 * interval '1 microsecond'
                     ORDER BY opened_at DESC, id DESC LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING id, head",
    )
    .bind(&stamp.author.replica)
    .bind(chain.role.name())
    .bind(stamp.chains.process())
    .bind(micros(now.saturating_sub(GONE_AFTER).unwrap_or(now)))
    .fetch_optional(&mut *tx)
    .await?;
    let Some((chain, head)) = before else { return Ok(None) };
    let Some((batch, digest)) = last_written(tx, chain, head).await? else { return Ok(None) };
    Ok(Some(Predecessor { chain, batch: batch.unsigned_abs(), digest }))
}

/// Seals rows as the next batch.
fn seal(chain: &Chain, tail: Tail, rows: &[&Row], stamp: &Stamp) -> Result<Batch, StoreError> {
    chain.seal(tail, rows.iter().map(|row| row.leaf.as_slice()), stamp.clock.now()).map_err(corrupt)
}

/// Where a chain is, in the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) tail: Tail,
    /// Whether nothing more may be written to it.
    pub(crate) closed: bool,
}

/// Where this chain is; none if it is not there.
pub(crate) async fn end(connection: &mut PgConnection, chain: Uuid) -> Result<Option<End>, StoreError> {
    let found: Option<(i64, bool)> = sqlx::query_as("SELECT head, closed FROM log_chain WHERE id = $1")
        .bind(chain)
        .fetch_optional(&mut *connection)
        .await?;
    let Some((head, closed)) = found else { return Ok(None) };
    let digest = last_written(connection, chain, head).await?.map_or(Hash::ZERO, |(_, digest)| digest);
    Ok(Some(End { tail: Tail { head, digest }, closed }))
}

/// The last batch of a chain that has leaves, up to `head`, and its digest.
async fn last_written(
    connection: &mut PgConnection,
    chain: Uuid,
    head: i64,
) -> Result<Option<(i64, Hash)>, StoreError> {
    let leaves: Vec<(i64, Vec<u8>, String)> = sqlx::query_as(
        "SELECT batch, leaf, seal FROM record
         WHERE chain = $1 AND batch = (SELECT max(batch) FROM record WHERE chain = $1 AND batch <= $2) ORDER BY place",
    )
    .bind(chain)
    .bind(head)
    .fetch_all(connection)
    .await?;
    let batch = leaves.first().map(|(batch, ..)| *batch);
    let hashes = leaves.iter().map(|(_, entry, seal)| Hash::leaf(&join(entry, seal)));
    Ok(batch.map(|batch| (batch, batch_digest(hashes))))
}

/// Seals rows for a transaction that writes them itself. Each transaction has a chain to itself: none waits for another
/// one.
pub(in crate::store) async fn at_the_desk(
    tx: &mut PgConnection,
    rows: &[&Row],
    stamp: &Stamp,
) -> Result<Batch, StoreError> {
    let free: Option<(Uuid, i64)> = sqlx::query_as(
        "SELECT id, head FROM log_chain WHERE process = $1 AND role = $2 AND NOT closed
         ORDER BY opened_at, id LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .bind(stamp.chains.process())
    .bind(Role::Desk.name())
    .fetch_optional(&mut *tx)
    .await?;
    let known = free.and_then(|(id, head)| Some((stamp.chains.kept(id)?, head)));
    let (chain, tail) = if let Some((chain, head)) = known {
        let digest = last_written(tx, chain.id, head).await?.map_or(Hash::ZERO, |(_, digest)| digest);
        (chain, Tail { head, digest })
    } else {
        let chain = stamp.chains.begin(Role::Desk, &*stamp.random).map_err(corrupt)?;
        let tail = open(tx, &chain, stamp).await?;
        // Should this transaction come to nothing, nobody finds the chain.
        stamp.chains.keep(&chain);
        (chain, tail)
    };
    seal(&chain, tail, rows, stamp)
}

/// Says that this process is there: its chains go on when a tree ends.
pub(crate) async fn seen(pool: &PgPool, process: Uuid, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE log_chain SET seen_at = timestamptz 'epoch' + $2 * interval '1 microsecond'
         WHERE process = $1 AND NOT closed",
    )
    .bind(process)
    .bind(micros(now))
    .execute(pool)
    .await?;
    Ok(())
}
