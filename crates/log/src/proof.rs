//! Proofs that a leaf is in a tree, and that a tree grew out of an older one (RFC 6962, section 2.1).
//!
//! A [`Plan`] says which tiles a proof is made of before any is read, so that whoever must wait for tiles gets them
//! all at once.

use std::fmt;
use std::str::FromStr;

use crate::text::decimal;
use crate::{Hash, tile, tree};

/// How many hashes a proof has at most: a tree of 2^64 leaves is that high.
pub const MAX_HASHES: usize = 63;
/// The bytes of a proof file, at most.
pub const MAX_FILE_BYTES: usize = crate::note::MAX_NOTE_BYTES + 8 * 1024;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Why a proof cannot be made, read or believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// There is no such leaf, or no such older tree.
    #[error("a tree of {size} leaves has no place {place}")]
    Beyond {
        /// The leaf's index, or the older tree's size.
        place: u64,
        /// The tree's size.
        size: u64,
    },
    /// The proof's number of hashes is not what these sizes need.
    #[error("the proof has the wrong number of hashes for these sizes")]
    Length,
    /// The proof leads to another root than the one it is for.
    #[error("the proof does not lead to the root")]
    Root,
    /// The file is not a C2SP tlog-proof.
    #[error("not a proof of the form {HEADER}")]
    Malformed,
}

/// Why a planned proof's hashes were not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError<E> {
    /// A tile could not be read.
    #[error(transparent)]
    Read(E),
    /// A tile is narrower than was asked for.
    #[error("tile {index} of level {level} holds {found} hashes; {expected} are needed")]
    Narrow {
        /// The tile's level.
        level: u8,
        /// The tile's index in its level.
        index: u64,
        /// How many hashes are needed.
        expected: u16,
        /// How many hashes were read.
        found: usize,
    },
}

/// Which parts of a tree a proof consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    size: u64,
    /// Leaves from the first up to but without the second; each part is one hash of the proof.
    parts: Vec<(u64, u64)>,
}

/// A node above a full subtree: as a tile has it, or between two levels of tiles.
#[derive(Clone, Copy)]
struct Node {
    level: u8,
    index: u64,
    /// The first of the hashes in the tile that are beneath the node, and how many they are.
    first: u16,
    count: u16,
}

impl Plan {
    /// The proof that the leaf at `index` is in a tree of `size` leaves.
    pub fn inclusion(index: u64, size: u64) -> Result<Self, ProofError> {
        if index >= size {
            return Err(ProofError::Beyond { place: index, size });
        }
        let (mut parts, mut low, mut high) = (Vec::new(), 0, size);
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                parts.push((middle, high));
                high = middle;
            } else {
                parts.push((low, middle));
                low = middle;
            }
        }
        parts.reverse();
        Ok(Self { size, parts })
    }

    /// The proof that a tree of `size` leaves begins with the tree of `old` leaves.
    pub fn consistency(old: u64, size: u64) -> Result<Self, ProofError> {
        if old > size {
            return Err(ProofError::Beyond { place: old, size });
        }
        let (mut parts, mut low, mut high) = (Vec::new(), 0, size);
        if old == 0 {
            return Ok(Self { size, parts });
        }
        while old < high {
            let middle = low + split(high - low);
            if old <= middle {
                parts.push((middle, high));
                high = middle;
            } else {
                parts.push((low, middle));
                low = middle;
            }
        }
        // Who has the old root need not be told it.
        if low > 0 {
            parts.push((low, high));
        }
        parts.reverse();
        Ok(Self { size, parts })
    }

    /// The tiles that the proof is read from: level, index, and the width that they have in this tree.
    pub fn tiles(&self) -> Vec<(u8, u64, u16)> {
        let nodes = self.parts.iter().flat_map(|part| nodes(*part));
        let mut tiles: Vec<_> = nodes.filter_map(|node| self.tile(node)).collect();
        tiles.sort_unstable();
        tiles.dedup();
        tiles
    }

    fn tile(&self, node: Node) -> Option<(u8, u64, u16)> {
        Some((node.level, node.index, tile::width(self.size, node.level, node.index)?))
    }

    /// The proof. `read` gets a tile of [`Plan::tiles`]; a wider one will do.
    pub fn hashes<E>(
        &self,
        mut read: impl FnMut(u8, u64, u16) -> Result<Vec<Hash>, E>,
    ) -> Result<Vec<Hash>, ReadError<E>> {
        let mut proof = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            // Full subtrees from left to right, so that the rightmost joins first.
            let mut roots = Vec::new();
            for node in nodes(*part) {
                let Some((level, index, expected)) = self.tile(node) else { continue };
                let hashes = read(level, index, expected).map_err(ReadError::Read)?;
                let range = usize::from(node.first)..usize::from(node.first + node.count);
                let narrow = ReadError::Narrow { level, index, expected, found: hashes.len() };
                roots.push(tree::root(hashes.get(range).ok_or(narrow)?));
            }
            let root = roots.into_iter().rev().reduce(|right, left| Hash::node(&left, &right));
            proof.extend(root);
        }
        Ok(proof)
    }
}

/// The largest power of two below a number of leaves above one.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// The full subtrees of a part of a tree, from left to right.
fn nodes((mut low, high): (u64, u64)) -> Vec<Node> {
    let mut nodes = Vec::new();
    while low < high {
        let fits = (high - low).ilog2();
        let height = if low == 0 { fits } else { fits.min(low.trailing_zeros()) };
        let level = u8::try_from(height / 8).unwrap_or(tile::LEVELS);
        let first = low >> tile::shift(level);
        let count = 1 << (height % 8);
        nodes.push(Node { level, index: first / 256, first: u16::try_from(first % 256).unwrap_or(0), count });
        low += 1 << height;
    }
    nodes
}

/// Checks that the leaf with this hash is at `index` of the tree of `size` leaves with this root.
pub fn verify_inclusion(
    leaf: Hash,
    index: u64,
    size: u64,
    root: Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    let plan = Plan::inclusion(index, size)?;
    if proof.len() != plan.parts.len() {
        return Err(ProofError::Length);
    }
    let found = plan.parts.iter().zip(proof).fold(leaf, |hash, ((low, _), sibling)| {
        if *low > index { Hash::node(&hash, sibling) } else { Hash::node(sibling, &hash) }
    });
    if found == root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree of `size` leaves with this root begins with the tree of `old` leaves with the old root.
pub fn verify_consistency(
    (old, old_root): (u64, Hash),
    (size, root): (u64, Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    let plan = Plan::consistency(old, size)?;
    if proof.len() != plan.parts.len() {
        return Err(ProofError::Length);
    }
    if old == 0 {
        return if old_root == tree::root(&[]) { Ok(()) } else { Err(ProofError::Root) };
    }
    let mut parts = plan.parts.iter().zip(proof).peekable();
    // The part that ends where the old tree ended; the old root itself if the old tree is that part.
    let first = parts.next_if(|((_, high), _)| *high == old).map_or(old_root, |(_, hash)| *hash);
    let (found_old, found) = parts.fold((first, first), |(before, now), ((low, _), hash)| {
        if *low >= old {
            (before, Hash::node(&now, hash))
        } else {
            (Hash::node(hash, &before), Hash::node(hash, &now))
        }
    });
    if found_old == old_root && found == root { Ok(()) } else { Err(ProofError::Root) }
}

/// A proof of inclusion that needs nothing else to be checked but the log's key (C2SP tlog-proof).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFile {
    /// The leaf's index.
    pub index: u64,
    /// The proof, from the leaf's sibling to the root's child.
    pub hashes: Vec<Hash>,
    /// The signed note of the checkpoint that the proof leads to.
    pub checkpoint: String,
}

impl fmt::Display for ProofFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nindex {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for ProofFile {
    type Err = ProofError;

    fn from_str(text: &str) -> Result<Self, ProofError> {
        Self::parse(text).ok_or(ProofError::Malformed)
    }
}

impl ProofFile {
    fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_FILE_BYTES {
            return None;
        }
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.split('\n').peekable();
        lines.next().filter(|line| *line == HEADER)?;
        // Nobody signed the extra data; ours have none.
        lines.next_if(|line| line.starts_with("extra "));
        let index = decimal(lines.next()?.strip_prefix("index ")?)?;
        let hashes = read_hashes(lines)?;
        Some(Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }
}

/// The hashes of a proof, one on each line; at most [`MAX_HASHES`].
pub(crate) fn read_hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Vec<Hash>> {
    let hashes: Vec<Hash> = lines.take(MAX_HASHES + 1).map(str::parse).collect::<Result<_, _>>().ok()?;
    (hashes.len() <= MAX_HASHES).then_some(hashes)
}
