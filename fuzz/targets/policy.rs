//! No text makes the compilers of policies and guardrails or the runner of table tests panic, and whatever is
//! refused has a place in the text.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cortex_core::PolicyName;
use cortex_core::policy::{Guardrails, Policy, Problem, run_tests};
use cortex_fuzz::text;
use cortex_providers::BuiltIns;
use libfuzzer_sys::fuzz_target;

const POLICY: &str = include_str!("../../config/policies/finance-data-publish.yaml");
const TESTS: &str = include_str!("../../config/policies/finance-data-publish.test.yaml");
const GUARDRAIL: &str = include_str!("../../config/guardrails/production.cedar");

static POLICIES: LazyLock<BTreeMap<PolicyName, Policy>> = LazyLock::new(|| {
    let policy = Policy::compile(POLICY, &BuiltIns).expect("the example compiles");
    BTreeMap::from([(policy.name().clone(), policy)])
});

fn placed(text: &str, problems: Vec<Problem>) {
    assert!(!problems.is_empty(), "refused without a reason");
    // YAML ends a line at a lone carriage return as well (YAML 1.2, section 5.4).
    let lines = text.split(['\n', '\r']).count() + 1;
    for problem in problems {
        assert!((1..=lines).contains(&problem.line), "{problem}");
        assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem}");
    }
}

fuzz_target!(|data: &[u8]| {
    let text = text(data, &[POLICY, TESTS, GUARDRAIL]);
    match Policy::compile(&text, &BuiltIns) {
        Ok(policy) => assert_eq!(policy.source(), text),
        Err(problems) => placed(&text, problems),
    }
    let guardrails = Guardrails::compile(&[("fuzzed", &text)]).unwrap_or_else(|problems| {
        placed(&text, problems);
        Guardrails::none()
    });
    if let Err(problems) = run_tests(&text, &POLICIES, &guardrails) {
        placed(&text, problems);
    }
});
