//! A suggestion is tighter than the policy, and whoever used the policy still gets what they got.

use proptest::prelude::*;

use super::property::{asked, document, model};
use super::*;

const SINCE: &str = "2026-08-01T00:00:00Z";
const NOW: &str = "2026-11-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// What was used: DAG, task, provider and day of each credential.
fn used(credentials: &[(&str, &str, &str, &str)]) -> Used {
    let mut used = Used::default();
    for (dag, task, provider, day) in credentials {
        let run = run_with(|run| {
            run.dag_id = dag.parse().unwrap();
            run.task_id = task.parse().unwrap();
        });
        used.note(&run, provider, at(&format!("{day}T12:00:00Z")));
    }
    used
}

/// The policy that is tightened in these tests.
const WIDE: &str = "name: p
# Who may.
who:
  airflow: prod
  dags: [daily, weekly, 'mart_*', 'old_*']
  tasks: ['load_*', drop]
  run_types: [scheduled, manual]
what:
  aws: {role: '007'}
  bigquery: {project: acme}
when: {hours: '01:00-05:00', max_ttl: 30m}
approval:
  required_for: {dags: [weekly]}
  approvers: {groups: ['yes']}
";

fn suggest(used: &Used, whole: bool, versions: &[Policy]) -> Suggestion {
    let window = Window { since: at(SINCE), until: at(NOW), versions, whole };
    compile(WIDE).tighten(used, &window, &Tiny)
}

#[test]
fn what_was_never_used_is_left_out_and_patterns_become_the_names_that_used_them() {
    let used = used(&[
        ("daily", "load_a", "aws", "2026-08-02"),
        ("daily", "load_b", "aws", "2026-10-31"),
        ("mart_x", "load_a", "aws", "2026-08-03"),
        ("mart_y", "load_a", "aws", "2026-08-04"),
    ]);
    let suggestion = suggest(&used, true, &[compile(WIDE)]);
    assert!(suggestion.tighter);
    let tighter = compile(&suggestion.document).to_json();
    assert_eq!(tighter["who"]["dags"], serde_json::json!(["daily", "mart_x", "mart_y"]));
    // A task that came in the later half of the time may not be the last: the pattern stays.
    assert_eq!(tighter["who"]["tasks"], serde_json::json!(["load_*"]));
    assert_eq!(tighter["who"]["run_types"], serde_json::json!(["scheduled"]));
    assert_eq!(tighter["what"], serde_json::json!({"aws": {"role": "007"}}));
    for said in [
        "4 credentials under p",
        "#   weekly: never used; left out",
        "#   mart_*: used 2 times, last on 2026-08-04; narrowed to mart_x, mart_y",
        "#   load_*: used 4 times, last on 2026-10-31\n",
        "#   bigquery: never used; left out",
    ] {
        assert!(suggestion.document.contains(said), "{said}: {}", suggestion.document);
    }
    assert!(!suggestion.document.contains("Who may"), "{}", suggestion.document);
}

#[test]
fn nothing_is_left_out_where_that_is_not_safe_to_say() {
    let some = used(&[("daily", "load_a", "aws", "2026-08-02")]);
    let newer = compile(&WIDE.replace("weekly, ", "").replace("  bigquery: {project: acme}\n", ""));
    let partly = suggest(&some, true, &[compile(WIDE), newer]);
    let tighter = compile(&partly.document).to_json();
    assert_eq!(tighter["who"]["dags"], serde_json::json!(["daily", "weekly"]), "weekly is too new to say");
    assert!(tighter["what"].get("bigquery").is_some(), "bigquery is too new to say");
    for (suggestion, said) in [
        (suggest(&some, false, &[compile(WIDE)]), "Nothing is left out"),
        (suggest(&Used::default(), true, &[compile(WIDE)]), "cortex policy retire p"),
    ] {
        assert!(!suggestion.tighter && suggestion.document.contains(said), "{}", suggestion.document);
        assert_eq!(compile(&suggestion.document).digest(), compile(WIDE).digest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_used_a_policy_gets_the_same_under_the_suggestion_and_nobody_gets_more(
        model in model(),
        cases in proptest::collection::vec(asked(), 1..40),
    ) {
        let policy = compile(&document(&model));
        let mut used = Used::default();
        for case in &cases {
            if let (Decision::Permit { .. } | Decision::NeedsGrant { .. }, Some(run)) =
                (case.decide(&policy), case.principal.as_run())
            {
                used.note(run, &case.provider, at(SINCE));
            }
        }
        let versions = [compile(&document(&model))];
        let window = Window { since: at(SINCE), until: at(NOW), versions: &versions, whole: true };
        let suggestion = policy.tighten(&used, &window, &Tiny);
        let tighter = compile(&suggestion.document);
        prop_assert_eq!(suggestion.tighter, tighter.digest() != policy.digest(), "{}", suggestion.document);
        for case in &cases {
            let (before, now) = (case.decide(&policy), case.decide(&tighter));
            if matches!(before, Decision::Deny { .. }) {
                prop_assert!(matches!(now, Decision::Deny { .. }), "{case:?}\n{}", suggestion.document);
            } else {
                prop_assert_eq!(before, now, "{:?}\n{}", case, suggestion.document);
            }
        }
    }
}
