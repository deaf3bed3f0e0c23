//! The one Postgres: chains, the tree, and what is published.

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// What is on record about an issuance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A cloud may be asked.
    Intent,
    /// A credential may leave.
    Issued,
    /// A credential may have been made; none leaves.
    Indeterminate,
}

/// One row of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// What it is about.
    pub issuance: u8,
    /// What it says.
    pub what: What,
}

impl Record {
    /// Whether both cannot be on record: there is one intent and one outcome of an issuance.
    fn excludes(self, other: Self) -> bool {
        self.issuance == other.issuance && (self.what == What::Intent) == (other.what == What::Intent)
    }
}

/// A record as its writer sealed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leaf {
    /// Who wrote it.
    pub chain: u8,
    /// The batch in its chain; here a batch has one row.
    pub batch: u8,
    /// What it says.
    pub record: Record,
    /// The digest of the chain's leaf before, 0 for none.
    pub previous: u64,
}

impl Leaf {
    /// What the next leaf of the chain has to name.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tail {
    /// Its last batch.
    pub head: u8,
    /// The digest of its last leaf.
    pub digest: u64,
}

/// One writer's leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its name.
    pub id: u8,
    /// Its last batch; one whose row was passed over has no leaf.
    pub head: u8,
    /// Nothing more is written to it.
    pub closed: bool,
    /// What it wrote.
    pub leaves: Vec<Leaf>,
    /// How many of them are in the tree.
    pub sequenced: usize,
}

impl Chain {
    /// Where it ends.
    pub fn tail(&self) -> Tail {
        Tail { head: self.head, digest: self.leaves.last().map_or(0, Leaf::digest) }
    }

    /// What is not in the tree yet; none where a leaf does not name the one before it.
    pub fn waiting(&self) -> Option<&[Leaf]> {
        let digests = std::iter::once(0).chain(self.leaves.iter().map(Leaf::digest));
        let whole = self.leaves.iter().zip(digests).all(|(leaf, before)| leaf.previous == before);
        if whole { self.leaves.get(self.sequenced..) } else { None }
    }
}

/// A tree, or a checkpoint of one: both are determined by the leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tree {
    /// Which one; after a recovery there is another.
    pub number: u8,
    /// Its leaves.
    pub leaves: Vec<Leaf>,
}

impl Tree {
    /// Whether it has everything of `before`, at the same places.
    pub fn continues(&self, before: &Self) -> bool {
        self.number == before.number && self.leaves.starts_with(&before.leaves)
    }
}

/// A row on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Where the chain has to end.
    pub expected: u8,
    /// What is written then.
    pub leaf: Leaf,
}

/// What the database says to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The row is there.
    Written,
    /// A row that excludes it was there; the chain moved on without a leaf.
    PassedOver,
    /// The chain does not end where the writer believes: nothing was written.
    Moved,
}

/// What a sequencer wants the tree to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Growth {
    /// What it was.
    pub from: Tree,
    /// What it is then.
    pub to: Tree,
    /// How many leaves of each chain that has more are in it then.
    pub upto: Vec<(u8, usize)>,
}

/// What Postgres holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Database {
    /// Every writer's.
    pub chains: Vec<Chain>,
    /// The tree that grows.
    pub tree: Tree,
    /// Those that do not grow any more.
    pub closed: Vec<Tree>,
    /// The checkpoint that is published of the tree that grows.
    pub published: Option<Tree>,
    /// Checkpoints that a recovery has written off.
    pub written_off: Vec<Tree>,
}

impl Default for Database {
    fn default() -> Self {
        let tree = Tree { number: 1, leaves: Vec::new() };
        Self { chains: Vec::new(), tree, closed: Vec::new(), published: None, written_off: Vec::new() }
    }
}

impl Database {
    /// A chain, while it is there.
    pub fn chain(&self, id: u8) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.id == id)
    }

    /// Everything on record.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.chains.iter().flat_map(|chain| &chain.leaves).map(|leaf| leaf.record)
    }

    /// Whether this row is on record.
    pub fn has(&self, record: Record) -> bool {
        self.records().any(|found| found == record)
    }

    /// Whether an intent has no outcome.
    pub fn is_open(&self, issuance: u8) -> bool {
        let ends = |record: Record| record.issuance == issuance && record.what != What::Intent;
        self.has(Record { issuance, what: What::Intent }) && !self.records().any(ends)
    }

    /// Writes a row, whole or not at all.
    pub fn commit(&mut self, commit: Commit) -> Answer {
        let excluded = self.records().any(|found| found.excludes(commit.leaf.record));
        let chain = self.chains.iter_mut().find(|chain| chain.id == commit.leaf.chain);
        let Some(chain) = chain.filter(|chain| chain.head == commit.expected && !chain.closed) else {
            return Answer::Moved;
        };
        chain.head += 1;
        if excluded {
            return Answer::PassedOver;
        }
        chain.leaves.push(commit.leaf);
        Answer::Written
    }

    /// Makes the tree what `growth` says, if it still is what that began with or nobody compares.
    pub fn grow(&mut self, growth: &Growth, compare: bool) -> bool {
        if compare && self.tree != growth.from {
            return false;
        }
        self.tree = growth.to.clone();
        for chain in &mut self.chains {
            if let Some((_, upto)) = growth.upto.iter().find(|(id, _)| *id == chain.id) {
                chain.sequenced = *upto;
            }
        }
        true
    }
}
