//! Each clause of a policy, from the caller's side: who is let through, who is not, and what they are told.

use std::collections::BTreeSet;

use super::*;
use crate::principal::{Person, Service, SignIn};

fn who(more: &str) -> Policy {
    compile(&minimal("").replace("dags: [d]", &format!("dags: [d]\n  {more}")))
}

#[test]
fn a_named_run_is_permitted_by_its_rule() {
    assert_eq!(
        Case::of(run()).decide(&compile(&minimal(""))),
        Decision::Permit { rules: vec!["p#who".into()] }
    );
}

type Change = fn(&mut Run);

#[test]
fn every_part_of_who_has_to_match() {
    let policy = compile(
        &minimal("")
            .replace("dags: [d]", "dags: [d]\n  tasks: [t]\n  run_types: [scheduled]\n  teams: [a, 'b*']"),
    );
    let named = run_with(|run| run.team = Some("bb".parse().unwrap()));
    assert!(permitted(&Case::of(named.clone()).decide(&policy)));
    let others: [(&str, Change); 6] = [
        ("issuer", |run| run.issuer = "staging".parse().unwrap()),
        ("dag", |run| run.dag_id = "dd".parse().unwrap()),
        ("task", |run| run.task_id = "T".parse().unwrap()),
        ("run type", |run| run.run_type = Some("manual".parse().unwrap())),
        ("team", |run| run.team = Some("c".parse().unwrap())),
        ("team's case", |run| run.team = Some("A".parse().unwrap())),
    ];
    for (what, change) in others {
        let mut run = named.clone();
        change(&mut run);
        let (named, reasons) = denial(Case::of(run).decide(&policy));
        assert!(!named, "{what}");
        assert_eq!(reasons.iter().map(|r| r.rule.as_str()).collect::<Vec<_>>(), ["p#who"], "{what}");
    }
}

#[test]
fn an_absent_claim_never_matches() {
    for (key, pattern) in [("run_types", "scheduled"), ("teams", "a*"), ("bundles", "b*"), ("tags", "t")] {
        let policy = who(&format!("{key}: ['{pattern}']"));
        let bare = run_with(|run| run.run_type = None);
        assert_eq!(clauses(Case::of(bare).decide(&policy)), [Clause::Who], "{key}");
    }
}

#[test]
fn patterns_are_anchored_at_both_ends() {
    let policy = compile(&minimal("").replace("[d]", "[prod, 'fin_*_x', 'stage*']"));
    for (dag, named) in [
        ("prod", true),
        ("prod-evil", false),
        ("evil-prod", false),
        ("stage", true),
        ("stage.anything~goes", true),
        ("my_stage", false),
        ("fin__x", true),
        ("fin_a_x", true),
        ("fin_x", false),
        ("fin_a_xy", false),
        ("Prod", false),
    ] {
        let decision = Case::of(run_with(|run| run.dag_id = dag.parse().unwrap())).decide(&policy);
        assert_eq!(permitted(&decision), named, "{dag}");
    }
}

#[test]
fn one_tag_is_enough_and_tags_are_exact() {
    let policy = who("tags: [pii, gold]");
    let tagged = |tags: &[&str]| {
        let tags: BTreeSet<_> = tags.iter().map(ToString::to_string).collect();
        permitted(&Case::of(run_with(|run| run.tags = tags)).decide(&policy))
    };
    assert!(tagged(&["gold", "other"]));
    assert!(!tagged(&["Gold", "golden", "pii,gold"]));
}

#[test]
fn people_and_services_are_never_named() {
    let person = Principal::Person(Person {
        issuer: "prod".parse().unwrap(),
        subject: "d".into(),
        email: None,
        username: None,
        groups: BTreeSet::new(),
        sign_in: SignIn::default(),
    });
    let service = Principal::Service(Service {
        issuer: "prod".parse().unwrap(),
        subject: "d".into(),
        groups: BTreeSet::new(),
    });
    for principal in [person, service] {
        let case = Case { principal, ..Case::of(run()) };
        let (named, reasons) = denial(case.decide(&compile(&minimal(""))));
        assert!(!named);
        assert_eq!(reasons[0].clause, Clause::Who);
    }
}

#[test]
fn the_issuers_word_is_wanted_unless_the_policy_says_otherwise() {
    let kubernetes = run_with(|run| run.attestation = Attestation::Kubernetes);
    let (named, reasons) = denial(Case::of(kubernetes.clone()).decide(&compile(&minimal(""))));
    assert!(named, "a run that the policy names learns what is missing");
    assert_eq!((reasons[0].rule.as_str(), reasons[0].clause), ("p#attestation", Clause::Attestation));
    assert_eq!(reasons[0].message, "The run was proven by kubernetes; p accepts issuer.");
    assert!(permitted(&Case::of(kubernetes).decide(&who("attestation: [kubernetes]"))));
    let claimed = run_with(|run| run.attestation = Attestation::VerifiedClaim);
    assert_eq!(
        clauses(Case::of(claimed.clone()).decide(&who("attestation: [kubernetes, issuer]"))),
        [Clause::Attestation]
    );
    assert!(permitted(&Case::of(claimed).decide(&who("attestation: [issuer, verified-claim]"))));
}

#[test]
fn a_target_that_the_policy_lacks_is_denied_to_those_it_names() {
    let policy = compile(&minimal(""));
    let mut case = Case { provider: "snowflake".into(), ..Case::of(run()) };
    let (named, reasons) = denial(case.decide(&policy));
    assert!(named);
    assert_eq!((reasons[0].rule.as_str(), reasons[0].clause), ("p#what", Clause::What));
    assert_eq!(reasons[0].remedy, "Ask for aws.");
    case.principal = Principal::Run(run_with(|run| run.dag_id = "other".parse().unwrap()));
    let (named, reasons) = denial(case.decide(&policy));
    assert!(!named);
    assert_eq!(reasons.iter().map(|r| r.clause).collect::<Vec<_>>(), [Clause::Who, Clause::What]);
}

#[test]
fn only_the_networks_may_ask() {
    let policy = compile(&minimal("where:\n  networks: [10.0.0.0/8, 'fd00::/8', 192.0.2.7/32]\n"));
    for (ip, open) in [
        ("10.255.0.1", true),
        ("11.0.0.1", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("fd12::1", true),
        ("fe80::1", false),
        // An IPv4 address in its IPv6 form is still that address, inside and outside.
        ("::ffff:10.1.1.1", true),
        ("::ffff:11.1.1.1", false),
        // Other embeddings are not.
        ("64:ff9b::a01:101", false),
        ("::a01:101", false),
    ] {
        let decision = Case::of(run()).from(ip).decide(&policy);
        assert_eq!(permitted(&decision), open, "{ip}: {decision:?}");
    }
    let (_, reasons) = denial(Case::of(run()).from("::ffff:11.1.1.1").decide(&policy));
    assert_eq!(
        reasons[0].message,
        "The request came from 11.1.1.1; p is open to 10.0.0.0/8, fd00::/8, 192.0.2.7/32."
    );
}

#[test]
fn an_unknown_address_is_in_no_network() {
    let policy = compile(&minimal("where:\n  networks: [10.0.0.0/8]\n"));
    let (_, reasons) = denial(Case::of(run()).decide(&policy));
    assert_eq!(reasons[0].clause, Clause::Where);
    assert!(reasons[0].message.starts_with("The caller's address is not known"));
    assert!(permitted(&Case::of(run()).decide(&compile(&minimal("")))), "without `where` it does not matter");
}

fn opening(when: &str, times: &[(&str, bool)]) {
    let policy = compile(&minimal(when));
    for (time, open) in times {
        let decision = Case::of(run()).at(time).decide(&policy);
        assert_eq!(permitted(&decision), *open, "{time}: {decision:?}");
    }
}

#[test]
fn hours_count_on_the_clock_of_the_zone() {
    opening(
        "when:\n  hours: '01:00-05:00'\n  timezone: Europe/Paris\n  days: [mon]\n",
        &[
            ("2026-11-22T23:59:59Z", false), // Monday 00:59:59
            ("2026-11-23T00:00:00Z", true),
            ("2026-11-23T03:59:59.999Z", true),
            ("2026-11-23T04:00:00Z", false),
            ("2026-11-24T01:00:00Z", false), // Tuesday
            ("2026-07-06T03:00:00Z", false), // in summer 05:00
            ("2026-07-05T23:00:00Z", true),  // in summer Monday 01:00
        ],
    );
}

#[test]
fn hours_that_pass_midnight_belong_to_the_day_on_which_they_begin() {
    opening(
        "when:\n  hours: '22:00-06:00'\n  days: [fri]\n",
        &[
            ("2026-11-27T21:59:59Z", false),
            ("2026-11-27T22:00:00Z", true),
            ("2026-11-28T05:59:00Z", true),
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-28T22:00:00Z", false),
            ("2026-11-27T05:00:00Z", false), // Friday morning is Thursday's night
        ],
    );
    opening(
        "when:\n  hours: '22:00-06:00'\n",
        &[("2026-11-27T23:00:00Z", true), ("2026-11-28T00:00:00Z", true), ("2026-11-28T12:00:00Z", false)],
    );
    opening(
        "when:\n  hours: '18:00-00:00'\n",
        &[("2026-11-27T23:59:00Z", true), ("2026-11-28T00:00:00Z", false)],
    );
}

#[test]
fn skipped_minutes_do_not_open_and_repeated_ones_open_twice() {
    // On 29 March 2026 Paris goes from 01:59:59 to 03:00, on 25 October from 02:59:59 back to 02:00.
    let when = "when:\n  hours: '02:15-02:45'\n  timezone: Europe/Paris\n";
    opening(
        when,
        &[
            ("2026-03-29T00:30:00Z", false), // 01:30
            ("2026-03-29T01:30:00Z", false), // 03:30
            ("2026-10-25T00:30:00Z", true),  // 02:30, first
            ("2026-10-25T01:00:00Z", false), // 02:00, second
            ("2026-10-25T01:30:00Z", true),  // 02:30, second
        ],
    );
}

#[test]
fn days_alone_open_the_whole_day() {
    opening(
        "when:\n  timezone: Asia/Tokyo\n  days: [sat, sun]\n",
        &[("2026-11-27T15:00:00Z", true), ("2026-11-27T14:59:59Z", false), ("2026-11-29T14:59:59Z", true)],
    );
}

#[test]
fn a_closed_policy_says_when_it_opens() {
    let policy = compile(
        &minimal("when:\n  hours: '01:00-05:00'\n  timezone: Europe/Paris\n  days: [mon, tue]\n")
            .replace("name: p", "name: finance-data-publish"),
    );
    let (named, reasons) = denial(Case::of(run()).at("2026-11-23T05:10:00Z").decide(&policy));
    assert!(named);
    assert_eq!(
        reasons,
        [Reason {
            rule: "finance-data-publish#when".into(),
            clause: Clause::When,
            message:
                "It is 06:10 on mon in Europe/Paris; finance-data-publish is open 01:00-05:00 on mon, tue."
                    .into(),
            remedy: "Wait until it is open, or have `when` widened.".into(),
        }]
    );
}

#[test]
fn no_lifetime_passes_the_ceiling() {
    let policy = compile(&minimal("when: {max_ttl: 30m}\n"));
    let ttl = |ttl| Case { ttl, ..Case::of(run()) }.decide(&policy);
    assert!(permitted(&ttl(SignedDuration::from_mins(30))));
    assert!(permitted(&ttl(SignedDuration::from_secs(1))));
    for bad in [
        SignedDuration::from_secs(1801),
        SignedDuration::new(1800, 1),
        SignedDuration::ZERO,
        SignedDuration::from_secs(-1),
        SignedDuration::MAX,
        SignedDuration::MIN,
    ] {
        assert_eq!(clauses(ttl(bad)), [Clause::When], "{bad:?}");
    }
    let (_, reasons) = denial(ttl(SignedDuration::from_hours(1)));
    assert_eq!(reasons[0].rule, "p#max_ttl");
    assert_eq!(reasons[0].message, "A lifetime of 1h was asked for; p allows 30m.");
}

fn approval(required_for: &str) -> Policy {
    compile(&minimal(&format!(
        "approval:\n  required_for: {required_for}\n  approvers: {{groups: [finance-admins], people: [staff/a]}}\n"
    )))
}

#[test]
fn an_approval_is_wanted_and_suffices() {
    let policy = approval("{run_types: [manual], tasks: ['t*']}");
    let manual = run_with(|run| run.run_type = Some("manual".parse().unwrap()));
    assert!(permitted(&Case::of(run()).decide(&policy)), "a scheduled run needs none");
    let case = Case::of(manual.clone());
    assert_eq!(case.decide(&policy), Decision::NeedsGrant { rules: vec!["p#approval".into()] });
    assert!(permitted(&Case { approved: true, ..case }.decide(&policy)));
    let other_task = Run { task_id: "u".parse().unwrap(), ..manual };
    assert!(permitted(&Case::of(other_task).decide(&policy)), "every key has to match");
    let needs = Case::of(run()).decide(&approval("always"));
    assert_eq!(needs, Decision::NeedsGrant { rules: vec!["p#approval".into()] });
}

#[test]
fn a_run_that_hides_its_type_needs_the_approval() {
    let hidden = run_with(|run| run.run_type = None);
    let decision = Case::of(hidden).decide(&approval("{run_types: [manual]}"));
    assert!(matches!(decision, Decision::NeedsGrant { .. }), "{decision:?}");
}

#[test]
fn nobody_is_asked_to_approve_what_would_be_denied_anyway() {
    let policy = compile(&minimal(
        "where: {networks: [10.0.0.0/8]}\napproval:\n  required_for: always\n  approvers: {groups: [g]}\n",
    ));
    let (named, reasons) = denial(Case::of(run()).from("192.0.2.1").decide(&policy));
    assert!(named);
    assert_eq!(reasons.iter().map(|r| r.clause).collect::<Vec<_>>(), [Clause::Where, Clause::Approval]);
    assert_eq!(reasons[1].remedy, "Ask a member of g to approve it.");
    let unnamed = run_with(|run| run.dag_id = "e".parse().unwrap());
    assert!(!denial(Case::of(unnamed).from("10.0.0.1").decide(&policy)).0);
    let long = Case { ttl: SignedDuration::from_hours(2), ..Case::of(run()).from("10.0.0.1") };
    assert_eq!(clauses(long.decide(&policy)), [Clause::When, Clause::Approval]);
}

#[test]
fn approvers_are_groups_and_people_by_issuer_and_subject() {
    let policy = approval("always");
    let approvers = policy.approval().unwrap().approvers();
    assert_eq!(approvers.groups().collect::<Vec<_>>(), ["finance-admins"]);
    assert_eq!(approvers.people().collect::<Vec<_>>(), ["staff/a"]);
}

#[test]
fn every_clause_that_denies_is_told() {
    let policy =
        compile(&minimal("where: {networks: [10.0.0.0/8]}\nwhen: {hours: '00:00-01:00', max_ttl: 5m}\n"));
    let run = run_with(|run| run.attestation = Attestation::Kubernetes);
    let (named, reasons) = denial(Case::of(run).from("192.0.2.1").decide(&policy));
    assert!(named);
    let rules: Vec<_> = reasons.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!(rules, ["p#attestation", "p#where", "p#when", "p#max_ttl"]);
    assert!(reasons.iter().all(|r| !r.message.is_empty() && !r.remedy.is_empty()));
}

#[test]
fn hostile_claims_are_inert() {
    let policy = who("teams: [a]");
    let hostile = [
        "\" || true || \"",
        "*",
        "\\\"",
        "d\"); permit(principal,action,resource); //",
        "\u{202e}d",
        "?principal",
    ];
    for text in hostile {
        let run = run_with(|run| {
            run.triggering_user = Some(text.to_owned());
            run.tags = [text.to_owned()].into();
        });
        assert_eq!(clauses(Case::of(run).decide(&policy)), [Clause::Who], "{text}");
    }
    // A wildcard in a claim is a character, not a pattern: here it cannot even become an identifier.
    assert!("finance_*".parse::<crate::principal::Ident>().is_err());
}

#[test]
fn a_time_that_cedar_cannot_hold_denies() {
    let case = Case::of(run()).at("-000044-03-15T00:00:00Z");
    let (named, reasons) = denial(case.decide(&compile(&minimal(""))));
    assert!(!named);
    assert_eq!(reasons[0].clause, Clause::Error);
}
