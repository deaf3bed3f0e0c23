//! The log's tables: chains, trees, and what is read of them.

pub(crate) mod archives;
pub(crate) mod chains;
pub(crate) mod drops;
mod people;
pub(crate) mod read;
pub(crate) mod sequence;
pub(crate) mod tiles;
mod verify;

use cortex_log::Hash;

use super::StoreError;

pub(crate) use read::base;

pub use drops::Deleted;
pub use read::{Shard, newest};
pub use verify::{Finding, VerifyError, verify};

pub(crate) fn hash(bytes: &[u8]) -> Result<Hash, StoreError> {
    bytes
        .try_into()
        .map(Hash)
        .map_err(|_| StoreError::Corrupt("a hash of the log is not 32 bytes".to_owned()))
}

pub(crate) fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}
