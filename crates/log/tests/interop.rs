//! A log that our code published, verified by an implementation that shares nothing with ours: Go's `x/mod`.
//!
//! `tests/counterparts/setup.py` builds the program: `make test` before all tests, a plain `cargo test` at the first
//! use.

#![expect(clippy::unwrap_used, reason = "a helper that fails has failed its test")]

mod made;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cortex_log::note::Signer;
use made::{BASE, Log};
use serde_json::{Value, json};

fn published() -> (Log, tempfile::TempDir) {
    let mut log = Log::of_two(100);
    log.open_shard("2027", 0, None);
    log.write(1, 5);
    let folder = tempfile::tempdir().unwrap();
    log.publish(folder.path());
    (log, folder)
}

/// The program, built if it is not; without Go this fails and says so.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("CORTEX_TEST_LOGCHECK") {
        return program.into();
    }
    let set_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/counterparts/setup.py");
    let Output { status, stdout, stderr } =
        Command::new("python3").arg(set_up).arg("logcheck").output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim().into()
}

fn logcheck(folder: &Path, log: &Log) -> Output {
    Command::new(program()).arg(folder).arg(log.signer.verifier().to_string()).output().unwrap()
}

#[test]
fn go_verifies_every_leaf_and_checkpoint_that_we_publish() {
    let (log, folder) = published();
    let Output { status, stdout, stderr } = logcheck(folder.path(), &log);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let checked: Value = serde_json::from_slice(&stdout).unwrap();
    // 602 leaves and 6; one proof for each power of two below the size.
    assert_eq!(checked, json!({"shards": 2, "leaves": 608, "consistency_proofs": 13}));
}

#[test]
fn go_refuses_what_somebody_changed() {
    let (mut log, folder) = published();
    let bundle = folder.path().join("2026/tile/entries/001");
    let good = fs::read(&bundle).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&bundle, bad).unwrap();
    let refused = String::from_utf8(logcheck(folder.path(), &log).stderr).unwrap();
    assert!(refused.starts_with("logcheck: 2026: leaf 256:"), "{refused}");
    fs::write(&bundle, good).unwrap();
    assert!(logcheck(folder.path(), &log).status.success());
    log.signer = Signer::from_seed(BASE, &[1; 32]).unwrap();
    assert!(!logcheck(folder.path(), &log).status.success());
}
