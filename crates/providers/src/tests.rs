//! Tests over every provider, and what the providers' own tests share.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{BUILT_INS, BuiltIn, ProvidersConfig, registry};

pub(crate) mod fixtures;
pub(crate) mod stub;

/// A target of each kind that its check accepts.
fn example(name: &str) -> Value {
    match name {
        "aws" => json!({
            "role": "arn:aws:iam::123456789012:role/finance-publish",
            "allow": [{"actions": ["s3:PutObject"], "resources": ["arn:aws:s3:::mart/{dag_id}/*"]}],
        }),
        "bigquery" => json!({
            "project": "acme-finance",
            "grant": "finance-publish",
            "provider": "projects/1/locations/global/workloadIdentityPools/cortex/providers/cortex",
        }),
        "snowflake" => json!({"account": "acme-prod", "user": "FINANCE_SVC", "role": "FINANCE_PUBLISH"}),
        "api" => json!({"audience": "https://payments.internal.example", "scopes": ["payments:write"]}),
        other => panic!("write an example for {other}"),
    }
}

fn faults(built_in: &BuiltIn, target: &Value) -> Vec<cortex_core::policy::TargetProblem> {
    (built_in.check)(target).expect_err("the check has to refuse this")
}

#[test]
fn every_provider_is_registered_once() {
    let registry = registry::<fixtures::Key>(&ProvidersConfig::default(), &fixtures::issuer());
    let names: BTreeSet<_> = BUILT_INS.iter().map(|built_in| built_in.name).collect();
    assert_eq!(names.len(), BUILT_INS.len());
    assert_eq!(names, registry.keys().copied().collect());
}

#[test]
fn every_check_names_the_resource_after_its_provider() {
    for built_in in BUILT_INS {
        let resource = (built_in.check)(&example(built_in.name)).unwrap();
        assert!(resource.starts_with(&format!("{}:", built_in.name)), "{resource}");
    }
}

#[test]
fn every_schema_is_closed_and_describes_each_key() {
    for built_in in BUILT_INS {
        let schema = (built_in.schema)().to_value();
        assert_eq!(schema["additionalProperties"], json!(false), "{}", built_in.name);
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{}.{key}", built_in.name);
        }
    }
}

#[test]
fn every_check_refuses_what_is_not_its_shape() {
    for built_in in BUILT_INS {
        let mut unknown = example(built_in.name);
        unknown["colour"] = json!("red");
        let problems = faults(built_in, &unknown);
        assert_eq!(problems[0].pointer, "/colour");
        assert!(problems[0].message.contains("unknown field"), "{problems:?}");
        for shape in [json!({}), json!([]), json!(null), json!("x"), json!({"role": 7})] {
            assert!(!faults(built_in, &shape).is_empty(), "{} {shape}", built_in.name);
        }
    }
}

#[test]
fn every_fault_says_what_to_write_instead() {
    for built_in in BUILT_INS {
        for key in example(built_in.name).as_object().unwrap().keys() {
            let mut broken = example(built_in.name);
            broken[key] = json!("\u{0}\"*");
            for problem in faults(built_in, &broken) {
                assert!(problem.pointer.starts_with(&format!("/{key}")), "{problem:?}");
                assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
            }
        }
    }
}

#[test]
fn a_scope_depends_on_neither_the_issuance_nor_the_time() {
    let registry = registry::<fixtures::Key>(&ProvidersConfig::default(), &fixtures::issuer());
    let (run, policy) = (fixtures::run(), fixtures::policy());
    for built_in in BUILT_INS {
        let target = example(built_in.name);
        let provider = &registry[built_in.name];
        let ask = fixtures::ask(&run, &policy, &target);
        let later = crate::Ask {
            issuance_id: cortex_core::IssuanceId::new(fixtures::now(), [9; 10]),
            now: "2027-01-01T12:34:56Z".parse().unwrap(),
            ..ask
        };
        let (first, second) = (provider.plan(&ask).unwrap(), provider.plan(&later).unwrap());
        assert_eq!(first.scope, second.scope, "{}", built_in.name);
        assert_eq!(first.ttl, second.ttl);
        assert!(first.ttl <= ask.max_ttl, "{}", built_in.name);
        assert!(first.worst_case_expiry >= fixtures::now() + first.ttl, "{}", built_in.name);
    }
}

#[test]
fn no_plan_is_longer_than_the_policy_allows() {
    use jiff::SignedDuration;
    let registry = registry::<fixtures::Key>(&ProvidersConfig::default(), &fixtures::issuer());
    let (run, policy) = (fixtures::run(), fixtures::policy());
    for built_in in BUILT_INS {
        let target = example(built_in.name);
        let ask = fixtures::ask(&run, &policy, &target);
        for (max, wish) in [(900, 60), (1800, 86_400), (3600, 1200), (86_400, 86_400), (900, -5), (900, 0)] {
            let max_ttl = SignedDuration::from_secs(max);
            let requested_ttl = Some(SignedDuration::from_secs(wish));
            if let Ok(plan) = registry[built_in.name].plan(&crate::Ask { max_ttl, requested_ttl, ..ask }) {
                assert!(
                    plan.ttl <= max_ttl && plan.ttl > SignedDuration::ZERO,
                    "{} {max} {wish}",
                    built_in.name
                );
            }
        }
    }
}
