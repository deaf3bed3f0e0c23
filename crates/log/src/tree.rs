//! The tree of a shard (RFC 6962, section 2.1), grown at its right edge.

use crate::Hash;
use crate::tile::{self, Tile, WIDTH};

/// The right edge of a tree: what appending needs, and no more. A few kilobytes for any size.
///
/// Level 0 of the tiles holds leaf hashes; an entry of level *L* is the root of a full subtree of 256^*L* leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The unfinished tile of each level, from level 0; each is shorter than 256.
    levels: Vec<Vec<Hash>>,
}

/// Why a right edge was not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError<E> {
    /// A tile could not be read.
    #[error(transparent)]
    Read(E),
    /// A tile is not as wide as the size demands.
    #[error("tile {index} of level {level} holds {found} hashes; a tree of this size has {expected} there")]
    Width {
        /// The tile's level.
        level: u8,
        /// The tile's index in its level.
        index: u64,
        /// How many hashes the size demands.
        expected: u16,
        /// How many hashes were read.
        found: usize,
    },
}

impl Frontier {
    /// The edge of the empty tree.
    pub fn empty() -> Self {
        Self { size: 0, levels: Vec::new() }
    }

    /// The edge of a tree of `size` leaves. `read` gets the unfinished tile of a level, at an index of that level;
    /// it is asked at most once for each level.
    pub fn load<E>(
        size: u64,
        mut read: impl FnMut(u8, u64) -> Result<Vec<Hash>, E>,
    ) -> Result<Self, LoadError<E>> {
        let mut levels = Vec::new();
        for level in tile::levels(size) {
            let (index, expected) = tile::unfinished(size, level);
            let hashes =
                if expected == 0 { Vec::new() } else { read(level, index).map_err(LoadError::Read)? };
            if hashes.len() != usize::from(expected) {
                return Err(LoadError::Width { level, index, expected, found: hashes.len() });
            }
            levels.push(hashes);
        }
        Ok(Self { size, levels })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let edge = self.levels.iter().fold(None, |right, level| leftwards(level, right));
        edge.unwrap_or_else(|| Hash::of(&[]))
    }

    /// Appends leaves by their hashes ([`Hash::leaf`]). Answers with every tile that is new or longer, whole, lower
    /// levels first.
    pub fn append(&mut self, leaves: &[Hash]) -> Vec<Tile> {
        let before = self.size;
        let mut tiles = Vec::new();
        for leaf in leaves {
            self.push(*leaf, &mut tiles);
        }
        for (level, hashes) in (0..).zip(&self.levels) {
            let (index, width) = tile::unfinished(self.size, level);
            if width > 0 && tile::unfinished(before, level) != (index, width) {
                tiles.push(Tile { level, index, hashes: hashes.clone() });
            }
        }
        tiles.sort_by_key(|tile| (tile.level, tile.index));
        tiles
    }

    fn push(&mut self, leaf: Hash, finished: &mut Vec<Tile>) {
        self.size += 1;
        let mut carried = leaf;
        for level in 0.. {
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(usize::from(level)) else { return };
            hashes.push(carried);
            if hashes.len() < WIDTH {
                return;
            }
            let hashes = std::mem::take(hashes);
            carried = root(&hashes);
            let index = (self.size >> tile::shift(level)) / 256 - 1;
            finished.push(Tile { level, index, hashes });
        }
    }
}

/// The root of the tree over these leaves, or over full subtrees of one size.
pub(crate) fn root(hashes: &[Hash]) -> Hash {
    leftwards(hashes, None).unwrap_or_else(|| Hash::of(&[]))
}

/// The root of the tree over a row of nodes and what stands to the right of it.
fn leftwards(hashes: &[Hash], right: Option<Hash>) -> Option<Hash> {
    subtrees(hashes)
        .rev()
        .fold(right, |right, subtree| Some(right.map_or(subtree, |right| Hash::node(&subtree, &right))))
}

/// The roots of the full subtrees of a row of nodes, the largest first.
fn subtrees(hashes: &[Hash]) -> impl DoubleEndedIterator<Item = Hash> {
    let count = hashes.len();
    let sizes = (0..usize::BITS).rev().map(|bit| 1_usize << bit).filter(move |size| count & size != 0);
    sizes.map(move |size| {
        let start = count & !(2 * size - 1);
        perfect(hashes.get(start..start + size).unwrap_or_default())
    })
}

/// The root of a full subtree: the number of nodes is a power of two.
fn perfect(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => Hash::of(&[]),
        [one] => *one,
        [left, right] => Hash::node(left, right),
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            Hash::node(&perfect(left), &perfect(right))
        }
    }
}
