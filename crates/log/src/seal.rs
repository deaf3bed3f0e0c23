//! Seals: what a process signs about each record before anyone hears of it.
//!
//! A *chain* is one writer of one process, with a key that lives and dies with it. It writes batches; each seal
//! names the batch before, so that nothing between two leaves of a chain can be taken away unseen.

use uuid::Uuid;

use crate::Hash;
use crate::note::{Note, NoteError, Signer, Verifier};
use crate::text::{decimal, lines, words};

/// A leaf's length in bytes, at most: entry bundles write lengths in 16 bits (C2SP tlog-tiles).
pub const MAX_LEAF_BYTES: usize = 65_535;

const FORMAT: &str = "cortex-seal/v1";
const ENROLMENT: &str = "cortex-chain/v1";

/// Why a seal, a leaf or an enrolment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The seal is no note, or not signed by the chain.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note's text is not a seal.
    #[error("not a seal of the form {FORMAT}")]
    Malformed,
    /// The seal names another chain than the key that signed it.
    #[error("the seal is of another chain than its key")]
    OtherChain,
    /// The leaf is not an entry, a newline and a seal.
    #[error("not an entry with its seal")]
    Leaf,
    /// The note's text is not an enrolment in this log.
    #[error("not an enrolment of a chain in this log")]
    Enrolment,
}

/// What a chain says of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The chain; its key's name too.
    pub chain: Uuid,
    /// The batch that the entry was committed with; grows in a chain, gaps are allowed. The first is 1.
    pub batch: u64,
    /// The place in the batch; grows, gaps are allowed.
    pub place: u32,
    /// The plain hash of the entry.
    pub entry: Hash,
    /// The digest of the chain's previous batch that has leaves; [`Hash::ZERO`] for the first.
    pub previous: Hash,
    /// When it was sealed; unix milliseconds.
    pub time_ms: i64,
    /// By when the leaf must be in a checkpoint; unix milliseconds.
    pub merge_by_ms: i64,
}

impl Seal {
    fn text(&self) -> String {
        let Self { chain, batch, place, entry, previous, time_ms, merge_by_ms } = self;
        format!("{FORMAT}\n{chain} {batch} {place}\n{entry}\n{previous}\n{time_ms} {merge_by_ms}\n")
    }

    /// The seal as a note by the chain's key, whose name is the chain's UUID.
    pub fn sign(&self, chain: &Signer) -> Result<String, SealError> {
        if chain.name() != self.chain.to_string() {
            return Err(SealError::OtherChain);
        }
        Ok(chain.sign(&self.text())?)
    }

    /// Reads a seal without verifying it: says whose key is to be asked.
    pub fn parse(note: &str) -> Result<Self, SealError> {
        Self::read(crate::note::Note::parse(note)?.text)
    }

    /// Reads a seal that this key signed.
    pub fn verify(note: &str, chain: &Verifier) -> Result<Self, SealError> {
        let seal = Self::read(chain.open(note)?)?;
        if chain.name() == seal.chain.to_string() { Ok(seal) } else { Err(SealError::OtherChain) }
    }

    fn read(text: &str) -> Result<Self, SealError> {
        let seal = Self::fields(text).ok_or(SealError::Malformed)?;
        // A UUID has several texts.
        if seal.text() == text { Ok(seal) } else { Err(SealError::Malformed) }
    }

    fn fields(text: &str) -> Option<Self> {
        let [FORMAT, place, entry, previous, times] = lines::<5>(text)? else { return None };
        let [chain, batch, place] = words::<3>(place)?;
        let [time, merge_by] = words::<2>(times)?;
        Some(Self {
            chain: chain.parse().ok()?,
            batch: decimal(batch)?,
            place: decimal(place)?,
            entry: entry.parse().ok()?,
            previous: previous.parse().ok()?,
            time_ms: decimal(time)?,
            merge_by_ms: decimal(merge_by)?,
        })
    }
}

/// The bytes of a leaf: an entry (without raw newlines, as canonical JSON is) and its seal. They are to stay below
/// [`MAX_LEAF_BYTES`].
pub fn join(entry: &[u8], seal: &str) -> Vec<u8> {
    [entry, b"\n", seal.as_bytes()].concat()
}

/// The entry and the seal of a leaf.
pub fn split(leaf: &[u8]) -> Result<(&[u8], &str), SealError> {
    let end = leaf.iter().position(|byte| *byte == b'\n').ok_or(SealError::Leaf)?;
    let (entry, seal) = leaf.split_at_checked(end).ok_or(SealError::Leaf)?;
    let seal = seal.strip_prefix(b"\n").and_then(|seal| std::str::from_utf8(seal).ok());
    Ok((entry, seal.ok_or(SealError::Leaf)?))
}

/// The digest of a batch, from the leaf hashes ([`Hash::leaf`]) of its leaves in order of place.
pub fn batch_digest(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    let bytes: Vec<u8> = leaves.into_iter().flat_map(|hash| hash.0).collect();
    Hash::of(&bytes)
}

/// A note by the log's key (whose name is the log's base) that lets a chain write to the log.
pub fn enrol(log: &Signer, chain: &Verifier) -> Result<String, SealError> {
    Ok(log.sign(&format!("{ENROLMENT}\n{}\n{chain}\n", log.name()))?)
}

/// The chain's key that an enrolment names, if the log's key signed it for this log.
pub fn enrolled(log: &Verifier, note: &str) -> Result<Verifier, SealError> {
    let [ENROLMENT, base, chain] = lines::<3>(log.open(note)?).ok_or(SealError::Enrolment)? else {
        return Err(SealError::Enrolment);
    };
    let chain: Verifier = chain.parse()?;
    let named_by_uuid = chain.name().parse::<Uuid>().is_ok_and(|uuid| uuid.to_string() == chain.name());
    if base == log.name() && named_by_uuid { Ok(chain) } else { Err(SealError::Enrolment) }
}

/// What the log is called that an enrolment is for, as it says itself: whether the log's key signed it, [`enrolled`] says.
pub fn enrolled_in(note: &str) -> Result<&str, SealError> {
    match lines::<3>(Note::parse(note)?.text) {
        Some([ENROLMENT, base, _]) => Ok(base),
        _ => Err(SealError::Enrolment),
    }
}
