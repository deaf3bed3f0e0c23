//! A shard's tree, compared on the way with the published tiles and with every checkpoint at hand.

use super::{Fault, What};
use crate::Hash;
use crate::checkpoint::Checkpoint;
use crate::tile::Tile;
use crate::tree::Frontier;

/// The tree of the shard that is being read.
pub(super) struct Shard {
    pub(super) origin: String,
    tree: Frontier,
    /// The tree of the published hashes, from where they differ from those of the leaves.
    differing: Option<Differing>,
    /// Checkpoints that the leaves have yet to show, by size; then those that they have shown.
    older: Vec<Checkpoint>,
    shown: usize,
    /// The size of the largest checkpoint that the leaves have shown.
    agreed: u64,
}

struct Differing {
    from: u64,
    tree: Frontier,
}

impl Shard {
    pub(super) fn new(origin: &str, mut older: Vec<Checkpoint>) -> Self {
        older.sort_by_key(|checkpoint| (checkpoint.size, checkpoint.time_ms));
        let tree = Frontier::empty();
        Self { origin: origin.to_owned(), tree, differing: None, older, shown: 0, agreed: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.tree.size()
    }

    /// A fault at one leaf; or from where the published hashes differ, if that is before it.
    pub(super) fn fault_at(&self, index: u64, what: What) -> Fault {
        self.fault_between(self.first_differing(index), index + 1, what)
    }

    fn first_differing(&self, index: u64) -> u64 {
        self.differing.as_ref().map_or(index, |differing| differing.from.min(index))
    }

    fn fault_between(&self, index: u64, until: u64, what: What) -> Fault {
        Fault { origin: self.origin.clone(), index, until, what }
    }

    /// Appends leaves, and stops at each older checkpoint on the way. `published` are the hashes of the published
    /// tiles for these leaves, or nothing.
    pub(super) fn append(&mut self, mut leaves: &[Hash], mut published: &[Hash]) -> Result<Vec<Tile>, Fault> {
        let mut tiles = Vec::new();
        self.show()?;
        while !leaves.is_empty() {
            let next = self.older.get(self.shown).map_or(u64::MAX, |checkpoint| checkpoint.size);
            let until = usize::try_from(next - self.size()).unwrap_or(usize::MAX).min(leaves.len());
            let (now, later) = leaves.split_at(until);
            let (theirs, theirs_later) = published.split_at(until.min(published.len()));
            self.compare(now, theirs);
            tiles.extend(self.tree.append(now));
            (leaves, published) = (later, theirs_later);
            self.show()?;
        }
        Ok(tiles)
    }

    /// Notes from where the published hashes differ; of leaves that are appended next, or that a fault is among.
    pub(super) fn compare(&mut self, leaves: &[Hash], published: &[Hash]) {
        if self.differing.is_none()
            && let Some(at) = leaves.iter().zip(published).position(|(ours, theirs)| ours != theirs)
        {
            let from = self.size() + u64::try_from(at).unwrap_or(0);
            self.differing = Some(Differing { from, tree: self.tree.clone() });
        }
        if let Some(differing) = &mut self.differing {
            differing.tree.append(published);
        }
    }

    /// Compares with the older checkpoints of the size that was reached.
    fn show(&mut self) -> Result<(), Fault> {
        while let Some(checkpoint) = self.older.get(self.shown).filter(|older| older.size == self.size()) {
            self.check(checkpoint, What::Older)?;
            self.agreed = self.size();
            self.shown += 1;
        }
        Ok(())
    }

    fn check(&self, checkpoint: &Checkpoint, what: fn(u64) -> What) -> Result<(), Fault> {
        let right = self.tree.root() == checkpoint.root;
        match &self.differing {
            None if right => Ok(()),
            Some(differing) if right => Err(self.fault_at(differing.from, What::Tile)),
            Some(differing) if differing.tree.root() == checkpoint.root => {
                Err(self.fault_at(differing.from, What::Altered(checkpoint.size)))
            }
            _ => Err(self.fault_between(self.agreed, checkpoint.size, what(checkpoint.size))),
        }
    }

    /// Compares the whole tree with the shard's checkpoint. `since` is the time of the shard's before.
    pub(super) fn end(&mut self, checkpoint: &Checkpoint, since: Option<i64>) -> Result<(), Fault> {
        self.show()?;
        let (size, covered) = (self.size(), checkpoint.size);
        if let Some(larger) = self.older.last().filter(|older| older.size > size.max(covered)) {
            return Err(self.fault_between(self.first_differing(size), larger.size, What::Missing));
        }
        if size < covered {
            return Err(self.fault_between(self.first_differing(size), covered, What::Missing));
        }
        if size > covered {
            return Err(self.fault_between(self.first_differing(covered), size, What::Uncovered));
        }
        self.check(checkpoint, What::Root)?;
        self.times(checkpoint, since)
    }

    fn times(&self, checkpoint: &Checkpoint, since: Option<i64>) -> Result<(), Fault> {
        let mut last = (0, since.unwrap_or(i64::MIN));
        for next in self.older.iter().chain([checkpoint]) {
            if next.time_ms < last.1 && (next.size > last.0 || last.0 == 0) {
                return Err(self.fault_between(last.0, next.size, What::Time));
            }
            last = (next.size, next.time_ms);
        }
        Ok(())
    }
}
