//! What an audit finds.

use std::fmt;

use uuid::Uuid;

use crate::seal::SealError;

/// The first thing that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {place}: {what}", place = Place(*.index, *.until))]
pub struct Fault {
    /// The shard.
    pub origin: String,
    /// The first bad index; where no leaf by itself is bad, the first that may be.
    pub index: u64,
    /// One more than the last index that the first bad one may be.
    pub until: u64,
    /// What is wrong.
    pub what: What,
}

struct Place(u64, u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(index, until) = *self;
        if until > index + 1 {
            write!(f, "leaves {index} to {}", until - 1)
        } else {
            write!(f, "leaf {index}")
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// The leaf's bytes are not an entry with a seal.
    #[error("{0}")]
    Leaf(SealError),
    /// The entry is not the one that was sealed.
    #[error("the entry is not the one that was sealed")]
    Entry,
    /// The seal was not signed by its chain.
    #[error("the seal of chain {0} does not verify: {1}")]
    Signature(Uuid, SealError),
    /// The chain was never let write to this log.
    #[error("chain {0} is not enrolled in this log")]
    Unenrolled(Uuid),
    /// A chain's enrolment is not by the log's key, or is another key's.
    #[error("the enrolment of a chain does not verify: {0}")]
    Enrolment(SealError),
    /// An entry about the log itself makes no sense where it stands.
    #[error("{0}")]
    Opening(&'static str),
    /// A chain's batches or places do not grow.
    #[error("chain {chain} goes back: batch {batch}, place {place} comes after a later one")]
    Order {
        /// The chain.
        chain: Uuid,
        /// The seal's batch.
        batch: u64,
        /// The seal's place.
        place: u32,
    },
    /// A seal names another previous batch than the one in the log.
    #[error("batch {batch} of chain {chain} does not follow the batch before it in the log")]
    Previous {
        /// The chain.
        chain: Uuid,
        /// The seal's batch.
        batch: u64,
    },
    /// A chain ends otherwise than its successor found it.
    #[error("chain {chain} does not end with batch {batch} as its successor found it")]
    Predecessor {
        /// The chain that ended.
        chain: Uuid,
        /// The last batch that the successor names.
        batch: u64,
    },
    /// A chain that a later shard no longer named, or whose successor named its end, goes on.
    #[error("chain {0} goes on after its end")]
    Ended(Uuid),
    /// A shard says of a chain what the shard before it does not.
    #[error("the shard names a state of chain {0} that the shard before it does not have")]
    Standing(Uuid),
    /// The shard does not continue the last one's head.
    #[error("the shard does not continue the head of the shard before it")]
    Head,
    /// A recovery opened the shard without the last leaves of the one before.
    #[error("the recovery that opened the shard gave up leaves {from} to {last} of {origin}")]
    GivenUp {
        /// The shard before.
        origin: String,
        /// The first index that was given up.
        from: u64,
        /// The last.
        last: u64,
    },
    /// The published tile is not that of the leaves.
    #[error("the published tile has another hash; the leaf is right")]
    Tile,
    /// The leaf is not the one that a checkpoint covers.
    #[error("the leaf is not the one that the checkpoint of size {0} covers")]
    Altered(u64),
    /// The tree over the leaves has another root than the checkpoint.
    #[error("the leaves do not have the root of the checkpoint of size {0}")]
    Root(u64),
    /// The tree does not begin with an older checkpoint's.
    #[error("the leaves do not have the root of the older checkpoint of size {0}")]
    Older(u64),
    /// Leaves that a checkpoint covers are not there.
    #[error("a checkpoint covers them, and they are not there")]
    Missing,
    /// There are more leaves than the checkpoint covers.
    #[error("the checkpoint does not cover them")]
    Uncovered,
    /// The time of checkpoints goes back.
    #[error("the checkpoint after them is older than the one before them")]
    Time,
    /// The shard of an older checkpoint is not there.
    #[error("an older checkpoint covers this shard, and it is not there")]
    NoShard,
    /// There are more chains than anyone has.
    #[error("more chains than can be followed")]
    TooManyChains,
}

impl What {
    /// What it means for who relies on the log.
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::Leaf(_) | Self::Entry | Self::Altered(_) => "The record was altered after it was written.",
            Self::Signature(..) | Self::Unenrolled(_) | Self::Enrolment(_) => {
                "The record was written or altered by somebody who has no key of this log."
            }
            Self::Opening(_) => "A record about the log itself was moved, altered or never rightly written.",
            Self::Order { .. } => "Records were copied or put into another order.",
            Self::Previous { .. } | Self::Predecessor { .. } => {
                "Records of this process were removed, or put into another order, at or before this place."
            }
            Self::Ended(_) => "Somebody writes with the key of a process that is gone.",
            Self::Standing(_) | Self::Head => {
                "Records at the end of the shard before were removed, or the shards do not belong together."
            }
            Self::GivenUp { .. } => {
                "A recovery went on without these records; its own record says who approved that."
            }
            Self::Tile => "The tree was published wrongly; the records themselves are whole.",
            Self::Root(_) => {
                "Records in this range were altered, removed, inserted or put into another order."
            }
            Self::Older(_) => "History was rewritten after the older checkpoint was signed.",
            Self::Missing => "Records at the end were removed, or an older state of the log was put back.",
            Self::Uncovered => "Records were added that the log never signed.",
            Self::Time => {
                "The log signed with a clock that went back, or the checkpoints are not of one log."
            }
            Self::NoShard => "A whole shard was removed.",
            Self::TooManyChains => "The log was filled with openings of chains.",
        }
    }
}
