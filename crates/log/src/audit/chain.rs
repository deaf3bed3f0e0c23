//! One chain, followed through the log.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::What;
use crate::Hash;
use crate::note::Verifier;
use crate::seal::Seal;

/// A chain as far as the log was read.
pub(super) struct Chain {
    pub(super) key: Arc<Verifier>,
    /// It has said what it follows: with its own opening, or by being carried from shard to shard.
    pub(super) opened: bool,
    /// The shard in which it may write names it.
    pub(super) active: bool,
    /// The last batch that its successor names; nothing may come after it.
    pub(super) ends_with: Option<u64>,
    /// The last batch that has leaves, as far as it is known.
    batch: u64,
    /// No batch up to this one may begin any more: a shard's opening counts batches of which nothing was written too.
    floor: u64,
    /// The digest of the batch before.
    previous: Hash,
    tail: Tail,
}

/// The last batch.
enum Tail {
    /// Nothing is added to it any more.
    Closed(Hash),
    /// It may have more leaves; the last one's place.
    Open(Context, u32),
}

impl Chain {
    /// A chain after a batch; batch 0 with [`Hash::ZERO`] if it has none.
    pub(super) fn after(key: Verifier, batch: u64, digest: Hash) -> Self {
        let tail = Tail::Closed(digest);
        let opened = batch > 0;
        let key = Arc::new(key);
        Self { key, opened, active: true, ends_with: None, batch, floor: batch, previous: Hash::ZERO, tail }
    }

    /// Carries the chain into a new shard, which says where it stands; false if it does not stand there.
    pub(super) fn carry(&mut self, key: &Verifier, batch: u64, digest: Hash) -> bool {
        let stands = *self.key == *key && batch >= self.batch && digest == self.digest();
        if stands {
            (self.active, self.floor, self.tail) = (true, batch, Tail::Closed(digest));
        }
        stands
    }

    /// Whether the chain has leaves after a batch of this number and digest.
    pub(super) fn is_beyond(&self, batch: u64, digest: Hash) -> bool {
        self.batch > batch && self.digest() != digest
    }

    /// The digest of the last batch; it says which batch that is too, because each leaf's seal does.
    pub(super) fn digest(&self) -> Hash {
        match &self.tail {
            Tail::Closed(digest) => *digest,
            Tail::Open(context, _) => Hash::finish(context.clone()),
        }
    }

    /// Takes the chain's next leaf in the log.
    pub(super) fn take(&mut self, seal: &Seal, leaf: Hash) -> Result<(), What> {
        let Seal { chain, batch, place, .. } = *seal;
        if !self.active || self.ends_with.is_some_and(|last| batch > last) {
            return Err(What::Ended(chain));
        }
        if batch > self.floor {
            self.begin(seal)?;
        } else {
            self.go_on(seal)?;
        }
        if let Tail::Open(context, last) = &mut self.tail {
            context.update(&leaf.0);
            *last = place;
        }
        Ok(())
    }

    fn begin(&mut self, seal: &Seal) -> Result<(), What> {
        let Seal { chain, batch, place, previous, .. } = *seal;
        if previous != self.digest() {
            return Err(What::Previous { chain, batch });
        }
        (self.batch, self.floor, self.previous) = (batch, batch, previous);
        self.tail = Tail::Open(Context::new(&SHA256), place);
        Ok(())
    }

    fn go_on(&mut self, seal: &Seal) -> Result<(), What> {
        let Seal { chain, batch, place, previous, .. } = *seal;
        match self.tail {
            Tail::Open(_, last) if batch == self.batch && place > last => {}
            _ => return Err(What::Order { chain, batch, place }),
        }
        if previous == self.previous { Ok(()) } else { Err(What::Previous { chain, batch }) }
    }
}
