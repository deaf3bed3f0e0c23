//! No text makes the compiler, the test runner or the diff panic, and what they refuse has a place in the text.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SEED: &str = include_str!("../../../../../config/policies/finance-data-publish.yaml");
const TESTS: &str = include_str!("../../../../../config/policies/finance-data-publish.test.yaml");
const CEDAR: &str = include_str!("../../../../../config/guardrails/production.cedar");

fn everything(text: &str) {
    let lines = text.lines().count() + 1;
    let placed = |problems: Vec<Problem>| {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem}\n{text}");
            assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem}");
        }
    };
    if let Err(problems) = Policy::compile(text, &Tiny) {
        placed(problems);
    }
    if let Err(problems) = run_tests(text, &BTreeMap::new(), &Guardrails::none()) {
        placed(problems);
    }
    if let Err(problems) = Guardrails::compile(&[("g", text)]) {
        placed(problems);
    }
    let _ = diff(text, SEED);
}

/// `seed` with a slice replaced by other text.
fn mutated(seed: &'static str) -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just(String::new()),
        Just("*".to_owned()),
        Just("\u{0}".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("\n".to_owned()),
        Just("  ".to_owned()),
        Just("[".repeat(300)),
        Just("{a: ".repeat(300)),
        Just("- ".repeat(300)),
        Just("&a *a".to_owned()),
        Just("? :\n".to_owned()),
        Just("|\n".to_owned()),
        Just("'".to_owned()),
        Just("!!map ".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("!(".repeat(500)),
        "\\PC{0,12}",
    ];
    (0..seed.len(), 0..40_usize, pieces).prop_map(move |(at, cut, piece)| {
        let start = (0..=at).rev().find(|i| seed.is_char_boundary(*i)).unwrap_or(0);
        let end = (start + cut..=seed.len()).find(|i| seed.is_char_boundary(*i)).unwrap_or(seed.len());
        format!("{}{piece}{}", &seed[..start], &seed[end..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        everything(&text);
    }

    #[test]
    fn any_mutation_is_read_or_refused(text in prop_oneof![mutated(SEED), mutated(TESTS), mutated(CEDAR)]) {
        everything(&text);
    }
}

#[test]
fn texts_that_broke_other_parsers() {
    for text in [
        "\u{feff}name: p\n",
        "name: p\r\nwho:\r\n  airflow: prod\r\n",
        "? [a]\n: b\n",
        "{a: b}: c\n",
        "a: |2\n x\n",
        "%YAML 1.2\n---\na: b\n",
        "a: !<tag:yaml.org,2002:str> b\n",
        "\t\n",
        "a:\n\t- b\n",
        "a: \"\\x\"\n",
        "--- a\n--- b\n",
        "...\n",
        "a: 0x7fffffffffffffffffff\n",
        "a: 1_000\n",
        "~: ~\n",
        "<<: *x\n",
    ] {
        everything(text);
    }
    everything(&"[".repeat(60_000));
    everything(&"a:\n".repeat(20_000));
    everything(&"- ".repeat(30_000));
    everything(&"(".repeat(60_000));
}
