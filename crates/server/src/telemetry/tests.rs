//! Names cannot drift: the list, the code and the page say the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Kind, METRICS};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each measurement that some crate makes, with the kinds that it makes it as.
fn measured() -> BTreeMap<String, Vec<&'static str>> {
    let mut measured = BTreeMap::<String, Vec<&'static str>>::new();
    for crate_folder in std::fs::read_dir(format!("{ROOT}/crates")).unwrap() {
        let mut files = Vec::new();
        sources(&crate_folder.unwrap().path().join("src"), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for kind in ["counter", "gauge", "histogram"] {
                for (at, call) in text.match_indices(&format!("metrics::{kind}!(")) {
                    let rest = text[at + call.len()..].trim_start();
                    let name = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
                    let name = name.unwrap_or_else(|| panic!("{}: a name is written out", file.display()));
                    measured.entry(name.to_owned()).or_default().push(kind);
                }
            }
        }
    }
    measured
}

#[test]
fn what_is_measured_is_listed_and_what_is_listed_is_measured() {
    let measured = measured();
    let listed: BTreeMap<_, _> =
        METRICS.iter().map(|metric| (metric.name.to_owned(), metric.kind.as_str())).collect();
    assert_eq!(listed.len(), METRICS.len(), "a name stands twice");
    for (name, kinds) in &measured {
        let kind = listed.get(name).unwrap_or_else(|| panic!("{name} is not in telemetry::METRICS"));
        assert!(kinds.iter().all(|made| made == kind), "{name} is a {kind} and made as {kinds:?}");
    }
    for name in listed.keys() {
        assert!(measured.contains_key(name), "{name} is listed and measured nowhere");
    }
}

#[test]
fn names_are_as_prometheus_wants_them() {
    for metric in METRICS {
        let lower = metric.name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(lower, "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        assert!(metric.help.ends_with('.'), "{}", metric.name);
        for label in metric.labels {
            let personal =
                ["run", "dag", "task", "person", "subject", "principal", "request"].contains(label);
            assert!(!personal, "{} has the label {label}", metric.name);
        }
    }
}

#[test]
fn the_page_lists_them() {
    let mut table = String::from("| name | kind | labels | what it says |\n|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (metric.name, metric.kind.as_str(), labels.join(", "));
        writeln!(table, "| `{name}` | {kind} | {labels} | {} |", metric.help).unwrap();
    }
    let path = format!("{ROOT}/docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, after) = ("<!-- begin of the list -->\n", "<!-- end of the list -->");
    let shown = page.split(before).nth(1).and_then(|rest| rest.split(after).next()).unwrap();
    assert!(shown == table, "docs/metrics.md is to have this list:\n\n{table}");
}
