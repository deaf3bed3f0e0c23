//! The log's entries about itself: that a chain is opened, and that a shard is.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Hash;

/// An entry of the log about itself; every other record is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind")]
pub enum Opening {
    /// A chain begins.
    #[serde(rename = "log.chain_opened")]
    Chain(ChainOpened),
    /// A shard begins.
    #[serde(rename = "log.shard_opened")]
    Shard(ShardOpened),
    /// A record of something else.
    #[serde(other)]
    Other,
}

/// A chain's first entry. What else the record holds is no matter here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainOpened {
    /// The chain.
    pub chain: Uuid,
    /// Its vkey.
    pub key: String,
    /// The note by which the log's key lets it write.
    pub enrolment: String,
    /// The chain of the same replica before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
}

/// A chain that has ended, as its successor found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// The chain.
    pub chain: Uuid,
    /// Its last batch.
    pub batch: u64,
    /// That batch's digest.
    pub digest: Hash,
}

/// A shard's first entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOpened {
    /// The shard.
    pub origin: String,
    /// The head of the shard before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Head>,
    /// Why it was opened out of turn, if it was: what a recovery found and who approved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<serde_json::Value>,
    /// The chains that go on in it, as they stood.
    pub chains: Vec<Standing>,
}

/// Where a shard ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The shard.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// A chain as it stood when a shard was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its vkey, whose name is the chain's UUID.
    pub key: String,
    /// The note by which the log's key lets it write.
    pub enrolment: String,
    /// Its last batch; 0 if it has none.
    pub batch: u64,
    /// That batch's digest; [`Hash::ZERO`] if it has none.
    pub digest: Hash,
}

impl Opening {
    /// What an entry says about the log. Canonical JSON (RFC 8785) has no spaces and needs no escapes here, so an
    /// entry without the prefix of these kinds is not read at all.
    pub fn read(entry: &[u8]) -> Result<Self, serde_json::Error> {
        const PREFIX: &[u8] = b"\"kind\":\"log.";
        if !entry.windows(PREFIX.len()).any(|window| window == PREFIX) {
            return Ok(Self::Other);
        }
        serde_json::from_slice(entry)
    }
}
