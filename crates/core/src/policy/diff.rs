//! What a new version of a policy changes: in words, then line by line.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use similar::TextDiff;

use super::problem::Problems;
use super::yaml;

/// How long the search for the smallest diff may take; after it the diff is correct but longer.
const DEADLINE: Duration = Duration::from_millis(200);

/// The fields whose change is said in words, as JSON pointers; the lists among them entry by entry.
const TOLD: [&str; 16] = [
    "/name",
    "/who/airflow",
    "/who/dags",
    "/who/tasks",
    "/who/run_types",
    "/who/teams",
    "/who/bundles",
    "/who/tags",
    "/who/attestation",
    "/what",
    "/where/networks",
    "/when/hours",
    "/when/timezone",
    "/when/days",
    "/when/max_ttl",
    "/approval",
];

/// The difference between two documents: one line in words for each thing that changed, then the unified diff of
/// the text. Empty if the texts are the same. Documents that cannot be read are compared as text alone.
pub fn diff(old: &str, new: &str) -> String {
    let mut out = words(old, new);
    let text = TextDiff::configure().timeout(DEADLINE).diff_lines(old, new);
    let unified = text.unified_diff().header("old", "new").to_string();
    if !out.is_empty() && !unified.is_empty() {
        out.push('\n');
    }
    out.push_str(&unified);
    out
}

fn words(old: &str, new: &str) -> String {
    let read = |text| yaml::parse(text, &mut Problems::default()).map(|node| node.to_json());
    let (Some(old), Some(new)) = (read(old), read(new)) else {
        return String::new();
    };
    let mut out = String::new();
    for pointer in TOLD {
        tell(pointer, old.pointer(pointer), new.pointer(pointer), &mut out);
    }
    out
}

fn tell(pointer: &str, old: Option<&Value>, new: Option<&Value>, out: &mut String) {
    let field = pointer.trim_start_matches('/').replace('/', ".");
    // Writing to a String cannot fail.
    let _ = match (old, new) {
        (old, new) if old == new => Ok(()),
        (None, Some(new)) => writeln!(out, "{field}: added {}", show(new)),
        (Some(old), None) => writeln!(out, "{field}: removed, was {}", show(old)),
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            let added = new.iter().filter(|item| !old.contains(item)).map(|item| format!("+ {}", show(item)));
            let removed =
                old.iter().filter(|item| !new.contains(item)).map(|item| format!("- {}", show(item)));
            let changes: Vec<_> = added.chain(removed).collect();
            let changes = if changes.is_empty() { "reordered".to_owned() } else { changes.join(", ") };
            writeln!(out, "{field}: {changes}")
        }
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for key in keys {
                tell(&format!("{pointer}/{key}"), old.get(key), new.get(key), out);
            }
            Ok(())
        }
        (Some(old), Some(new)) => writeln!(out, "{field}: {} became {}", show(old), show(new)),
        (None, None) => Ok(()),
    };
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
