//! Tiles (C2SP tlog-tiles): the tree and its entries as files of at most 256, which never change once they are full.
//!
//! `tile/<level>/<index>` holds hashes, `tile/entries/<index>` holds leaves; the unfinished ones at the right edge
//! end in `.p/<width>`. An index is written in groups of three digits: 1234067 is `x001/x234/067`.

use std::fmt;
use std::str::FromStr;

use crate::Hash;
use crate::seal::MAX_LEAF_BYTES;
use crate::text::decimal;

/// How many hashes or leaves a full tile has.
pub const WIDTH: usize = 256;
/// How many levels of tiles a tree has at most.
pub const LEVELS: u8 = 8;
/// The bytes of a full tile.
pub const MAX_TILE_BYTES: usize = WIDTH * 32;
/// The bytes of a full bundle, at most.
pub const MAX_BUNDLE_BYTES: usize = WIDTH * (2 + MAX_LEAF_BYTES);

/// Why a path or a file's bytes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// The path is not of a tile or a bundle.
    #[error(
        "not the path of a tile: tile/<level>/<index> or tile/entries/<index>, with .p/<width> if unfinished"
    )]
    Path,
    /// The bytes are not between 1 and 256 hashes.
    #[error("a tile is 1 to 256 hashes of 32 bytes")]
    Hashes,
    /// The bytes are not between 1 and 256 leaves, each with its length before it.
    #[error("a bundle is 1 to 256 leaves, each after its length in two bytes")]
    Bundle,
    /// A leaf is too long for a bundle.
    #[error("a leaf of {0} bytes; at most 65,535 can be published")]
    Leaf(usize),
}

/// A row of the tree's hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// 0 for leaf hashes; an entry of level *L* is the root of a full subtree of 256^*L* leaves.
    pub level: u8,
    /// Which of its level, from 0 at the left.
    pub index: u64,
    /// One to 256 hashes.
    pub hashes: Vec<Hash>,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TilePath {
    /// Hashes of the tree.
    Hashes {
        /// The tile's level.
        level: u8,
        /// Which of its level.
        index: u64,
        /// 1 to 256; below 256 the tile was unfinished.
        width: u16,
    },
    /// The leaves themselves.
    Entries {
        /// Which bundle.
        index: u64,
        /// 1 to 256; below 256 the bundle was unfinished.
        width: u16,
    },
}

/// The path of a tile: `tile/0/x001/234`, `tile/1/000.p/5`.
pub fn tile_path(level: u8, index: u64, width: u16) -> String {
    TilePath::Hashes { level, index, width }.to_string()
}

/// The path of an entry bundle: `tile/entries/x001/234`, `tile/entries/000.p/5`.
pub fn entries_path(index: u64, width: u16) -> String {
    TilePath::Entries { index, width }.to_string()
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match *self {
            Self::Hashes { level, index, width } => {
                write!(f, "tile/{level}/")?;
                (index, width)
            }
            Self::Entries { index, width } => {
                f.write_str("tile/entries/")?;
                (index, width)
            }
        };
        f.write_str(&grouped(index))?;
        if usize::from(width) < WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
    }
}

/// An index in groups of three digits, an `x` before each but the last.
fn grouped(index: u64) -> String {
    let last = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    let mut groups = vec![last];
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    groups.join("/")
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        let parsed = Self::parse(path).ok_or(TileError::Path)?;
        // One tile has one path.
        if parsed.to_string() == path { Ok(parsed) } else { Err(TileError::Path) }
    }
}

impl TilePath {
    fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (digits, width) = match rest.split_once(".p/") {
            Some((digits, width)) => (digits, decimal(width)?),
            None => (rest, 256),
        };
        if !(1..=256).contains(&width) || digits.len() > 40 {
            return None;
        }
        let digits: String = digits.chars().filter(|char| !matches!(char, 'x' | '/')).collect();
        let index = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
        match kind {
            "entries" => Some(Self::Entries { index, width }),
            level => {
                let level = decimal(level).filter(|level| *level < LEVELS)?;
                Some(Self::Hashes { level, index, width })
            }
        }
    }
}

/// The bytes of a tile.
pub fn encode_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a tile's bytes: 1 to 256.
pub fn decode_hashes(bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
    let (hashes, rest) = bytes.as_chunks();
    if !rest.is_empty() || !(1..=WIDTH).contains(&hashes.len()) {
        return Err(TileError::Hashes);
    }
    Ok(hashes.iter().copied().map(Hash).collect())
}

/// The bytes of an entry bundle of 1 to 256 leaves.
pub fn encode_bundle(leaves: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, TileError> {
    if !(1..=WIDTH).contains(&leaves.len()) {
        return Err(TileError::Bundle);
    }
    let mut bytes = Vec::new();
    for leaf in leaves.iter().map(AsRef::as_ref) {
        let length = u16::try_from(leaf.len()).map_err(|_| TileError::Leaf(leaf.len()))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(leaf);
    }
    Ok(bytes)
}

/// The leaves of a bundle: 1 to 256.
pub fn decode_bundle(mut bytes: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let mut leaves = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (leaf, rest) = rest.split_at_checked(length).ok_or(TileError::Bundle)?;
        if leaves.len() == WIDTH {
            return Err(TileError::Bundle);
        }
        leaves.push(leaf);
        bytes = rest;
    }
    if leaves.is_empty() || !bytes.is_empty() { Err(TileError::Bundle) } else { Ok(leaves) }
}

/// The levels that a tree of this size has tiles in.
pub fn levels(size: u64) -> impl Iterator<Item = u8> {
    (0..LEVELS).take_while(move |level| size >> shift(*level) > 0)
}

/// Index and width of a level's unfinished tile in a tree of this size; the width is 0 where the level ends with a
/// full tile.
pub fn unfinished(size: u64, level: u8) -> (u64, u16) {
    let nodes = size >> shift(level);
    (nodes / 256, u16::try_from(nodes % 256).unwrap_or(0))
}

/// How wide the tile at an index of a level is in a tree of this size; `None` if the tree has no such tile.
pub fn width(size: u64, level: u8, index: u64) -> Option<u16> {
    let nodes = (size >> shift(level)).checked_sub(index.checked_mul(256)?)?;
    u16::try_from(nodes.min(256)).ok().filter(|width| *width > 0)
}

/// The logarithm of how many leaves are beneath a node of a level.
pub(crate) fn shift(level: u8) -> u32 {
    8 * u32::from(level.min(LEVELS - 1))
}
