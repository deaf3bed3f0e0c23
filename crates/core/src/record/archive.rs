//! What becomes of old records: they are archived, and later dropped from the database.

use cortex_log::opening::Head;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The log's beginning was written to an archive, and read back and verified there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// Where the archive is, such as `s3://bucket/prefix`.
    pub place: String,
    /// Everything that was published before this is in it.
    pub before: Timestamp,
    /// Each tree as far as the archive has it; the roots are digests of all that it holds.
    pub trees: Vec<Head>,
    /// Who did it: `operator:` and the operating system's user name.
    pub by: String,
}

/// Old records are dropped from the database. They are in the archive, and the tree keeps their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The archive that has them.
    pub archive: String,
    /// Nothing is dropped that was published since.
    pub before: Timestamp,
    /// How far, of each tree. What a legal hold covers stays, wherever it is.
    pub trees: Vec<Extent>,
    /// Who did it: `operator:` and the operating system's user name.
    pub by: String,
}

/// The beginning of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The tree.
    pub origin: String,
    /// How many leaves of it.
    pub size: u64,
}
