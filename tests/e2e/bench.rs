//! `make bench` still runs and measures what it says. No number is judged here: a test machine's speed is nobody's
//! promise.

use std::collections::BTreeMap;
use std::process::Command;

#[test]
fn the_benchmark_fills_its_tables() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).arg("--quick").output().expect("the benchmark");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows = rows(&text);
    for (what, connections) in [
        ("floor: bare RS256 signing, all cores", ""),
        ("floor: bare HTTP, /healthz", "256"),
        ("fresh mint, record committed", "4"),
        ("fresh mint, record committed", "32"),
        ("fresh mint, record committed", "256"),
        ("repeated ask for a live lease", "32"),
        ("repeated ask for a live lease", "256"),
        ("fresh mint at a cloud that takes 50 ms", "4"),
        ("fresh mint, before a revocation", "32"),
        ("fresh mint while 2000 revocations drain", "32"),
        ("fresh mint, 10 policies", "4"),
        ("fresh mint, 50 policies", "4"),
        ("fresh mint, 200 rows on record", "4"),
        ("fresh mint, 2,000 rows on record", "4"),
        ("fresh mint, 1 replica", "128"),
        ("fresh mint, 4 replicas", "128"),
        ("fresh mint, into the log", "256"),
        ("fresh mint, sealed and left there", "256"),
        ("fresh mint, ES256", "256"),
    ] {
        let rate = rows.get(&(what, connections)).and_then(|cells| cells.first()?.parse::<f64>().ok());
        assert!(rate.is_some_and(|rate| rate > 0.0), "{what} over {connections:?}: {rate:?} in\n{text}");
    }
    // What was reached is this machine's, whatever it is.
    assert!(rows.keys().any(|(what, _)| *what == "fresh mint, 40 each second"), "{text}");
    for counted in [
        "asks at midnight that nobody served",
        "credentials of which record, clouds and clients do not say the same",
    ] {
        assert_eq!(rows.get(&(counted, "<= 0")), Some(&vec!["0.00", "reached"]), "{text}");
    }
    // A cloud that stands still for a second sees the calls of two at once.
    assert!(rows.contains_key(&("calls beyond the quota of a cloud", "<= 0")), "{text}");
    assert_eq!(rows.get(&("midnight: credentials of 40 runs", "320.0")), Some(&vec![]), "{text}");
    let verdicts =
        text.lines().filter(|line| line.ends_with("| reached |") || line.ends_with("| not reached |"));
    assert_eq!(verdicts.count(), 18, "{text}");
    assert_eq!(text.matches("```mermaid\nxychart-beta\n").count(), 6, "{text}");
}

/// The cells of each row behind the first two, which name it.
fn rows(text: &str) -> BTreeMap<(&str, &str), Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        Some(((cells.next()?, cells.next()?), cells.collect()))
    })
    .collect()
}
