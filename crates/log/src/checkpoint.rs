//! Checkpoints (C2SP tlog-checkpoint): a signed note of a shard's size and root.
//!
//! ```text
//! cortex.acme.example/log/2026
//! 1234
//! base64 of the root
//! time 1767225600000
//! ```

use crate::Hash;
use crate::note::{NoteError, Signer, Verifier};
use crate::text::{decimal, lines};

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is no note, or not signed by the log.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note's text is not a checkpoint.
    #[error("not a checkpoint: it has the lines origin, size, root and time")]
    Malformed,
    /// Its origin is not the name of the key.
    #[error("the checkpoint is of {found:?}, not of {expected:?}")]
    OtherOrigin {
        /// The name of the key.
        expected: String,
        /// The origin in the checkpoint.
        found: String,
    },
}

/// What a shard was at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The shard: the log's base, a slash and the shard's name. The signing key's name too.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root of the tree over them (RFC 6962).
    pub root: Hash,
    /// When; unix milliseconds. It never decreases within a log.
    pub time_ms: i64,
}

impl Checkpoint {
    /// The note's text.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\ntime {}\n", self.origin, self.size, self.root, self.time_ms)
    }

    /// The checkpoint as a note. The signer's name must be the origin.
    pub fn sign(&self, signer: &Signer) -> Result<String, CheckpointError> {
        self.of(signer.name())?;
        Ok(signer.sign(&self.text())?)
    }

    /// Reads the text of a note.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let checkpoint = Self::fields(text).ok_or(CheckpointError::Malformed)?;
        if checkpoint.text() == text { Ok(checkpoint) } else { Err(CheckpointError::Malformed) }
    }

    /// Reads a checkpoint that this key signed. The verifier's name must be the origin.
    pub fn open(note: &str, verifier: &Verifier) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(verifier.open(note)?)?;
        checkpoint.of(verifier.name())?;
        Ok(checkpoint)
    }

    /// Reads a checkpoint of any shard of the log whose key this is; the key's name is the log's base.
    pub fn open_under(note: &str, log: &Verifier) -> Result<Self, CheckpointError> {
        let origin = note.split('\n').next().unwrap_or_default();
        let shard = origin.strip_prefix(log.name()).and_then(|rest| rest.strip_prefix('/'));
        if !shard.is_some_and(|shard| !shard.is_empty() && !shard.contains('/')) {
            return Err(CheckpointError::OtherOrigin {
                expected: format!("{}/…", log.name()),
                found: origin.into(),
            });
        }
        Self::open(note, &log.named(origin)?)
    }

    fn of(&self, expected: &str) -> Result<(), CheckpointError> {
        if self.origin == expected {
            return Ok(());
        }
        Err(CheckpointError::OtherOrigin { expected: expected.to_owned(), found: self.origin.clone() })
    }

    fn fields(text: &str) -> Option<Self> {
        let [origin, size, root, time] = lines::<4>(text)?;
        Some(Self {
            origin: origin.to_owned(),
            size: decimal(size)?,
            root: root.parse().ok()?,
            time_ms: decimal(time.strip_prefix("time ")?)?,
        })
    }
}
