//! The policies and guardrails that ship as examples, proven by the tests beside them; and the runner itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

/// The texts of a folder whose names end in `suffix`, by name.
fn texts(folder: &str, suffix: &str) -> Vec<(String, String)> {
    let mut texts: Vec<_> = std::fs::read_dir(config().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    texts.sort();
    texts
}

fn policies() -> BTreeMap<PolicyName, Policy> {
    let documents = texts("policies", ".yaml").into_iter().filter(|(name, _)| !name.ends_with(".test.yaml"));
    documents
        .map(|(file, text)| {
            let policy = compile(&text);
            assert_eq!(file, format!("{}.yaml", policy.name()), "a policy's file has its name");
            (policy.name().clone(), policy)
        })
        .collect()
}

fn guardrails() -> Guardrails {
    Guardrails::compile(&texts("guardrails", ".cedar")).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn every_example_passes_its_tests() {
    let (policies, guardrails) = (policies(), guardrails());
    assert_eq!(policies.len(), 5);
    let mut tested = std::collections::BTreeSet::new();
    let mut rules = std::collections::BTreeSet::new();
    for (file, text) in texts("policies", ".test.yaml") {
        let outcomes = run_tests(&text, &policies, &guardrails).unwrap_or_else(|p| panic!("{file}: {p:#?}"));
        for outcome in outcomes {
            assert_eq!(outcome.failure, None, "{file}:{}: {}", outcome.line, outcome.name);
            if let Decision::Deny { reasons, .. } = outcome.decision {
                rules.extend(reasons.into_iter().map(|reason| reason.rule));
            }
            tested.insert(outcome.policy);
        }
    }
    assert!(tested.iter().eq(policies.keys()), "every example has tests: {tested:?}");
    for guardrail in guardrails.ids().filter(|id| *id != "production-roles-by-hand") {
        assert!(rules.contains(guardrail), "{guardrail} is proven by no test");
    }
}

#[test]
fn a_guardrail_by_itself_stops_a_manual_run_on_a_production_role() {
    let text = std::fs::read_to_string(config().join("policies/finance-data-publish.yaml")).unwrap();
    let without: String = text.split("approval:").next().unwrap().into();
    let policy = Policy::compile(&without, &Tiny).unwrap();
    let manual = run_with(|run| {
        run.dag_id = "finance_publish".parse().unwrap();
        run.task_id = "publish_mart".parse().unwrap();
        run.run_type = Some("manual".parse().unwrap());
    });
    let case = Case::of(manual).from("10.1.1.1");
    let (named, reasons) = denial(policy.decide(&guardrails(), &case.ask()));
    assert!(named);
    assert_eq!(reasons.iter().map(|r| r.rule.as_str()).collect::<Vec<_>>(), ["production-roles-by-hand"]);
}

fn one(policy: &str) -> BTreeMap<PolicyName, Policy> {
    let policy = compile(policy);
    [(policy.name().clone(), policy)].into()
}

const TESTS: &str = "\
policy: p
target: aws
time: 2026-11-23T02:00:00Z
run: {issuer: prod, dag_id: d, task_id: t}
cases:
  - name: permitted
    expect: permit
    rules: [p#who]
  - name: expected wrongly
    expect: deny
  - name: the wrong rule
    run: {dag_id: e}
    expect: deny
    rules: [p#where]
";

#[test]
fn a_case_that_fails_names_its_line_and_what_decided() {
    let outcomes = run_tests(TESTS, &one(&minimal("")), &Guardrails::none()).unwrap();
    assert_eq!(
        outcomes.iter().map(|o| (o.line, o.passed())).collect::<Vec<_>>(),
        [(6, true), (9, false), (11, false)]
    );
    assert_eq!(outcomes[1].failure.as_deref(), Some("expected deny, decided permit by p#who"));
    assert_eq!(outcomes[2].failure.as_deref(), Some("expected the rules p#where, decided by p#who"));
}

#[test]
fn a_faulty_test_file_is_refused_with_its_lines() {
    let policies = one(&minimal(""));
    let lines = |text: &str| -> Vec<usize> {
        let problems = run_tests(text, &policies, &Guardrails::none()).expect_err(text);
        problems.iter().map(|problem| problem.line).collect()
    };
    assert_eq!(lines(&TESTS.replace("policy: p", "policy: q")), [1, 1, 1], "each case asks for it");
    assert_eq!(lines(&TESTS.replace("target: aws\n", "")), [5, 8, 10], "each case lacks it");
    assert_eq!(lines(&TESTS.replace("expect: permit", "expect: allow")), [7]);
    assert_eq!(lines(&TESTS.replace("rules: [p#where]", "rule: [p#where]")), [14]);
    assert_eq!(lines(&TESTS.replace("{dag_id: e}", "{dag_ids: e}")), [12]);
    assert_eq!(lines(&TESTS.replace("{dag_id: e}", "{attestation: me}")), [12]);
    assert_eq!(lines(&TESTS.replace("{dag_id: e}", "{try_number: -1}")), [12]);
    assert_eq!(lines(&TESTS.replace("2026-11-23T02:00:00Z", "yesterday")).first(), Some(&3));
    assert_eq!(lines("cases: []\n"), [1]);
    assert_eq!(lines("cases:\n"), [1]);
    assert_eq!(lines(""), [1]);
}
