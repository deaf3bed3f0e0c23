//! Measures how many records `cortex-verify` verifies in a minute: makes a log of the given number of records of a
//! kilobyte each, 50 to a batch, publishes it into a temporary folder and verifies that with the given binary.
//!
//! ```text
//! rate target/release/cortex-verify 200000
//! ```

#![expect(clippy::unwrap_used, reason = "what cannot be made cannot be measured")]

#[path = "../../log/tests/made/mod.rs"]
mod made;

use std::process::Command;
use std::time::Instant;

use made::Log;
use serde_json::json;

const BATCH: u32 = 50;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, binary, records] = arguments.as_slice() else {
        eprintln!("usage: rate BINARY RECORDS");
        return;
    };
    let records: u32 = records.parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = make(records);
    log.publish(folder.path());
    let key = log.signer.verifier().to_string();
    drop(log);
    let start = Instant::now();
    let status = Command::new(binary).arg("log").arg(folder.path()).args(["--key", &key]).status().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert!(status.success());
    println!("{records} records in {seconds:.1} s: {:.0} a minute", f64::from(records) / seconds * 60.0);
}

fn make(records: u32) -> Log {
    let mut log = Log::new();
    let second = log.open_chain(None);
    for batch in 0..records / BATCH {
        let entry = |number| {
            json!({"kind": "issuance.outcome", "number": batch * BATCH + number, "session_policy": "x".repeat(900)})
                .to_string()
                .into_bytes()
        };
        let entries: Vec<_> = (0..BATCH).map(entry).collect();
        log.commit(if batch % 2 == 0 { 0 } else { second }, &entries);
    }
    log
}
