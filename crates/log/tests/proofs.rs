//! Proofs, compared with another implementation; and the protocol with witnesses.

#![expect(clippy::unwrap_used, reason = "a helper that fails has failed its test")]

use std::cell::RefCell;
use std::collections::HashMap;

use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::{NoteError, Signer};
use cortex_log::proof::{self, Plan, ProofError, ProofFile, ReadError};
use cortex_log::receipt::{Receipt, ReceiptError};
use cortex_log::seal::{self, Seal};
use cortex_log::tile::Tile;
use cortex_log::tree::Frontier;
use cortex_log::witness::{self, Answer, Cosigner, Request, WitnessError};
use cortex_log::{Hash, tile};
use proptest::prelude::*;
use tlog_tiles::HashReader;
use uuid::Uuid;

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|number| Hash::leaf(&number.to_be_bytes())).collect()
}

fn root(size: u64) -> Hash {
    let mut frontier = Frontier::empty();
    frontier.append(&leaves(size));
    frontier.root()
}

fn tiles(size: u64) -> HashMap<(u8, u64), Vec<Hash>> {
    let new = Frontier::empty().append(&leaves(size));
    new.into_iter().map(|Tile { level, index, hashes }| ((level, index), hashes)).collect()
}

/// The proof as the tiles of a tree give it; that the tiles that were planned are enough is checked on the way.
fn hashes(plan: &Plan, size: u64) -> Vec<Hash> {
    let (tiles, planned) = (tiles(size), plan.tiles());
    let read = |level, index, width| {
        assert!(planned.contains(&(level, index, width)));
        let tile = &tiles[&(level, index)];
        assert_eq!(tile.len(), usize::from(width));
        Ok::<_, String>(tile.clone())
    };
    plan.hashes(read).unwrap()
}

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

fn ours(theirs: &[tlog_tiles::Hash]) -> Vec<Hash> {
    theirs.iter().map(|hash| Hash(hash.0)).collect()
}

/// Every proof that differs from this one in one place.
fn changed(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = vec![[proof, &[Hash::ZERO]].concat()];
    for at in 0..proof.len() {
        let mut other = proof.to_vec();
        other[at].0[7] ^= 1;
        all.push(other);
        let mut shorter = proof.to_vec();
        shorter.remove(at);
        all.push(shorter);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_inclusion_proof_verifies_and_no_changed_one_does(
        size in 1_u64..1500, at in any::<prop::sample::Index>(),
    ) {
        let index = u64::try_from(at.index(usize::try_from(size).unwrap())).unwrap();
        let (leaf, top) = (Hash::leaf(&index.to_be_bytes()), root(size));
        let proof = hashes(&Plan::inclusion(index, size).unwrap(), size);
        prop_assert_eq!(&proof, &ours(&tlog_tiles::prove_record(size, index, &Stored::of(size)).unwrap()));
        prop_assert_eq!(proof::verify_inclusion(leaf, index, size, top, &proof), Ok(()));
        for other in changed(&proof) {
            prop_assert!(proof::verify_inclusion(leaf, index, size, top, &other).is_err());
        }
        prop_assert!(proof::verify_inclusion(Hash::leaf(b"x"), index, size, top, &proof).is_err());
        prop_assert!(proof::verify_inclusion(leaf, index, size, Hash::ZERO, &proof).is_err());
        if size > 1 {
            let beside = if index == 0 { 1 } else { index - 1 };
            prop_assert!(proof::verify_inclusion(leaf, beside, size, top, &proof).is_err());
        }
    }

    #[test]
    fn every_consistency_proof_verifies_and_no_changed_one_does(size in 1_u64..1500, at in any::<prop::sample::Index>()) {
        let old = 1 + u64::try_from(at.index(usize::try_from(size).unwrap())).unwrap();
        let (before, now) = ((old, root(old)), (size, root(size)));
        let proof = hashes(&Plan::consistency(old, size).unwrap(), size);
        prop_assert_eq!(&proof, &ours(&tlog_tiles::prove_tree(size, old, &Stored::of(size)).unwrap()));
        prop_assert_eq!(proof::verify_consistency(before, now, &proof), Ok(()));
        for other in changed(&proof) {
            prop_assert!(proof::verify_consistency(before, now, &other).is_err());
        }
        prop_assert!(proof::verify_consistency((old, Hash::ZERO), now, &proof).is_err());
        prop_assert!(proof::verify_consistency(before, (size, Hash::ZERO), &proof).is_err());
    }
}

#[test]
fn proofs_reach_across_three_levels_of_tiles() {
    let size = 65_536 * 2 + 256 + 3;
    for index in [0, 255, 65_535, 65_536, 131_072, 131_328, size - 1] {
        let proof = hashes(&Plan::inclusion(index, size).unwrap(), size);
        let leaf = Hash::leaf(&index.to_be_bytes());
        assert_eq!(proof::verify_inclusion(leaf, index, size, root(size), &proof), Ok(()), "{index}");
    }
    for old in [0, 1, 256, 65_536, 65_537, 131_072, size] {
        let proof = hashes(&Plan::consistency(old, size).unwrap(), size);
        assert_eq!(proof::verify_consistency((old, root(old)), (size, root(size)), &proof), Ok(()), "{old}");
    }
}

#[test]
fn places_beyond_the_tree_and_narrow_tiles_are_refused() {
    assert_eq!(Plan::inclusion(5, 5), Err(ProofError::Beyond { place: 5, size: 5 }));
    assert_eq!(Plan::consistency(6, 5), Err(ProofError::Beyond { place: 6, size: 5 }));
    let narrow = Plan::inclusion(0, 4).unwrap().hashes(|_, _, _| Ok::<_, ()>(leaves(1)));
    assert_eq!(narrow, Err(ReadError::Narrow { level: 0, index: 0, expected: 4, found: 1 }));
    assert_eq!(Plan::inclusion(u64::MAX - 1, u64::MAX).unwrap().tiles().len(), 8);
    assert_eq!(tile::levels(u64::MAX).count(), 8);
}

fn a_checkpoint(signer: &Signer) -> String {
    let checkpoint =
        Checkpoint { origin: signer.name().to_owned(), size: 9, root: root(9), time_ms: 1_767_225_600_000 };
    checkpoint.sign(signer).unwrap()
}

#[test]
fn a_proof_file_is_read_back_and_carries_its_checkpoint() {
    let log = Signer::from_seed("cortex.acme.example/log/2026", &[1; 32]).unwrap();
    let hashes = hashes(&Plan::inclusion(3, 9).unwrap(), 9);
    let file = ProofFile { index: 3, hashes, checkpoint: a_checkpoint(&log) };
    let text = file.to_string();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 3\n"), "{text}");
    assert_eq!(text.parse(), Ok(file.clone()));
    let extra = text.replacen("\nindex", "\nextra eHg=\nindex", 1);
    assert_eq!(extra.parse(), Ok(file.clone()));
    let checkpoint = Checkpoint::open(&file.checkpoint, &log.verifier()).unwrap();
    let leaf = Hash::leaf(&3_u64.to_be_bytes());
    assert_eq!(proof::verify_inclusion(leaf, 3, checkpoint.size, checkpoint.root, &file.hashes), Ok(()));
    let too_many =
        text.replacen("\n\n", &format!("\n{}\n\n", vec![Hash::ZERO.to_string(); 63].join("\n")), 1);
    for wrong in [
        text.replace("index 3", "index 03"),
        text.replace("@v1", "@v2"),
        text.replace("\n\n", "\n"),
        too_many,
    ] {
        assert_eq!(wrong.parse::<ProofFile>(), Err(ProofError::Malformed), "{wrong}");
    }
}

#[test]
fn a_witness_is_asked_and_its_cosignature_goes_beneath_the_checkpoint() {
    let log = Signer::from_seed("cortex.acme.example/log/2026", &[1; 32]).unwrap();
    let witness = Signer::from_seed("witness.example/w1", &[2; 32]).unwrap();
    let stranger = Signer::from_seed("witness.example/w2", &[3; 32]).unwrap();
    let cosigner = Cosigner::of(&witness.verifier()).unwrap();
    assert_eq!(cosigner.to_string().parse::<Cosigner>().unwrap().to_string(), cosigner.to_string());
    let checkpoint = a_checkpoint(&log);
    let proof = hashes(&Plan::consistency(4, 9).unwrap(), 9);
    let request = Request { old: 4, proof, checkpoint: checkpoint.clone() };
    assert_eq!(request.to_string().parse(), Ok(request));

    let line = witness::cosign(&witness, &checkpoint, 1_767_225_601).unwrap();
    let other = witness::cosign(&stranger, &checkpoint, 1_767_225_601).unwrap();
    let answer = Answer::read(200, &format!("{other}{line}"), &checkpoint, &cosigner);
    assert_eq!(answer, Ok(Answer::Cosigned(line.clone())));
    let whole = format!("{checkpoint}{line}");
    assert_eq!(cosigner.open(&whole), Ok(1_767_225_601));
    assert!(Checkpoint::open(&whole, &log.verifier()).is_ok());

    assert_eq!(Answer::read(409, "7\n", &checkpoint, &cosigner), Ok(Answer::Conflict(7)));
    assert!(matches!(Answer::read(409, "7", &checkpoint, &cosigner), Err(WitnessError::Malformed(_))));
    assert_eq!(Answer::read(422, "", &checkpoint, &cosigner), Err(WitnessError::Refused(422)));
    let unsigned = Err(WitnessError::Note(NoteError::Unsigned("witness.example/w1".into())));
    assert_eq!(Answer::read(200, &other, &checkpoint, &cosigner), unsigned);
    let elsewhere = witness::cosign(&witness, &checkpoint.replacen("2026", "2027", 1), 1).unwrap();
    let forged = Err(WitnessError::Note(NoteError::Forged("witness.example/w1".into())));
    assert_eq!(Answer::read(200, &elsewhere, &checkpoint, &cosigner), forged);
}

#[test]
fn a_receipt_is_verified_against_its_chain_and_its_leaf() {
    let chain = Uuid::from_u128(5);
    let key = Signer::from_seed(&chain.to_string(), &[9; 32]).unwrap();
    let seal = Seal {
        chain,
        batch: 1,
        place: 0,
        entry: Hash::of(b"{}"),
        previous: Hash::ZERO,
        time_ms: 1_767_225_600_000,
        merge_by_ms: 1_767_225_630_000,
    };
    let leaf = seal::join(b"{}", &seal.sign(&key).unwrap());
    let receipt = Receipt::new("cortex.acme.example/log/2026", &leaf).unwrap();
    let json = serde_json::to_value(&receipt).unwrap();
    assert_eq!(json["time"], "2026-01-01T00:00:00Z");
    assert_eq!(json["merge_by"], "2026-01-01T00:00:30Z");
    assert_eq!(json["leaf_hash"], Hash::leaf(&leaf).to_string());
    let read: Receipt = serde_json::from_value(json).unwrap();
    assert_eq!(read.verify(&key.verifier()), Ok(seal));
    assert!(read.is_of(&leaf) && !read.is_of(&seal::join(b"[]", &receipt.seal)));
    let later = Receipt { merge_by: "2026-01-01T01:00:00Z".parse().unwrap(), ..receipt };
    assert_eq!(later.verify(&key.verifier()), Err(ReceiptError::Times));
}
