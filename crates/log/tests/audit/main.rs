//! What an audit verifies, and what it names of a log that somebody changed.

#![expect(clippy::unwrap_used, reason = "a helper that fails has failed its test")]

mod case;
#[path = "../made/mod.rs"]
mod made;
mod shards;

use case::*;
use cortex_log::Hash;
use cortex_log::audit::{Fault, What};
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::{NoteError, Signer};
use cortex_log::opening::ChainOpened;
use cortex_log::seal::{self, Seal, SealError};
use made::{BASE, Chain, Log};
use proptest::prelude::*;

#[test]
fn an_edited_row_is_named() {
    let mut case = case();
    let edited = String::from_utf8(case.leaves()[9].clone()).unwrap().replacen("outcome", "denial!", 1);
    case.leaves()[9] = edited.into_bytes();
    assert_eq!(case.audit(), at(9, What::Entry));
    assert_eq!(case.without_tiles().audit(), at(9, What::Entry));
}

#[test]
fn a_row_edited_and_sealed_anew_without_the_chains_key_is_named() {
    let mut case = case();
    let (entry, seal) = parts(&case.leaves()[9]);
    let edited = String::from_utf8(entry).unwrap().replacen("outcome", "denial!", 1).into_bytes();
    let seal = Seal { entry: Hash::of(&edited), ..seal };
    let chain = seal.chain;
    let forger = Signer::from_seed(&chain.to_string(), &[77; 32]).unwrap();
    case.leaves()[9] = made::join(&edited, &seal, &forger);
    let unsigned = SealError::Note(NoteError::Unsigned(chain.to_string()));
    assert_eq!(case.audit(), at(9, What::Signature(chain, unsigned)));
}

#[test]
fn a_row_with_the_signature_of_another_chain_is_named() {
    let mut case = case();
    let (_, seal) = parts(&case.leaves()[3]);
    let other = parts(&case.leaves()[6]).1.chain;
    let leaf = String::from_utf8(case.leaves()[3].clone()).unwrap();
    // The other chain's name and key in the signature's line.
    let key = Chain::new(2).signer;
    let text = leaf.split_once('\n').unwrap().1.rsplit_once("\n\n").unwrap().0;
    let note = key.sign(&format!("{text}\n")).unwrap();
    case.leaves()[3] = seal::join(&parts(leaf.as_bytes()).0, &note);
    assert_ne!(seal.chain, other);
    let unsigned = SealError::Note(NoteError::Unsigned(seal.chain.to_string()));
    assert_eq!(case.audit(), at(3, What::Signature(seal.chain, unsigned)));
}

#[test]
fn rows_of_two_chains_that_were_swapped_are_named_by_the_tiles_and_bounded_without_them() {
    let mut case = case();
    case.leaves().swap(4, 5);
    assert_eq!(case.audit(), at(4, What::Altered(LEAVES)));
    assert_eq!(case.without_tiles().audit(), fault(0, LEAVES, What::Root(LEAVES)));
}

#[test]
fn an_older_checkpoint_narrows_where_the_swapped_rows_are() {
    let mut log = Log::of_two(2);
    let older = log.checkpoint(0);
    log.write(0, 3);
    log.write(1, 3);
    let mut case = Case::of(log).without_tiles();
    case.older = vec![older.clone()];
    let size = u64::try_from(case.leaves().len()).unwrap();
    case.leaves().swap(16, 17);
    assert_eq!(case.audit(), fault(older.size, size, What::Root(size)));
}

#[test]
fn rows_of_one_chain_that_were_swapped_are_named() {
    let mut case = case();
    let (_, seal) = parts(&case.leaves()[2]);
    case.leaves().swap(2, 3);
    assert_eq!(case.audit(), fault(2, 4, What::Order { chain: seal.chain, batch: 2, place: 0 }));
    assert_eq!(case.without_tiles().audit(), at(3, What::Order { chain: seal.chain, batch: 2, place: 0 }));
}

#[test]
fn a_row_removed_in_the_middle_is_named() {
    let mut case = case();
    let (_, seal) = parts(&case.leaves()[9]);
    case.leaves().remove(9);
    let what = What::Previous { chain: seal.chain, batch: seal.batch + 1 };
    assert_eq!(case.audit(), fault(9, 14, what.clone()));
    assert_eq!(case.without_tiles().audit(), at(13, what));
}

#[test]
fn a_whole_batch_removed_in_the_middle_is_named() {
    let mut case = case();
    let (_, seal) = parts(&case.leaves()[8]);
    case.leaves().drain(8..11);
    let what = What::Previous { chain: seal.chain, batch: seal.batch + 1 };
    assert_eq!(case.audit(), fault(8, 12, what));
}

#[test]
fn a_tail_that_was_cut_is_named() {
    let mut case = case();
    case.leaves().truncate(30);
    assert_eq!(case.audit(), fault(30, LEAVES, What::Missing));
}

#[test]
fn a_restored_backup_is_named_by_an_older_checkpoint() {
    let mut log = Log::of_two(2);
    let before = Case::of(Log::of_two(2));
    log.write(0, 5);
    let mut restored = before;
    restored.older = vec![log.checkpoint(0)];
    assert_eq!(restored.audit(), fault(14, 19, What::Missing));
}

#[test]
fn a_row_inserted_twice_is_named() {
    let mut case = case();
    let copy = case.leaves()[9].clone();
    let (_, seal) = parts(&copy);
    case.leaves().insert(10, copy);
    let what = What::Order { chain: seal.chain, batch: seal.batch, place: seal.place };
    assert_eq!(case.audit(), at(10, what));
}

#[test]
fn rows_beyond_the_checkpoint_are_named() {
    let mut case = case();
    case.log.write(0, 2);
    assert_eq!(case.without_tiles().audit(), fault(LEAVES, LEAVES + 2, What::Uncovered));
}

#[test]
fn a_chain_that_nobody_enrolled_is_named() {
    let mut log = Log::of_two(1);
    log.chains.push(Chain::new(9));
    log.write(2, 1);
    let chain = log.chains[2].uuid;
    assert_eq!(Case::of(log).audit(), at(8, What::Unenrolled(chain)));
}

#[test]
fn a_chain_that_another_key_enrolled_is_named() {
    let mut log = Log::of_two(1);
    let honest = std::mem::replace(&mut log.signer, Signer::from_seed(BASE, &[99; 32]).unwrap());
    log.open_chain(None);
    log.signer = honest;
    let unsigned = SealError::Note(NoteError::Unsigned(BASE.into()));
    assert_eq!(Case::of(log).audit(), at(8, What::Enrolment(unsigned)));
}

#[test]
fn a_chain_that_names_another_key_than_its_enrolment_is_named() {
    let mut log = Log::of_two(1);
    let chain = Chain::new(5);
    let opened = ChainOpened {
        chain: chain.uuid,
        key: Chain::new(6).signer.verifier().to_string(),
        enrolment: seal::enrol(&log.signer, &chain.signer.verifier()).unwrap(),
        predecessor: None,
    };
    log.chains.push(chain);
    log.commit(2, &[made::record("log.chain_opened", &opened)]);
    assert_eq!(Case::of(log).audit(), at(8, What::Enrolment(SealError::Enrolment)));
}

#[test]
fn a_chain_that_goes_on_after_its_successor_named_its_end_is_named() {
    let mut log = Log::of_two(2);
    log.open_chain(Some(1));
    log.write(1, 2);
    let chain = log.chains[1].uuid;
    assert_eq!(Case::of(log).audit(), at(15, What::Ended(chain)));
}

#[test]
fn the_missing_end_of_a_chain_is_named_at_its_successors_opening() {
    let mut log = Log::of_two(2);
    let (chain, batch) = (log.chains[1].uuid, log.chains[1].batch);
    log.shard().leaves.truncate(11);
    log.open_chain(Some(1));
    log.write(0, 2);
    assert_eq!(Case::of(log).audit(), at(11, What::Predecessor { chain, batch }));
}

#[test]
fn what_a_chain_left_behind_may_come_after_its_successor() {
    let mut log = Log::of_two(2);
    let last = log.shard().leaves.split_off(11);
    log.open_chain(Some(1));
    log.shard().leaves.extend(last);
    assert!(Case::of(log).audit().is_ok());
}

#[test]
fn a_wrong_previous_digest_is_named_even_when_the_chain_signed_it() {
    let mut log = Log::of_two(2);
    log.chains[1].digest = Hash::of(b"something else");
    log.write(1, 2);
    let (chain, batch) = (log.chains[1].uuid, log.chains[1].batch);
    assert_eq!(Case::of(log).audit(), at(14, What::Previous { chain, batch }));
}

#[test]
fn a_chain_that_is_opened_twice_is_named() {
    let mut log = Log::of_two(1);
    let entry = parts(&log.shard().leaves[1]).0;
    log.commit(1, &[entry]);
    assert_eq!(Case::of(log).audit(), at(8, What::Opening("a chain is opened twice")));
}

#[test]
fn a_checkpoint_of_another_root_bounds_the_fault() {
    let mut case = case();
    case.signed[0].root = Hash::of(b"another");
    assert_eq!(case.audit(), fault(0, LEAVES, What::Root(LEAVES)));
}

#[test]
fn an_older_checkpoint_of_another_history_is_named() {
    let mut case = case();
    let elsewhere = Checkpoint { root: Hash::of(b"another"), size: 20, ..case.signed[0].clone() };
    case.older = vec![elsewhere];
    assert_eq!(case.audit(), fault(0, 20, What::Older(20)));
}

#[test]
fn a_wrong_tile_is_named_and_the_leaf_is_not_blamed() {
    let mut case = case();
    case.published[0][7] = Hash::ZERO;
    assert_eq!(case.audit(), at(7, What::Tile));
}

#[test]
fn what_is_no_leaf_is_named() {
    let too_long = vec![b'x'; 70_000];
    for bytes in [&b""[..], b"{}", b"{}\n", b"{}\nno note", b"\xff\n\xff", &too_long] {
        let mut case = case();
        case.leaves()[5] = bytes.to_vec();
        let Err(Fault { index: 5, until: 6, what: What::Leaf(_), .. }) = case.audit() else {
            panic!("{bytes:.20?}");
        };
    }
}

/// What somebody with the database and without a key can do to the leaves.
#[derive(Debug, Clone)]
enum Change {
    Byte { leaf: prop::sample::Index, byte: prop::sample::Index, to: u8 },
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Copy { from: prop::sample::Index, to: prop::sample::Index },
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<prop::sample::Index>;
        prop_oneof![
            (place(), place(), any::<u8>()).prop_map(|(leaf, byte, to)| Self::Byte { leaf, byte, to }),
            place().prop_map(Self::Remove),
            (place(), place()).prop_map(|(one, other)| Self::Swap(one, other)),
            (place(), place()).prop_map(|(from, to)| Self::Copy { from, to }),
        ]
    }

    fn make(&self, leaves: &mut Vec<Vec<u8>>) {
        let count = leaves.len();
        match self {
            Self::Byte { leaf, byte, to } => {
                let leaf = &mut leaves[leaf.index(count)];
                let byte = byte.index(leaf.len());
                leaf[byte] = *to;
            }
            Self::Remove(leaf) => {
                leaves.remove(leaf.index(count));
            }
            Self::Swap(one, other) => leaves.swap(one.index(count), other.index(count)),
            Self::Copy { from, to } => leaves.insert(to.index(count), leaves[from.index(count)].clone()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn of_any_change_the_first_bad_index_is_named(change in Change::any()) {
        let mut case = case();
        let signed = case.leaves().clone();
        change.make(case.leaves());
        let first = signed.iter().zip(case.leaves()).position(|(before, after)| before != after);
        let first = first.unwrap_or(signed.len().min(case.leaves().len()));
        prop_assume!(case.leaves() != &signed);
        let fault = case.audit_by(7).unwrap_err();
        prop_assert_eq!(fault.index, u64::try_from(first).unwrap(), "{}", fault);
        // Without the tiles it is at least not missed.
        prop_assert!(case.without_tiles().audit_by(7).is_err());
    }
}
