//! What stays of a document: its digest, its parts, its Cedar text, its schema and its differences.

use super::*;

const EXAMPLE: &str = include_str!("../../../../../config/policies/finance-data-publish.yaml");

#[test]
fn the_digest_is_of_the_meaning_not_of_the_writing() {
    let digest = |text: &str| compile(text).digest();
    let original = minimal("when: {max_ttl: 30m, days: [mon]}\n");
    let rewritten = "# a comment\nwhat:\n    aws:\n        role: \"r\"\n\nwhen:\n  days:\n  - mon\n  max_ttl: '30m'\nname: p\nwho: {dags: ['d'], airflow: prod}\n";
    assert_eq!(digest(&original), digest(rewritten));
    for changed in [
        original.replace("30m", "31m"),
        original.replace("[d]", "[e]"),
        original.replace("role: r", "role: r, extra: false"),
        original.replace("name: p", "name: q"),
        format!("{original}description: x\n"),
    ] {
        assert_ne!(digest(&original), digest(&changed), "{changed}");
    }
    assert_eq!(digest(EXAMPLE), compile(EXAMPLE).digest());
}

#[test]
fn the_parts_are_there() {
    let policy = compile(EXAMPLE);
    assert_eq!(policy.name().as_str(), "finance-data-publish");
    assert_eq!(policy.description(), Some("Nightly publish of the finance mart"));
    assert_eq!(policy.issuer().as_str(), "prod");
    assert_eq!(policy.max_ttl(), SignedDuration::from_mins(30));
    assert_eq!(policy.source(), EXAMPLE);
    assert_eq!(policy.targets().map(|(name, _)| name).collect::<Vec<_>>(), ["aws", "bigquery", "snowflake"]);
    assert_eq!(policy.target("snowflake").unwrap()["user"], "FINANCE_SVC");
    assert!(policy.target("api").is_none());
    let approval = policy.approval().unwrap();
    assert_eq!((approval.quorum(), approval.valid_for()), (1, ValidFor::Run));
    assert_eq!(approval.approvers().groups().collect::<Vec<_>>(), ["finance-admins"]);
    assert!(format!("{policy:?}").contains("sha256:"));
}

#[test]
fn the_cedar_text_is_what_decides() {
    let policy = compile(EXAMPLE);
    let text = policy.cedar();
    for rule in ["who", "attestation", "where", "when", "max_ttl", "approval", "break_glass"] {
        assert!(text.contains(&format!("// finance-data-publish#{rule}\n")), "{rule}\n{text}");
    }
    let read: cedar_policy::PolicySet = text.parse().unwrap();
    let compiled = rules::compile(&policy.document).unwrap();
    // Every rule is about the question that it is asked, so its scope is not asked again.
    let scope: cedar_policy::Policy =
        "permit (principal is Run, action == Action::\"issue\", resource == Policy::\"finance-data-publish\");"
            .parse()
            .unwrap();
    let scope = scope.as_ref();
    let original = compiled.who.conditions().chain(compiled.forbids.conditions());
    for (read, original) in read.policies().zip(original) {
        assert_eq!(read.as_ref().non_scope_constraints(), Some(original), "{text}");
        assert_eq!(read.as_ref().resource_constraint(), scope.resource_constraint(), "{text}");
        assert_eq!(read.as_ref().principal_constraint(), scope.principal_constraint(), "{text}");
        assert_eq!(read.as_ref().action_constraint(), scope.action_constraint(), "{text}");
    }
    assert_eq!(read.num_of_policies(), 7);
    insta::assert_snapshot!(text);
}

#[test]
fn a_request_fits_the_schema_that_rules_are_validated_against() {
    let schema = engine::tests::schema();
    let full = run_with(|run| {
        run.map_index = Some(u32::MAX);
        run.team = Some("a".parse().unwrap());
        run.bundle = Some("b".parse().unwrap());
        run.triggered_by = Some("cli".parse().unwrap());
        run.triggering_user = Some("u".into());
        run.tags = ["x".to_owned(), "y".to_owned()].into();
    });
    for run in [run(), full, run_with(|run| run.run_type = None)] {
        for ip in ["10.0.0.1", "fd00::1"] {
            let case = Case::of(run.clone()).from(ip);
            let policy = compile(&minimal(""));
            engine::tests::conforms(&policy, &case.ask(), &schema);
        }
    }
}

fn schema() -> Value {
    let target = |more: Value| {
        let mut schema = serde_json::json!({
            "type": "object",
            "properties": { "role": { "type": "string" }, "more": { "$ref": "#/$defs/More" } },
            "$defs": { "More": { "type": "array", "items": { "$ref": "#/$defs/Item" } }, "Item": { "type": "string" } },
        });
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schemars::Schema::try_from(schema).unwrap()
    };
    policy_schema(&[
        ("aws", target(serde_json::json!({"title": "AWS"}))),
        ("api", target(serde_json::json!({"title": "API"}))),
    ])
}

#[test]
fn the_schema_names_the_keys_that_the_reader_takes() {
    let schema = schema();
    let definition = |path: &str| {
        let keys = schema
            .pointer(path)
            .and_then(|s| s["properties"].as_object())
            .unwrap_or_else(|| panic!("{path}"));
        keys.keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    // A document with an unknown key everywhere: the reader answers with the keys that it knows.
    let source = "zzzz: 1\nwho: {zzzz: 1}\nwhat: {aws: {role: r}}\nwhere: {zzzz: 1}\nwhen: {zzzz: 1}\napproval: {zzzz: 1, required_for: {zzzz: 1}, approvers: {zzzz: 1}}\n";
    let problems = Policy::compile(source, &Tiny).unwrap_err();
    let mut seen = 0;
    for (owner, path) in [
        ("the policy", ""),
        ("`who`", "/$defs/Who"),
        ("`where`", "/$defs/Where"),
        ("`when`", "/$defs/When"),
        ("`approval`", "/$defs/Approval"),
        ("`required_for`", "/$defs/RequiredRuns"),
        ("`approvers`", "/$defs/Approvers"),
    ] {
        let unknown = format!("{owner} has no key `zzzz`");
        let problem = problems.iter().find(|p| p.message == unknown).unwrap_or_else(|| panic!("{unknown}"));
        let known =
            problem.remedy.trim_start_matches("write one of ").split(", ").map(str::to_owned).collect();
        assert_eq!(definition(path), known, "{owner}");
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn the_schema_is_closed_and_merges_the_targets() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["name", "who", "what"]));
    assert_eq!(schema["properties"]["what"]["additionalProperties"], false);
    let aws = &schema["properties"]["what"]["properties"]["aws"];
    assert_eq!(aws["title"], "AWS");
    assert_eq!(aws["properties"]["more"]["$ref"], "#/$defs/aws.More");
    assert_eq!(schema["$defs"]["aws.More"]["items"]["$ref"], "#/$defs/aws.Item");
    assert_eq!(schema["$defs"]["api.Item"]["type"], "string");
    let text = schema.to_string();
    assert!(!text.contains("null"), "no key takes null: {text}");
    for described in ["/properties/name", "/properties/who", "/$defs/When/properties/hours", "/$defs/Pattern"]
    {
        assert!(schema.pointer(described).unwrap()["description"].is_string(), "{described}");
    }
}

#[test]
fn a_difference_is_told_in_words_and_lines() {
    let new = EXAMPLE
        .replace("dags: [finance_publish, ", "dags: [finance_close, ")
        .replace("max_ttl: 30m", "max_ttl: 1h")
        .replace("    role: FINANCE_PUBLISH", "    role: FINANCE_ADMIN")
        .replace("where:\n  networks: [10.0.0.0/8]\n", "");
    let text = diff(EXAMPLE, &new);
    for line in [
        "who.dags: + finance_close, - finance_publish\n",
        "what.snowflake.role: FINANCE_PUBLISH became FINANCE_ADMIN\n",
        "where.networks: removed, was [\"10.0.0.0/8\"]\n",
        "when.max_ttl: 30m became 1h\n",
        "--- old\n+++ new\n",
        "\n-  max_ttl: 30m\n+  max_ttl: 1h\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    assert_eq!(diff(EXAMPLE, EXAMPLE), "");
    let comment = diff(EXAMPLE, &format!("{EXAMPLE}# more\n"));
    assert!(comment.starts_with("--- old"), "a comment changes no meaning: {comment}");
    assert!(diff("", EXAMPLE).contains("+name: finance-data-publish"));
    assert!(diff("{", EXAMPLE).starts_with("--- old"));
}
