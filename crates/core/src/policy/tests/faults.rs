//! Faults of the writing: wrong types, YAML that is not plain, and how faults are reported.

use super::refusals::{problems, refuses};
use super::*;

#[test]
fn wrong_types_are_refused() {
    refuses(
        &minimal("").replace("dags: [d]", "dags: d"),
        4,
        "`dags` is text, and it has to be a list",
        "[first",
    );
    refuses(&minimal("").replace("dags: [d]", "dags: [1]"), 4, "`dags` is a number", "in quotes");
    refuses(&minimal("").replace("dags: [d]", "dags: [true]"), 4, "`dags` is a boolean", "in quotes");
    refuses(&minimal("").replace("dags: [d]", "dags: [d, [e]]"), 4, "`dags` is a list", "one value");
    refuses(&minimal("").replace("dags: [d]", "dags: [d, ~]"), 4, "`dags` is empty", "write a value");
    refuses(&minimal("when: 5m\n"), 7, "`when` is text, and it has to be a mapping", "key: value");
    refuses(&minimal("").replace("name: p", "name: [p]"), 1, "`name` is a list", "one value");
    refuses(&minimal("description: ''\n"), 7, "0 characters", "1 to 500");
    refuses(&minimal("description: \"a\\u202eb\"\n"), 7, "control characters", "remove");
    for source in ["", "[]", "text", "- a", "# only a comment", "null", "{}"] {
        let found = problems(source);
        assert_eq!((found.len(), found[0].line), (1, 1), "{source:?}: {found:#?}");
    }
}

#[test]
fn yaml_beyond_plain_is_refused() {
    for (more, line) in [
        ("x: &a 1\n", 7),
        ("x: &a 1\ny: *a\n", 7),
        ("<<: {a: b}\n", 7),
        ("x: !secret y\n", 7),
        ("---\nname: q\n", 7),
        ("x: [1, 2\n", 7),
        ("x: .nan\n", 7),
        ("x: 9007199254740993\n", 7),
        ("x: 1e999\n", 7),
    ] {
        let found = problems(&minimal(more));
        assert_eq!(found.len(), 1, "{more:?}: {found:#?}");
        assert!(found[0].line >= line, "{more:?}: {}", found[0]);
        assert!(found[0].remedy.contains("plain YAML"), "{more:?}: {}", found[0]);
    }
    let deep = format!("x: {}1{}\n", "[".repeat(40), "]".repeat(40));
    assert_eq!(problems(&minimal(&deep)).len(), 1);
    let large = minimal(&format!("# {}\n", "x".repeat(Policy::MAX_BYTES)));
    refuses(&large, 1, "bytes", "split");
    let many: Vec<_> = (0..129).map(|n| format!("d{n}")).collect();
    refuses(&minimal("").replace("[d]", &format!("[{}]", many.join(", "))), 4, "129 entries; 128", "pattern");
}

#[test]
fn a_targets_fault_is_shown_where_it_is() {
    let aws = |text: &str| minimal("").replace("  aws: {role: r}\n", text);
    let source = aws(
        "  aws:\n    role: r\n    allow:\n      - resources: [a]\n      - actions: [x]\n        resources:\n          - \"*\"\n",
    );
    refuses(&source, 12, "everything", "correct it");
    refuses(&aws("  aws:\n    account: 1\n    rolle: r\n"), 8, "unknown key", "");
    // What is missing is shown at the target.
    refuses(&aws("  aws:\n    account: 1\n"), 6, "missing", "");
    refuses(&aws("  aws: role\n"), 6, "the target is no mapping", "");
}

#[test]
fn all_faults_are_reported_together_in_order() {
    let source = "\
nam: p
who:
  airflow: Prod
  dags: ['*', 'a b', ok, ok]
  attestation: [isuer]
what:
  gcp: {}
  aws: {rolle: r}
where:
  networks: [10.0.0.1]
when:
  hours: 5-6
  days: [mo]
  timezone: Nowhere
  max_ttl: 1s
approval:
  required_for: {run_types: [nightly]}
  approvers: {}
  quorum: 9
surplus: 1
";
    let lines: Vec<_> = problems(source).iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 1, 3, 4, 4, 4, 5, 7, 8, 10, 12, 13, 14, 15, 17, 18, 19, 20]);
}

#[test]
fn the_number_of_faults_is_bounded() {
    let keys: Vec<_> = (0..500).map(|n| format!("k{n}: 1")).collect();
    assert_eq!(problems(&minimal(&keys.join("\n"))).len(), 100);
}

#[test]
fn long_texts_do_not_fill_the_answer() {
    let long = "x".repeat(10_000);
    let found = problems(&minimal("").replace("[d]", &format!("['{long} ']")));
    assert!(found[0].message.len() < 300, "{}", found[0].message.len());
    let found = problems(&minimal(&format!("{}: 1\n", &long[..900])));
    assert!(found[0].message.len() < 300, "{}", found[0].message.len());
}
