//! Receipts: the log's signed promise, given with a credential, that its record will be in the log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Hash;
use crate::note::Verifier;
use crate::seal::{self, Seal, SealError};

/// A receipt's length in bytes, at most.
pub const MAX_RECEIPT_BYTES: usize = 16 * 1024;

/// Why a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Its seal is no seal, or not signed by the chain.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Its times are not those in the seal.
    #[error("the receipt's times are not those that were signed")]
    Times,
}

/// That a record is sealed and by when a checkpoint covers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The log: its base, or the shard that the leaf was expected in.
    pub origin: String,
    /// The hash of the leaf, as the tree has it.
    pub leaf_hash: Hash,
    /// When the record was sealed.
    pub time: Timestamp,
    /// By when a checkpoint covers the leaf.
    pub merge_by: Timestamp,
    /// The seal: a signed note by the chain that wrote the record.
    pub seal: String,
}

impl Receipt {
    /// The receipt of a leaf.
    pub fn new(origin: &str, leaf: &[u8]) -> Result<Self, ReceiptError> {
        let (_, note) = seal::split(leaf)?;
        let Seal { time_ms, merge_by_ms, .. } = Seal::parse(note)?;
        Ok(Self {
            origin: origin.to_owned(),
            leaf_hash: Hash::leaf(leaf),
            time: instant(time_ms)?,
            merge_by: instant(merge_by_ms)?,
            seal: note.to_owned(),
        })
    }

    /// The seal, if the chain's key signed it and it says what the receipt says.
    pub fn verify(&self, chain: &Verifier) -> Result<Seal, ReceiptError> {
        let seal = Seal::verify(&self.seal, chain)?;
        if (instant(seal.time_ms)?, instant(seal.merge_by_ms)?) != (self.time, self.merge_by) {
            return Err(ReceiptError::Times);
        }
        Ok(seal)
    }

    /// Whether this is the receipt of this leaf.
    pub fn is_of(&self, leaf: &[u8]) -> bool {
        let sealed = seal::split(leaf).is_ok_and(|(_, note)| note == self.seal);
        sealed && Hash::leaf(leaf) == self.leaf_hash
    }
}

fn instant(millis: i64) -> Result<Timestamp, ReceiptError> {
    Timestamp::from_millisecond(millis).map_err(|_| ReceiptError::Times)
}
