//! Notes, seals and checkpoints, compared with another implementation of C2SP signed-note.

#![expect(clippy::unwrap_used, reason = "a helper that fails has failed its test")]

use cortex_log::Hash;
use cortex_log::checkpoint::{Checkpoint, CheckpointError};
use cortex_log::note::{NoteError, Signer, Verifier};
use cortex_log::opening::Opening;
use cortex_log::proof::ProofFile;
use cortex_log::seal::{self, Seal, SealError, batch_digest};
use cortex_log::tile::{self, TilePath};
use cortex_log::witness::Request;
use proptest::prelude::*;
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};
use uuid::Uuid;

const ORIGIN: &str = "cortex.acme.example/log/2026";

fn signer(name: &str, seed: u8) -> Signer {
    Signer::from_seed(name, &[seed; 32]).unwrap()
}

fn theirs(verifier: &Verifier) -> VerifierList {
    VerifierList::new(vec![Box::new(StandardVerifier::new(&verifier.to_string()).unwrap())])
}

#[test]
fn another_implementation_verifies_our_notes() {
    let ours = signer(ORIGIN, 7);
    let note = ours.sign("a text\n\nof three lines\n").unwrap();
    let read = Note::from_bytes(note.as_bytes()).unwrap();
    let (verified, _) = read.verify(&theirs(&ours.verifier())).unwrap();
    assert_eq!(verified.len(), 1);
    assert_eq!(read.text(), b"a text\n\nof three lines\n");
}

#[test]
fn we_verify_the_notes_of_another_implementation_and_ignore_other_keys() {
    let mut random = rand_core::OsRng;
    let (skey, vkey) = signed_note::generate_key(&mut random, "witness.example/w");
    let (other, _) = signed_note::generate_key(&mut random, "other.example");
    let (signer, other) = (StandardSigner::new(&skey).unwrap(), StandardSigner::new(&other).unwrap());
    let mut note = Note::new(b"text\n", &[]).unwrap();
    note.add_sigs(&[&other, &signer]).unwrap();
    let bytes = String::from_utf8(note.to_bytes()).unwrap();
    let verifier: Verifier = vkey.parse().unwrap();
    assert_eq!(verifier.open(&bytes), Ok("text\n"));
    assert_eq!(verifier.to_string(), vkey);
}

#[test]
fn what_is_not_a_note_is_refused_with_its_reason() {
    let key = signer("a.example", 1);
    let good = key.sign("text\n").unwrap();
    let line = good.lines().last().unwrap();
    let cases = [
        ("text\n", "no blank line"),
        ("text\n\n", "last line"),
        (&format!("text\n\n{line}"), "last line"),
        (&format!("text\n\n{}\n", line.replace('\u{2014}', "-")), "signature line"),
        (&format!("text\n\n{line} \n"), "signature line"),
        (&format!("te\tt\n\n{line}\n"), "control characters"),
        (&format!("text\n\n{}", format!("{line}\n").repeat(17)), "more than 16"),
        (&format!("{}\n\n{line}\n", "x".repeat(70_000)), "longer than 64 KiB"),
    ];
    for (note, why) in cases {
        let error = key.verifier().open(note).unwrap_err().to_string();
        assert!(error.contains(why), "{note:.80?}: {error}");
    }
    let forged = good.replace("text", "test");
    assert_eq!(key.verifier().open(&forged), Err(NoteError::Forged("a.example".into())));
    let unsigned = signer("a.example", 2).verifier().open(&good);
    assert_eq!(unsigned, Err(NoteError::Unsigned("a.example".into())));
}

#[test]
fn an_altered_vkey_is_refused() {
    let vkey = signer("a.example", 1).verifier().to_string();
    assert!(vkey.parse::<Verifier>().is_ok());
    for at in 0..vkey.len() {
        let mut bytes = vkey.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).unwrap();
        assert!(altered.parse::<Verifier>().is_err(), "{altered}");
    }
}

fn a_seal(chain: Uuid) -> Seal {
    Seal {
        chain,
        batch: 3,
        place: 2,
        entry: Hash::of(b"{}"),
        previous: batch_digest([Hash::leaf(b"x")]),
        time_ms: 1_767_225_600_000,
        merge_by_ms: 1_767_225_630_000,
    }
}

#[test]
fn a_seal_is_read_back_from_its_leaf_and_only_under_its_own_chain() {
    let chain = Uuid::from_u128(1);
    let key = signer(&chain.to_string(), 3);
    let note = a_seal(chain).sign(&key).unwrap();
    let leaf = seal::join(b"{}", &note);
    let (entry, read) = seal::split(&leaf).unwrap();
    assert_eq!((entry, read), (b"{}".as_slice(), note.as_str()));
    assert_eq!(Seal::parse(read), Ok(a_seal(chain)));
    assert_eq!(Seal::verify(read, &key.verifier()), Ok(a_seal(chain)));
    let other = key.named(&Uuid::from_u128(2).to_string()).unwrap();
    assert_eq!(a_seal(chain).sign(&other), Err(SealError::OtherChain));
    assert!(matches!(Seal::verify(read, &other.verifier()), Err(SealError::Note(NoteError::Unsigned(_)))));
}

#[test]
fn an_enrolment_names_one_log_and_one_chain() {
    let log = signer("cortex.acme.example/log", 1);
    let chain = signer(&Uuid::from_u128(9).to_string(), 2).verifier();
    let note = seal::enrol(&log, &chain).unwrap();
    assert_eq!(seal::enrolled(&log.verifier(), &note), Ok(chain.clone()));
    let elsewhere = log.named("cortex.other.example/log").unwrap();
    let moved = elsewhere.sign(&format!("cortex-chain/v1\ncortex.acme.example/log\n{chain}\n")).unwrap();
    assert_eq!(seal::enrolled(&elsewhere.verifier(), &moved), Err(SealError::Enrolment));
}

#[test]
fn a_checkpoint_is_opened_only_under_its_origin() {
    let key = signer(ORIGIN, 4);
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size: 5, root: Hash::of(b"r"), time_ms: 1 };
    let note = checkpoint.sign(&key).unwrap();
    assert_eq!(Checkpoint::open(&note, &key.verifier()), Ok(checkpoint.clone()));
    let theirs = tlog_tiles::Checkpoint::from_bytes(checkpoint.text().as_bytes()).unwrap();
    assert_eq!((theirs.origin(), theirs.size(), theirs.extension()), (ORIGIN, 5, "time 1\n"));
    assert_eq!(theirs.hash().0, checkpoint.root.0);
    let other = key.named("cortex.acme.example/log/2027").unwrap();
    assert!(matches!(checkpoint.sign(&other), Err(CheckpointError::OtherOrigin { .. })));
    let moved = other.sign(&checkpoint.text()).unwrap();
    assert!(matches!(Checkpoint::open(&moved, &other.verifier()), Err(CheckpointError::OtherOrigin { .. })));
}

#[test]
fn numbers_and_ids_have_one_text() {
    let text = "cortex-seal/v1\n00000000-0000-0000-0000-000000000001 3 2\n\
        RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=\nRBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=\n1 2\n";
    let key = signer("00000000-0000-0000-0000-000000000001", 1);
    let read = |text: &str| Seal::parse(&key.sign(text).unwrap());
    assert!(read(text).is_ok());
    for (from, to) in [
        (" 3 2", " 03 2"),
        (" 3 2", " +3 2"),
        (" 3 2", "  3 2"),
        (" 3 2", " 3 4294967296"),
        ("-0000-", "0000"),
        ("/4o=", "/4p="),
        ("v1", "v2"),
        ("1 2\n", "1 2\n\n"),
        ("\n1 2", "\n-1 2"),
    ] {
        assert_eq!(read(&text.replace(from, to)), Err(SealError::Malformed), "{to}");
    }
}

proptest! {
    #[test]
    fn any_changed_byte_of_a_note_is_noticed(text in "[ -~]{1,60}", at in any::<prop::sample::Index>(), to: u8) {
        let key = signer("a.example", 1);
        let note = key.sign(&format!("{text}\n")).unwrap();
        let mut changed = note.clone().into_bytes();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != to);
        changed[at] = to;
        // Bytes that are no UTF-8 are no note either.
        if let Ok(changed) = String::from_utf8(changed) {
            prop_assert!(key.verifier().open(&changed).is_err());
        }
    }

    #[test]
    fn whatever_the_bytes_are_nothing_panics(
        text in "([ -~]{0,20}\n){0,6}(\u{2014} [a-z]{1,9} [A-Za-z0-9+/=]{0,96}\n){0,3}", bytes: Vec<u8>,
    ) {
        let key = signer("a.example", 1).verifier();
        let _ = (key.open(&text), Seal::parse(&text), Checkpoint::parse(&text), seal::enrolled(&key, &text));
        let _ = (text.parse::<Verifier>(), text.parse::<Hash>(), text.parse::<TilePath>());
        let _ = (text.parse::<ProofFile>(), text.parse::<Request>(), Checkpoint::open_under(&text, &key));
        let _ = (seal::split(&bytes), tile::decode_bundle(&bytes), tile::decode_hashes(&bytes), Opening::read(&bytes));
    }
}
