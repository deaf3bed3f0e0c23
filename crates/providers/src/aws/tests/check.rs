//! Which targets may be written, and which may not.

use cortex_core::policy::TargetProblem;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::target;
use crate::aws::BUILT_IN;
use crate::tests::fixtures::run;

fn pointers(target: &Value) -> Vec<String> {
    match (BUILT_IN.check)(target) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|TargetProblem { pointer, .. }| pointer).collect(),
    }
}

/// The usual target with one member replaced.
fn with(pointer: &str, value: Value) -> Value {
    let mut target = target();
    *target.pointer_mut(pointer).unwrap() = value;
    target
}

/// The usual target with further members.
fn and(members: Value) -> Value {
    let mut target = target();
    let Value::Object(members) = members else { panic!("not an object") };
    target.as_object_mut().unwrap().extend(members);
    target
}

#[test]
fn the_resource_is_the_role() {
    let resource = (BUILT_IN.check)(&target()).unwrap();
    assert_eq!(resource, "aws:arn:aws:iam::123456789012:role/finance-publish");
}

#[test]
fn actions_are_named() {
    for action in ["s3:PutObject", "s3:Get*", "s3:*", "sts:GetCallerIdentity", "execute-api:Invoke"] {
        assert!(pointers(&with("/allow/0/actions/0", json!(action))).is_empty(), "{action}");
    }
    let refused = [
        "*",
        "",
        "s3",
        "s3:",
        ":Get",
        "*:*",
        "*:Get",
        "s3:*Object",
        "s3:Get**",
        "s3:G?t",
        "S3:Get",
        "s3:Get Object",
        "s3:{dag_id}",
        "iam:*",
        "sts:*",
        "iam:Pass*",
        "sts:Assume*",
        "s3:Get\"",
        "s3:GetObject\n",
    ];
    for action in refused {
        assert_eq!(pointers(&with("/allow/0/actions/0", json!(action))), ["/allow/0/actions/0"], "{action}");
    }
}

#[test]
fn resources_are_arns_of_the_roles_partition() {
    let fine = [
        "arn:aws:s3:::finance-mart/*",
        "arn:aws:s3:::finance-mart/{dag_id}/{run_id}/*",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/{dag_id}",
        "arn:aws:logs:eu-west-1:123456789012:log-group:/cortex/{team}:*",
    ];
    for resource in fine {
        assert!(pointers(&with("/allow/0/resources/0", json!(resource))).is_empty(), "{resource}");
    }
    let refused = [
        "*",
        "",
        "finance-mart",
        "arn:aws:s3",
        "arn:aws:s3:::",
        "arn:*:s3:::x",
        "arn:aws:*:::x",
        "arn:aws-cn:s3:::x",
        "arn:aws:{team}:::x",
        "arn:aws:sqs:{team}:123456789012:x",
        "arn:aws:sqs:eu-west-1:{team}:x",
        "arn:aws:s3:::x/${aws:username}",
        "arn:aws:s3:::x/{dag}",
        "arn:aws:s3:::x/{dag_id",
        "arn:aws:s3:::x\",\"y",
        "arn:aws:s3:::x y",
        "arn:aws:s3:::x\\u0000",
        "arn:aws:s3:::x/{dag_id}*",
        "arn:aws:s3:::x-{dag_id}-{run_id}/*",
        "arn:aws:s3:::b\u{fc}cher/*",
    ];
    for resource in refused {
        assert_eq!(
            pointers(&with("/allow/0/resources/0", json!(resource))),
            ["/allow/0/resources/0"],
            "{resource}"
        );
    }
}

#[test]
fn conditions_only_narrow() {
    let conditions = |conditions: Value| {
        let mut target = target();
        target["allow"][0]["conditions"] = conditions;
        pointers(&target)
    };
    assert!(conditions(json!({"StringLike": {"s3:prefix": ["{dag_id}/*"]}})).is_empty());
    assert!(conditions(json!({"Bool": {"aws:SecureTransport": ["true"]}})).is_empty());
    let at = "/allow/0/conditions";
    assert_eq!(conditions(json!({"StringNotEquals": {"s3:prefix": ["x"]}})), [at]);
    assert_eq!(conditions(json!({"StringEqualsIfExists": {"s3:prefix": ["x"]}})).len(), 1);
    assert_eq!(conditions(json!({"StringEquals": {}})), [format!("{at}/StringEquals")]);
    assert_eq!(
        conditions(json!({"StringEquals": {"s3:prefix": []}})),
        [format!("{at}/StringEquals/s3:prefix")]
    );
    assert_eq!(
        conditions(json!({"StringEquals": {"aws:PrincipalTag/a": ["${x}"]}})),
        [format!("{at}/StringEquals/aws:PrincipalTag~1a/0")]
    );
    assert_eq!(conditions(json!({"StringEquals": {"prefix": ["x"]}})), [format!("{at}/StringEquals/prefix")]);
}

#[test]
fn nothing_is_allowed_by_saying_nothing() {
    assert_eq!(pointers(&with("/allow", json!([]))), ["/allow"]);
    assert_eq!(pointers(&with("/allow/0/actions", json!([]))), ["/allow/0/actions"]);
    assert_eq!(pointers(&with("/allow/0/resources", json!([]))), ["/allow/0/resources"]);
    assert_eq!(pointers(&with("/allow/0", json!({"actions": ["s3:Get*"]}))), ["/allow/0"]);
    assert_eq!(pointers(&with("/allow/0", json!({"action": ["s3:Get*"]}))), ["/allow/0/action"]);
}

#[test]
fn every_fault_of_a_target_is_found_at_once() {
    let mut broken = target();
    broken["role"] = json!("finance");
    broken["allow"][0]["actions"] = json!(["*"]);
    broken["region"] = json!("Paris");
    broken["tags"] = json!({"lease": "x"});
    broken["external_id"] = json!("x");
    assert_eq!(pointers(&broken), ["/role", "/allow/0/actions/0", "/region", "/tags/lease", "/external_id"]);
}

#[test]
fn a_region_and_an_external_id_fit_the_role_and_the_method() {
    assert_eq!(pointers(&with("/region", json!("cn-north-1"))), ["/region"]);
    let assume = |id: &str| pointers(&and(json!({"method": "assume-role", "external_id": id})));
    assert!(assume("cortex-prod-7").is_empty());
    assert_eq!(assume("x"), ["/external_id"]);
    assert_eq!(assume("a b"), ["/external_id"]);
    assert_eq!(pointers(&and(json!({"external_id": "cortex-prod-7"}))), ["/external_id"]);
    assert_eq!(pointers(&and(json!({"method": "magic"}))), ["/method"]);
}

#[test]
fn tags_are_tags_to_aws_and_leave_cortexs_own_alone() {
    let tags = |tags: Value| pointers(&and(json!({ "tags": tags })));
    assert!(tags(json!({"team": "{team}", "cost centre": "a/b"})).is_empty());
    for key in ["lease", "Lease", "DAG_ID", "policy", "aws:x", "AWS:x", "", "a*", "a\"b"] {
        assert_eq!(tags(json!({ key: "x" })).len(), 1, "{key}");
    }
    assert_eq!(tags(json!({"Team": "a", "team": "b"})), ["/tags/team"]);
    for value in ["a*", "a,b", "\u{0}", "{dag}", "{dag_id}{run_id}"] {
        assert_eq!(tags(json!({ "team": value })), ["/tags/team"], "{value}");
    }
    let many: serde_json::Map<_, _> = (0..48).map(|n| (format!("t{n}"), json!("x"))).collect();
    assert_eq!(tags(Value::Object(many)), ["/tags"]);
}

#[test]
fn a_policy_that_can_never_fit_is_refused_when_it_is_written() {
    let resources: Vec<_> =
        (0..60).map(|n| format!("arn:aws:s3:::finance-mart-number-{n}/{{dag_id}}/*")).collect();
    assert_eq!(pointers(&with("/allow/0/resources", json!(resources))), ["/allow"]);
}

proptest! {
    #[test]
    fn no_text_makes_a_check_panic_or_pass_a_wildcard(text in ".*") {
        let accepted = pointers(&with("/allow/0/resources/0", json!(text))).is_empty();
        prop_assert!(!accepted || text.starts_with("arn:aws:"));
        let accepted = pointers(&with("/allow/0/actions/0", json!(text))).is_empty();
        prop_assert!(!accepted || text.contains(':'));
        let _ = pointers(&with("/role", json!(text)));
    }

    #[test]
    fn no_run_writes_its_own_statement(dag in "[A-Za-z0-9_.~:+-]{1,250}", run_id in "[A-Za-z0-9_.~:+-]{1,250}") {
        let mut run = run();
        let (Ok(dag), Ok(run_id)) = (dag.parse(), run_id.parse()) else { return Ok(()) };
        (run.dag_id, run.run_id) = (dag, run_id);
        let compiled = crate::aws::compile(&target()).unwrap();
        let Ok(policy) = compiled.rules.render(&run) else { return Ok(()) };
        let text = policy.text().unwrap();
        let parsed: Value = serde_json::from_str(&text).unwrap();
        let want = format!("arn:aws:s3:::finance-mart/{}/{}/*", run.dag_id, run.run_id);
        prop_assert_eq!(parsed, json!({
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": [want]}],
        }));
    }
}
