//! What the log writes about itself. Hashes are in base64, as everywhere in the log's formats.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A chain, as it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainAt {
    /// The chain.
    pub chain: Uuid,
    /// Its last batch.
    pub batch: i64,
    /// The digest of that batch.
    pub digest: String,
}

/// A chain that goes on in a new tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainStands {
    /// Its key, as a verifier key of C2SP signed-note.
    pub key: String,
    /// The log's word for that key: a signed note.
    pub enrolment: String,
    /// Its last batch in the trees before.
    pub batch: i64,
    /// The digest of its last batch with leaves there.
    pub digest: String,
}

/// A tree, as it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its origin.
    pub origin: String,
    /// How many leaves it has.
    pub size: i64,
    /// The hash of them all.
    pub root: String,
}

/// Why a tree was begun although the year had not ended: what was published is no longer all there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// What had been published, by the anchor.
    pub published: Head,
    /// Who recovered it: two operators, as they named themselves.
    pub by: Vec<String>,
    /// Why, in their words.
    pub reason: String,
}

/// The first leaf of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOpened {
    /// The tree's origin.
    pub origin: String,
    /// The tree before it, as it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Head>,
    /// Set where the tree before it has lost what had been published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// The chains that go on.
    pub chains: Vec<ChainStands>,
}
