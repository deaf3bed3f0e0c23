//! The tree, compared with its definition and with another implementation of it.

#![expect(clippy::unwrap_used, reason = "a helper that fails has failed its test")]

use std::cell::RefCell;
use std::collections::HashMap;

use cortex_log::Hash;
use cortex_log::tile::{self, Tile, TilePath};
use cortex_log::tree::{Frontier, LoadError};
use proptest::prelude::*;
use tlog_tiles::HashReader;

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|number| Hash::leaf(&number.to_be_bytes())).collect()
}

/// RFC 6962, section 2.1, word by word.
fn defined_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(b""),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len().next_power_of_two() / 2);
            Hash::node(&defined_root(left), &defined_root(right))
        }
    }
}

/// The other implementation's storage: a row of hashes that it numbers itself.
#[derive(Default)]
struct Stored(RefCell<Vec<tlog_tiles::Hash>>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0.borrow()[usize::try_from(*index).unwrap()]).collect())
    }
}

impl Stored {
    fn of(count: u64) -> Self {
        let stored = Self::default();
        for number in 0..count {
            let hashes = tlog_tiles::stored_hashes(number, &number.to_be_bytes(), &stored).unwrap();
            stored.0.borrow_mut().extend(hashes);
        }
        stored
    }
}

type Tiles = HashMap<(u8, u64), Vec<Hash>>;

fn keep(tiles: &mut Tiles, new: Vec<Tile>) {
    for Tile { level, index, hashes } in new {
        tiles.insert((level, index), hashes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn however_leaves_arrive_the_root_and_the_tiles_are_those_of_the_definition(
        batches in prop::collection::vec(0_u64..700, 1..6),
    ) {
        let total: u64 = batches.iter().sum();
        let all = leaves(total);
        let (mut frontier, mut tiles) = (Frontier::empty(), Tiles::new());
        for batch in &batches {
            let from = usize::try_from(frontier.size()).unwrap();
            let new = frontier.append(&all[from..from + usize::try_from(*batch).unwrap()]);
            keep(&mut tiles, new);
            prop_assert_eq!(frontier.root(), defined_root(&all[..usize::try_from(frontier.size()).unwrap()]));
            let loaded = Frontier::load(frontier.size(), |level, index| {
                tiles.get(&(level, index)).cloned().ok_or("never written")
            });
            prop_assert_eq!(loaded, Ok(frontier.clone()));
        }
        let stored = Stored::of(total);
        prop_assert_eq!(frontier.root().0, tlog_tiles::tree_hash(total, &stored).unwrap().0);
        for theirs in tlog_tiles::Tile::new_tiles(8, 0, total) {
            let ours = &tiles[&(theirs.level(), theirs.level_index())];
            // The other one lists the unfinished widths on the way too.
            let ours = &ours[..usize::try_from(theirs.width()).unwrap()];
            prop_assert_eq!(tile::encode_hashes(ours), theirs.read_data(&stored).unwrap());
        }
    }

    #[test]
    fn a_path_is_read_back_and_is_that_of_the_other_implementation(
        level in 0..tile::LEVELS, index in 0_u64..1 << 55, width in 1_u16..=256,
    ) {
        let path = tile::tile_path(level, index, width);
        prop_assert_eq!(path.parse(), Ok(TilePath::Hashes { level, index, width }));
        let theirs = tlog_tiles::Tile::new(8, level, index, u32::from(width), false);
        prop_assert_eq!(format!("tile/8/{}", path.strip_prefix("tile/").unwrap()), theirs.path());
        let path = tile::entries_path(index, width);
        prop_assert_eq!(path.parse(), Ok(TilePath::Entries { index, width }));
    }

    #[test]
    fn a_bundle_is_read_back(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..=256)) {
        let bytes = tile::encode_bundle(&leaves).unwrap();
        prop_assert_eq!(tile::decode_bundle(&bytes).unwrap(), leaves);
    }
}

#[test]
fn a_third_level_of_tiles_is_written_when_the_second_is_full() {
    let count = 65_536 + 300;
    let mut frontier = Frontier::empty();
    let mut tiles = Tiles::new();
    keep(&mut tiles, frontier.append(&leaves(count)));
    assert_eq!(frontier.root(), defined_root(&leaves(count)));
    assert_eq!(tiles[&(1, 0)].len(), 256);
    assert_eq!(tiles[&(2, 0)], [defined_root(&tiles[&(1, 0)])]);
    assert_eq!((tiles[&(1, 1)].len(), tiles[&(0, 257)].len()), (1, 44));
}

#[test]
fn only_tiles_that_grew_are_answered() {
    let mut frontier = Frontier::empty();
    frontier.append(&leaves(256 + 10));
    let grown: Vec<_> =
        frontier.append(&leaves(1)).into_iter().map(|tile| (tile.level, tile.index)).collect();
    assert_eq!(grown, [(0, 1)]);
    assert_eq!(frontier.append(&[]), []);
}

#[test]
fn a_tile_of_the_wrong_width_does_not_become_an_edge() {
    let loaded = Frontier::load(300, |_, _| Ok::<_, ()>(leaves(3)));
    assert_eq!(loaded, Err(LoadError::Width { level: 0, index: 1, expected: 44, found: 3 }));
}

#[test]
fn other_paths_are_refused() {
    for path in [
        "",
        "tile/0",
        "tile/8/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/x001001",
        "tile/0/001/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/01",
        "tile/0/000/",
        "tile/0/../000",
        "tile/data/000",
        "tile/entries/000.p/",
        "/tile/0/000",
        "tile/0/x018/x446/x744/x073/x709/x551/x616",
    ] {
        assert!(path.parse::<TilePath>().is_err(), "{path}");
    }
    assert_eq!(
        "tile/0/x123/x456/067".parse(),
        Ok(TilePath::Hashes { level: 0, index: 123_456_067, width: 256 })
    );
}

#[test]
fn other_bytes_are_no_bundle_and_no_tile() {
    for bytes in [&b""[..], &[0], &[0, 2, 1], &[0, 1, 1, 9], &[0; 2 * 257]] {
        assert!(tile::decode_bundle(bytes).is_err(), "{bytes:?}");
    }
    for length in [0, 31, 33, 257 * 32] {
        assert!(tile::decode_hashes(&vec![0; length]).is_err(), "{length}");
    }
    assert!(tile::encode_bundle(&[vec![0; 65_536]]).is_err());
}
