//! What one run gets, before anything happened.

use cortex_core::Run;
use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::target;
use crate::aws::session_policy::plain;
use crate::aws::{Aws, session};
use crate::config::AwsConfig;
use crate::tests::fixtures::{Key, ask, issuer, plan, policy, run};
use crate::{Ask, Plan, Provider, Refusal};

fn aws() -> Aws {
    Aws::new(&AwsConfig::default(), &issuer())
}

fn plan_with(change: impl FnOnce(&mut Ask<'_>)) -> Result<Plan<Key>, Refusal> {
    let (run, policy, target) = (run(), policy(), target());
    let mut ask = ask(&run, &policy, &target);
    change(&mut ask);
    aws().plan(&ask)
}

#[test]
fn the_scope_is_the_session() {
    let mut target = target();
    target["tags"] = json!({"team": "{team}"});
    target["allow"][0]["conditions"] =
        json!({"StringEquals": {"s3:x-amz-server-side-encryption": ["aws:kms"]}});
    insta::assert_json_snapshot!(plan(&aws(), &target).unwrap().scope, @r#"
    {
      "role": "arn:aws:iam::123456789012:role/finance-publish",
      "region": "eu-west-1",
      "method": "web-identity",
      "session_name": "finance_publish.v8hKAMdmjVNTcMC9c9NP8nwedsKb5d22h4eSgYZHGHs",
      "session_policy": {
        "Version": "2012-10-17",
        "Statement": [
          {
            "Effect": "Allow",
            "Action": [
              "s3:PutObject"
            ],
            "Resource": [
              "arn:aws:s3:::finance-mart/finance_publish/scheduled__2026-11-22T00:00:00+00:00/*"
            ],
            "Condition": {
              "StringEquals": {
                "s3:x-amz-server-side-encryption": [
                  "aws:kms"
                ]
              }
            }
          }
        ]
      },
      "tags": {
        "dag_id": "finance_publish",
        "policy": "finance-data-publish",
        "team": "finance"
      },
      "ttl_seconds": 1800
    }
    "#);
}

#[test]
fn a_lifetime_stays_within_awss_limits_and_the_policys() {
    let minutes = SignedDuration::from_mins;
    let ttl = |max, wish: Option<i64>| {
        let plan = plan_with(|ask| {
            ask.max_ttl = minutes(max);
            ask.requested_ttl = wish.map(minutes);
        });
        plan.map(|plan| plan.ttl).map_err(|refusal| refusal.message)
    };
    assert_eq!(ttl(30, None), Ok(minutes(30)));
    assert_eq!(ttl(30, Some(20)), Ok(minutes(20)));
    assert_eq!(ttl(30, Some(5)), Ok(minutes(15)), "raised to AWS's minimum, which the policy allows");
    assert_eq!(ttl(30, Some(600)), Ok(minutes(30)));
    assert_eq!(ttl(24 * 60, None), Ok(minutes(12 * 60)));
    assert!(ttl(14, None).unwrap_err().contains("900"));
    assert!(ttl(14, Some(20)).is_err());
}

#[test]
fn what_depends_on_configuration_is_refused_with_a_remedy() {
    let mut china = target();
    china["role"] = json!("arn:aws-cn:iam::123456789012:role/x");
    china["allow"][0]["resources"] = json!(["arn:aws-cn:s3:::x/*"]);
    china.as_object_mut().unwrap().remove("region");
    assert!(plan(&aws(), &china).err().unwrap().remedy.contains("region"));
    let mut assume = target();
    assume["method"] = json!("assume-role");
    assert!(plan(&aws(), &assume).err().unwrap().remedy.contains("external_id"));
    let config = AwsConfig { external_id: Some("cortex-prod-7".into()), ..AwsConfig::default() };
    assert!(plan(&Aws::new(&config, &issuer()), &assume).is_ok());
}

#[test]
fn a_run_whose_names_make_the_policy_too_large_is_refused() {
    let mut target = target();
    let resources: Vec<_> =
        (0..20).map(|n| format!("arn:aws:s3:::mart-{n}/{{dag_id}}/{{run_id}}/*")).collect();
    target["allow"][0]["resources"] = json!(resources);
    assert!(plan(&aws(), &target).is_ok());
    let (mut run, policy) = (run(), policy());
    run.run_id = "r".repeat(250).parse().unwrap();
    let refusal = Provider::<Key>::plan(&aws(), &ask(&run, &policy, &target)).err().unwrap();
    assert!(refusal.message.contains("2048"), "{refusal:?}");
}

#[test]
fn values_that_mean_something_to_aws_are_refused_and_never_escaped() {
    for byte in b"*?${}\"'`/,\\<> \n\t\0\x7f" {
        assert!(!plain(*byte), "{:?}", char::from(*byte));
    }
    let (mut run, policy, target) = (run(), policy(), target());
    run.run_id = "a..b".parse().unwrap();
    let refusal = Provider::<Key>::plan(&aws(), &ask(&run, &policy, &target)).err().unwrap();
    assert!(refusal.message.contains("run_id"), "{refusal:?}");
    run.run_id = "a".parse().unwrap();
    run.dag_id = "a~b".parse().unwrap();
    let refusal = Provider::<Key>::plan(&aws(), &ask(&run, &policy, &target)).err().unwrap();
    assert!(refusal.message.contains("tag dag_id"), "{refusal:?}");
}

#[test]
fn a_colon_in_a_name_crosses_no_boundary_of_an_arn() {
    let mut target = target();
    target["allow"][0]["resources"] = json!(["arn:aws:lambda:eu-west-1:123456789012:function:{run_id}"]);
    assert!(plan(&aws(), &target).is_err(), "the usual run_id has colons");
    target["allow"][0]["resources"] = json!(["arn:aws:s3:::mart/{run_id}/*"]);
    assert!(plan(&aws(), &target).is_ok(), "which are letters in a key of S3");
}

#[test]
fn a_team_that_is_absent_matches_nothing() {
    let (mut run, policy, mut target) = (run(), policy(), target());
    run.team = None;
    target["allow"][0]["resources"] = json!(["arn:aws:s3:::mart/{team}/*"]);
    assert!(Provider::<Key>::plan(&aws(), &ask(&run, &policy, &target)).is_err());
}

fn name_is_valid(name: &str) -> bool {
    (2..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

proptest! {
    #[test]
    fn different_runs_have_different_session_names(
        a in ("[a-z~:.-]{1,4}", "[a-z~:.-]{1,4}", 1..3_u32),
        b in ("[a-z~:.-]{1,4}", "[a-z~:.-]{1,4}", 1..3_u32),
    ) {
        let name = |(dag, id, attempt): &(String, String, u32)| {
            let mut run = run();
            run.dag_id = dag.parse().ok()?;
            run.run_id = id.parse().ok()?;
            run.try_number = *attempt;
            Some(session::name(&run))
        };
        let (Some(first), Some(second)) = (name(&a), name(&b)) else { return Ok(()) };
        prop_assert!(name_is_valid(&first), "{first}");
        // Another try of the same run has the same name.
        prop_assert_eq!(first == second, (a.0, a.1) == (b.0, b.1));
    }

    #[test]
    fn every_dag_has_a_valid_session_name(dag in "[A-Za-z0-9_.~:+-]{1,250}") {
        let Ok(dag_id) = dag.parse() else { return Ok(()) };
        let name = session::name(&Run { dag_id, ..run() });
        prop_assert!(name_is_valid(&name), "{name}");
    }
}

#[test]
fn nothing_in_a_scope_is_a_secret_or_an_id_of_the_issuance() {
    let scope: Value = plan_with(|_| {}).unwrap().scope;
    assert!(!scope.to_string().contains(&crate::tests::fixtures::issuance_id().to_string()));
}
