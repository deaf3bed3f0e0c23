//! Where the recorder is in its chain.

use std::sync::Arc;

use cortex_log::Hash;
use cortex_log::seal::batch_digest;
use sqlx::PgConnection;

use super::StoreError;
use super::log::chains::{self, End};
use super::log::corrupt;
use super::row::{Row, Stamp};
use crate::log::Health;
use crate::log::chain::{Batch, Chain, Tail};
use crate::random::Random;

/// Seals what the recorder commits. It knows where its chain is, or looks: after a commit that is uncertain, nothing is
/// written before it has.
pub(super) struct Pen {
    stamp: Stamp,
    health: Health,
    chain: Option<Arc<Chain>>,
    /// None while a commit is under way or uncertain.
    tail: Option<Tail>,
    /// The last batch that is known to be committed.
    known: i64,
}

impl Pen {
    pub(super) fn new(stamp: Stamp, health: Health) -> Self {
        Self { stamp, health, chain: None, tail: None, known: 0 }
    }

    /// Looks where its chain is, where it does not know: before a transaction that may come to nothing.
    pub(super) async fn find(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.stand(connection).await.map(drop)
    }

    pub(super) fn random(&self) -> Arc<dyn Random> {
        Arc::clone(&self.stamp.random)
    }

    /// Seals the next batch. Until [`Pen::wrote`], it is uncertain.
    pub(super) async fn seal(
        &mut self,
        connection: &mut PgConnection,
        rows: &[(i64, &Row)],
    ) -> Result<Batch, StoreError> {
        let (chain, tail) = self.stand(connection).await?;
        self.tail = None;
        let entries = rows.iter().map(|(_, row)| row.leaf.as_slice());
        chain.seal(tail, entries, self.stamp.clock.now()).map_err(corrupt)
    }

    /// Takes over that the batch is committed, with these of its leaves.
    pub(super) fn wrote(&mut self, batch: &Batch, leaves: Vec<Hash>) {
        // A batch without rows moves no chain.
        let head = if batch.seals.is_empty() { batch.expected } else { batch.number };
        let digest = if leaves.is_empty() { batch.previous } else { batch_digest(leaves.iter().copied()) };
        self.tail = Some(Tail { head, digest });
        self.known = head;
        if !batch.seals.is_empty() {
            self.stamp.chains.wrote(batch.chain, batch.number, leaves);
        }
    }

    async fn stand(&mut self, connection: &mut PgConnection) -> Result<(Arc<Chain>, Tail), StoreError> {
        if let (Some(chain), Some(tail)) = (&self.chain, self.tail) {
            return Ok((Arc::clone(chain), tail));
        }
        if let Some(chain) = self.chain.clone() {
            let end = chains::end(connection, chain.id).await?;
            // A chain that is not there any more is forgotten with everything in it.
            let head = end.map_or(0, |end| end.tail.head);
            if head < self.known {
                self.health.rewound(chain.id, self.known, head);
                // What follows is on record in a chain of its own; what is in this batch is not released.
                self.chain = None;
                return Err(StoreError::Corrupt("the database has forgotten what was written".to_owned()));
            }
            if let Some(End { tail, closed: false }) = end {
                self.tail = Some(tail);
                return Ok((chain, tail));
            }
        }
        let (chain, tail) = chains::open_for_recorder(connection, &self.stamp).await?;
        self.chain = Some(Arc::clone(&chain));
        self.tail = Some(tail);
        self.known = tail.head;
        Ok((chain, tail))
    }
}
