//! Key files on disk: what is read of them, and how they are replaced.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::random::SystemRandom;

const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cortex.key");
    (folder, path)
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn document() -> Value {
    json!({
        "version": 1, "kms": KEY, "purpose": "log", "issuer": "https://cortex.example", "wrapped": "d3JhcHBlZA==",
    })
}

fn found(text: &str) -> Result<Option<Found>, KeyFileError> {
    let (_folder, path) = folder();
    std::fs::write(&path, text).unwrap();
    find(&path)
}

#[test]
fn a_document_is_read_whole_or_refused() {
    let read = Document::read(document().to_string().as_bytes()).ok().unwrap();
    assert_eq!((read.purpose, read.wrapped().unwrap()), (Purpose::Log, b"wrapped".to_vec()));
    assert_eq!(serde_json::from_str::<Value>(&read.text()).unwrap(), document());
    let changed = |member: &str, value: Value| {
        let mut document = document();
        document[member] = value;
        document.to_string()
    };
    let twice = document().to_string().replacen('{', r#"{"wrapped":"d3JhcHBlZA==","#, 1);
    let missing = document().to_string().replacen(r#""purpose":"log","#, "", 1);
    for text in [
        changed("version", json!(2)),
        changed("version", json!("1")),
        changed("kms", json!("alias/cortex")),
        changed("purpose", json!("signing")),
        changed("wrapped", json!("")),
        changed("wrapped", json!("***")),
        changed("wrapped", json!("QUJD".repeat(2_049))),
        changed("key", json!("00")),
        twice,
        missing,
        format!("{} {{}}", document()),
        "{".to_owned(),
    ] {
        assert!(matches!(found(&text), Err(KeyFileError::Malformed(_))), "{text}");
    }
}

#[test]
fn a_file_that_is_no_key_is_refused() {
    assert!(matches!(found(&format!("{}\n", "0f".repeat(32))), Ok(Some(Found::Plain(_)))));
    for text in ["", "0f0f", "not a key", "[]", &"0f".repeat(33)] {
        assert!(matches!(found(text), Err(KeyFileError::NoKey)), "{text}");
    }
    assert!(matches!(found(&"0".repeat(16 * 1_024 + 1)), Err(KeyFileError::Unread(_))));
    let (_folder, path) = folder();
    assert!(matches!(find(&path), Ok(None)));
}

#[test]
fn a_file_is_replaced_whole_for_its_owner_alone_and_a_link_stays_one() {
    let (folder, path) = folder();
    place::create(&path, b"before").unwrap();
    assert!(place::create(&path, b"again").is_err(), "it is made once");
    let link = folder.path().join("link");
    symlink("cortex.key", &link).unwrap();
    place::replace(&link, b"after, and longer", &SystemRandom).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"after, and longer");
    assert!(link.is_symlink());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(&folder).len(), 2, "nothing is left beside it");
}

#[test]
fn what_was_replaced_is_overwritten_unless_it_is_somebodys_copy() {
    let (folder, path) = folder();
    place::create(&path, b"before").unwrap();
    let open = std::fs::File::open(&path).unwrap();
    place::replace(&path, b"after", &SystemRandom).unwrap();
    assert_eq!(std::io::read_to_string(open).unwrap(), "\0".repeat(6));
    let copy = folder.path().join("copy");
    std::fs::hard_link(&path, &copy).unwrap();
    place::replace(&path, b"later", &SystemRandom).unwrap();
    assert_eq!(std::fs::read(copy).unwrap(), b"after");
}

#[test]
fn a_file_that_cannot_be_replaced_stays_as_it_is() {
    let (folder, path) = folder();
    std::fs::create_dir(&path).unwrap();
    assert!(place::replace(&path, b"after", &SystemRandom).is_err());
    assert!(path.is_dir());
    assert_eq!(names(&folder), ["cortex.key"]);
}

proptest! {
    #[test]
    fn whatever_stands_in_a_file_is_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::read(&text);
        let braced = [b"{".as_slice(), &text].concat();
        let _ = Document::read(&braced);
    }

    #[test]
    fn what_is_written_is_read(wrapped in prop::collection::vec(any::<u8>(), 1..MAX), issuer in "[ -~]{1,60}") {
        let document = Document::new(KEY.parse().unwrap(), Purpose::SigningKeys, issuer.clone(), &wrapped);
        let read = Document::read(document.text().as_bytes()).ok().unwrap();
        prop_assert_eq!((read.issuer.clone(), read.wrapped().unwrap()), (issuer, wrapped));
    }
}

/// The longest wrapped key that is tried.
const MAX: usize = 600;
