//! The hash of everything in the log: SHA-256, with the prefixes of RFC 6962.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A SHA-256 hash. Its text is standard base64 with padding, as notes and checkpoints write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hash(pub [u8; 32]);

/// A text that is not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 32 bytes in standard base64 with padding")]
pub struct InvalidHash;

impl Hash {
    /// Stands where there is nothing before: the previous digest of a chain's first batch.
    pub const ZERO: Self = Self([0; 32]);

    /// The plain hash of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::sum(&[bytes])
    }

    /// The hash of a leaf of the tree (RFC 6962, section 2.1): a leaf never hashes like a node.
    pub fn leaf(bytes: &[u8]) -> Self {
        Self::sum(&[&[0], bytes])
    }

    /// The hash of a node of the tree (RFC 6962, section 2.1).
    pub fn node(left: &Self, right: &Self) -> Self {
        Self::sum(&[&[1], &left.0, &right.0])
    }

    /// The plain hash of parts, as if they were one.
    pub(crate) fn sum(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        Self::finish(context)
    }

    /// The hash of what a SHA-256 context was given.
    pub(crate) fn finish(context: Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let bytes = STANDARD.decode(text).map_err(|_| InvalidHash)?;
        bytes.try_into().map(Self).map_err(|_| InvalidHash)
    }
}

impl TryFrom<String> for Hash {
    type Error = InvalidHash;

    fn try_from(text: String) -> Result<Self, InvalidHash> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}
