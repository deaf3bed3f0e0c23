//! Guardrails take away and never give, and one that cannot be evaluated denies.

use super::*;

fn guardrail(id: &str, condition: &str) -> String {
    format!(
        "@id(\"{id}\")\nforbid (principal is Run, action == Action::\"issue\", resource)\nwhen {{ {condition} }};\n"
    )
}

fn compiled(text: &str) -> Guardrails {
    Guardrails::compile(&[("g.cedar", text)]).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}

#[track_caller]
fn refuses(text: &str, line: usize, message: &str) {
    let problems = Guardrails::compile(&[("g.cedar", text)]).expect_err(text);
    let found = problems.iter().any(|p| p.line == line && p.message.contains(message));
    assert!(found, "line {line}, {message:?}: {problems:#?}");
    assert!(problems.iter().all(|p| p.message.starts_with("g.cedar") && !p.remedy.is_empty()));
}

#[test]
fn a_guardrail_overrides_every_policy() {
    let text = "@id(\"no-root\")
@reason(\"The root role is for nobody.\")
@remedy(\"Use another role.\")
forbid (principal, action, resource) when { context.resource like \"aws:*r\" };";
    let guardrails = compiled(text);
    assert_eq!(guardrails.ids().collect::<Vec<_>>(), ["no-root"]);
    let case = Case::of(run());
    let decision = compile(&minimal("")).decide(&guardrails, &case.ask());
    assert_eq!(
        decision,
        Decision::Deny {
            named: true,
            reasons: vec![Reason {
                rule: "no-root".into(),
                clause: Clause::Guardrail,
                message: "The root role is for nobody.".into(),
                remedy: "Use another role.".into(),
            }]
        }
    );
}

#[test]
fn guardrails_read_everything_about_the_run_and_the_request() {
    let run = run_with(|run| {
        run.map_index = Some(3);
        run.team = Some("finance".parse().unwrap());
        run.bundle = Some("git-finance".parse().unwrap());
        run.triggered_by = Some("rest_api".parse().unwrap());
        run.triggering_user = Some("alice \"quoted\" <a@b>".into());
        run.tags = ["gold".to_owned()].into();
    });
    let case = Case::of(run).from("::ffff:10.1.2.3").at("2026-11-23T02:30:00.5Z");
    let policy = compile(&minimal("when: {hours: '00:00-23:00', timezone: Europe/Paris}\n"));
    for condition in [
        "principal.issuer == \"prod\"",
        "principal.dag_id == \"d\" && principal.task_id == \"t\"",
        "principal.run_id like \"scheduled__*\"",
        "principal.try_number == 1",
        "principal has map_index && principal.map_index == 3",
        "principal has run_type && principal.run_type == \"scheduled\"",
        "principal has triggered_by && principal.triggered_by == \"rest_api\"",
        "principal has triggering_user && principal.triggering_user == \"alice \\\"quoted\\\" <a@b>\"",
        "principal has team && principal.team == \"finance\"",
        "principal has bundle && principal.bundle == \"git-finance\"",
        "principal.tags.contains(\"gold\")",
        "principal.attestation == \"issuer\"",
        "resource == Policy::\"p\"",
        "context.provider == \"aws\" && context.resource == \"aws:r\"",
        "context.now == datetime(\"2026-11-23T02:30:00.500Z\")",
        "context.local_minute == 210 && context.weekday == \"mon\" && context.yesterday == \"sun\"",
        "context has source_ip && context.source_ip == ip(\"10.1.2.3\")",
        "context.ttl_seconds == 900 && !context.approved",
    ] {
        let decision = policy.decide(&compiled(&guardrail("g", condition)), &case.ask());
        assert_eq!(clauses(decision), [Clause::Guardrail], "{condition}");
        let decision = policy.decide(&compiled(&guardrail("g", &format!("!({condition})"))), &case.ask());
        assert!(permitted(&decision), "!({condition})");
    }
}

#[test]
fn a_guardrail_that_cannot_be_evaluated_denies() {
    // Cedar skips a forbid that errors, which would be a permit.
    let guardrails = compiled(&guardrail("overflows", "context.ttl_seconds * 9223372036854775807 > 0"));
    let case = Case::of(run());
    let (named, reasons) = denial(compile(&minimal("")).decide(&guardrails, &case.ask()));
    assert!(named);
    assert_eq!((reasons[0].rule.as_str(), reasons[0].clause), ("overflows", Clause::Error));
    assert_eq!(reasons.len(), 1);
}

#[test]
fn an_error_is_not_cured_by_an_approval() {
    let guardrails = compiled(&guardrail("overflows", "context.ttl_seconds * 9223372036854775807 > 0"));
    let policy = compile(&minimal("approval: {required_for: always, approvers: {groups: [g]}}\n"));
    let (_, reasons) = denial(policy.decide(&guardrails, &Case::of(run()).ask()));
    assert_eq!(reasons.iter().map(|r| r.clause).collect::<Vec<_>>(), [Clause::Approval, Clause::Error]);
}

#[test]
fn a_guardrail_that_wants_an_approval_does_not_stand_in_its_way() {
    let guardrails = compiled(&guardrail("approved-only", "!context.approved"));
    let policy = compile(&minimal("approval: {required_for: always, approvers: {groups: [g]}}\n"));
    let mut case = Case::of(run());
    assert_eq!(
        policy.decide(&guardrails, &case.ask()),
        Decision::NeedsGrant { rules: vec!["p#approval".into(), "approved-only".into()] }
    );
    case.approved = true;
    assert!(permitted(&policy.decide(&guardrails, &case.ask())));
    // A policy that knows no approval cannot ask for one.
    case.approved = false;
    assert_eq!(clauses(compile(&minimal("")).decide(&guardrails, &case.ask())), [Clause::Guardrail]);
}

#[test]
fn a_guardrail_that_an_approval_does_not_cure_denies() {
    let guardrails = compiled(&guardrail("never", "context.provider == \"aws\""));
    let policy = compile(&minimal("approval: {required_for: always, approvers: {groups: [g]}}\n"));
    let decision = policy.decide(&guardrails, &Case::of(run()).ask());
    assert_eq!(clauses(decision), [Clause::Approval, Clause::Guardrail]);
}

#[test]
fn guardrails_do_not_name_anybody() {
    let guardrails = compiled(&guardrail("g", "context.provider == \"aws\""));
    let stranger = Case::of(run_with(|run| run.dag_id = "x".parse().unwrap()));
    let (named, reasons) = denial(compile(&minimal("")).decide(&guardrails, &stranger.ask()));
    assert!(!named);
    assert_eq!(reasons.iter().map(|r| r.clause).collect::<Vec<_>>(), [Clause::Who, Clause::Guardrail]);
}

#[test]
fn no_guardrails_deny_nothing() {
    assert!(permitted(&Case::of(run()).decide(&compile(&minimal("")))));
}

#[test]
fn what_is_no_guardrail_is_refused() {
    refuses("\n@id(\"a\")\npermit (principal, action, resource);", 2, "has a `permit`");
    refuses("// nothing yet\n", 1, "has no rule");
    refuses("// a NUL: \0\n@id(\"a\")\nforbid (principal, action, resource);", 1, "NUL");
    refuses("forbid (principal, action, resource);", 1, "without a well-formed @id");
    refuses("@id(\"A b\")\nforbid (principal, action, resource);", 1, "without a well-formed @id");
    refuses("@id(\"p#who\")\nforbid (principal, action, resource);", 1, "without a well-formed @id");
    let twice = format!("{}{}", guardrail("a", "context.approved"), guardrail("a", "!context.approved"));
    refuses(&twice, 4, "\"a\", which is taken");
    refuses("@id(\"a\")\n@reasn(\"x\")\nforbid (principal, action, resource);", 1, "annotation @reasn");
    refuses("@id(\"a\")\nforbid (principal == ?principal, action, resource);", 1, "template");
    refuses("@id(\"a\")\nforbid (principal, action resource);", 2, "");
    refuses("nonsense", 1, "");
    refuses(&guardrail("a", &format!("context.provider == \"{}\"", "x".repeat(70_000))), 1, "65536 bytes");
}

#[test]
fn guardrails_are_strictly_validated() {
    for condition in [
        "principal.team == \"a\"",            // may be absent
        "context.source_ip.isLoopback()",     // may be absent
        "principal.dag == \"a\"",             // no such attribute
        "context.provider == 1",              // another type
        "context.ttl_seconds > \"5\"",        // another type
        "principal == User::\"a\"",           // no such type
        "context.provider == \"\u{430}ws\" ", // looks like aws
        "false",                              // can never hold
    ] {
        let text = guardrail("a", condition);
        let problems = Guardrails::compile(&[("g.cedar", &text)]).expect_err(condition);
        assert!(!problems.is_empty() && problems.iter().all(|p| p.line >= 1), "{problems:?}");
    }
    refuses(&guardrail("a", "principal.dag == \"a\""), 3, "dag");
}

#[test]
fn ids_are_unique_over_all_sources_and_their_number_is_bounded() {
    let one = guardrail("a", "context.approved");
    let problems =
        Guardrails::compile(&[("one.cedar", one.as_str()), ("two.cedar", one.as_str())]).unwrap_err();
    assert!(problems[0].message.starts_with("two.cedar"), "{problems:?}");
    let many: Vec<_> = (0..65).map(|n| guardrail(&format!("g{n}"), "context.approved")).collect();
    assert!(
        Guardrails::compile(&[("many.cedar", many.concat())]).unwrap_err()[0]
            .message
            .contains("more than 64")
    );
}
