//! Cedar's answer and that of an evaluator written apart from it, over generated documents and runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::principal::Ident;

/// A document as the generator makes it, and as the naive evaluator reads it.
#[derive(Debug, Clone)]
pub(super) struct Model {
    issuer: &'static str,
    dags: Vec<&'static str>,
    tasks: Vec<&'static str>,
    run_types: Vec<&'static str>,
    teams: Vec<&'static str>,
    tags: Vec<&'static str>,
    attestation: Vec<&'static str>,
    networks: Vec<&'static str>,
    hours: Option<(u16, u16)>,
    zone: &'static str,
    days: Vec<&'static str>,
    max_ttl: i64,
    approval: Option<(Vec<&'static str>, Vec<&'static str>)>,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const PATTERNS: [&str; 8] = ["a", "b", "a*", "a*b", "ab*a", "b*b*", "a_*", "c-1.2~3:4+5"];
const IDS: [&str; 12] = ["a", "b", "ab", "aab", "ba", "bb", "abba", "a_b", "A", "a.b", "bbb", "c-1.2~3:4+5"];
const RUN_TYPES: [&str; 4] = ["scheduled", "manual", "backfill", "asset_triggered"];
const ZONES: [&str; 4] = ["UTC", "Europe/Paris", "America/New_York", "Pacific/Apia"];
const NETWORKS: [&str; 4] = ["10.0.0.0/8", "192.0.2.0/30", "fd00::/8", "2001:db8::/33"];
const ADDRESSES: [&str; 8] = [
    "10.0.0.1",
    "11.0.0.1",
    "192.0.2.3",
    "192.0.2.4",
    "fd01::1",
    "2001:db8:8000::1",
    "2001:db8::1",
    "::ffff:10.9.9.9",
];
const WAYS: [&str; 3] = ["issuer", "kubernetes", "verified-claim"];

pub(super) fn model() -> impl Strategy<Value = Model> {
    let some = |from: &'static [&'static str], least: usize| subsequence(from, least..=3.min(from.len()));
    let hours = (0..1440_u16, 0..1440_u16).prop_filter("equal ends", |(open, close)| open != close);
    let who = (
        select(vec!["prod", "prod", "staging"]),
        some(&PATTERNS, 1),
        some(&PATTERNS, 0),
        prop_oneof![Just(vec![]), some(&RUN_TYPES, 1)],
        prop_oneof![3 => Just(vec![]), 1 => some(&PATTERNS, 1)],
        prop_oneof![3 => Just(vec![]), 1 => some(&IDS, 1)],
        some(&WAYS, 1),
    );
    let approval =
        (prop_oneof![Just(vec![]), some(&RUN_TYPES, 1)], prop_oneof![Just(vec![]), some(&PATTERNS, 1)]);
    let rest = (
        prop_oneof![Just(vec![]), some(&NETWORKS, 1)],
        option::of(hours),
        select(ZONES.to_vec()),
        prop_oneof![Just(vec![]), subsequence(&DAYS[..], 1..=7)],
        60..=3600_i64,
        option::of(approval),
    );
    (who, rest).prop_map(|(who, rest)| {
        let (issuer, dags, tasks, run_types, teams, tags, attestation) = who;
        let (networks, hours, zone, weekdays, max_ttl, approval) = rest;
        Model {
            issuer,
            dags,
            tasks,
            run_types,
            teams,
            tags,
            attestation,
            networks,
            hours,
            zone,
            days: weekdays,
            max_ttl,
            approval,
        }
    })
}

pub(super) fn asked() -> impl Strategy<Value = Case> {
    let id = || select(IDS.to_vec());
    let run = (
        select(vec!["prod", "prod", "staging"]),
        id(),
        id(),
        option::weighted(0.8, select(RUN_TYPES.to_vec())),
        option::of(id()),
        subsequence(&IDS[..], 0..3),
        select(vec![Attestation::Issuer, Attestation::Kubernetes, Attestation::VerifiedClaim]),
    );
    let rest = (
        option::weighted(0.9, select(ADDRESSES.to_vec())),
        // Two years around both changes of the clock.
        1_767_225_600_i64..1_830_297_600,
        0..4000_i64,
        0..1_000_000_000_i32,
        any::<bool>(),
    );
    (run, rest).prop_map(|(run, (ip, now, ttl, nanos, approved))| {
        let (issuer, dag, task, run_type, team, tags, attestation) = run;
        let run = run_with(|run| {
            run.issuer = issuer.parse().unwrap();
            run.dag_id = dag.parse().unwrap();
            run.task_id = task.parse().unwrap();
            run.run_type = run_type.map(|text| text.parse().unwrap());
            run.team = team.map(|text| text.parse().unwrap());
            run.tags = tags.into_iter().map(str::to_owned).collect();
            run.attestation = attestation;
        });
        Case {
            source_ip: ip.map(|ip| ip.parse().unwrap()),
            now: Timestamp::from_second(now).unwrap(),
            ttl: SignedDuration::new(ttl, nanos),
            approved,
            ..Case::of(run)
        }
    })
}

pub(super) fn document(model: &Model) -> String {
    let list = |items: &[&str]| {
        let quoted: Vec<_> = items.iter().map(|item| format!("'{item}'")).collect();
        format!("[{}]", quoted.join(", "))
    };
    let mut out = format!("name: p\nwho:\n  airflow: {}\n  dags: {}\n", model.issuer, list(&model.dags));
    let mut line = |indent: &str, key: &str, items: &[&str]| {
        if !items.is_empty() {
            writeln!(out, "{indent}{key}: {}", list(items)).unwrap();
        }
    };
    line("  ", "tasks", &model.tasks);
    line("  ", "run_types", &model.run_types);
    line("  ", "teams", &model.teams);
    line("  ", "tags", &model.tags);
    line("  ", "attestation", &model.attestation);
    out += "what: {aws: {role: r}}\n";
    if !model.networks.is_empty() {
        writeln!(out, "where: {{networks: {}}}", list(&model.networks)).unwrap();
    }
    writeln!(out, "when:\n  max_ttl: {}s", model.max_ttl).unwrap();
    if let Some((open, close)) = model.hours {
        let clock = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
        writeln!(out, "  hours: '{}-{}'", clock(open), clock(close)).unwrap();
    }
    if !model.days.is_empty() {
        writeln!(out, "  days: {}", list(&model.days)).unwrap();
    }
    if model.hours.is_some() || !model.days.is_empty() {
        writeln!(out, "  timezone: {}", model.zone).unwrap();
    }
    if let Some((run_types, dags)) = &model.approval {
        let mut keys = Vec::new();
        if !run_types.is_empty() {
            keys.push(format!("run_types: {}", list(run_types)));
        }
        if !dags.is_empty() {
            keys.push(format!("dags: {}", list(dags)));
        }
        let required = if keys.is_empty() { "always".to_owned() } else { format!("{{{}}}", keys.join(", ")) };
        writeln!(out, "approval: {{required_for: {required}, approvers: {{groups: [g]}}}}").unwrap();
    }
    out
}

/// Whether `text` matches `pattern`, one character at a time.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        (Some((p, rest)), Some((t, tail))) => p == t && matches(rest, tail),
        _ => false,
    }
}

fn any_matches(patterns: &[&str], text: Option<&str>) -> bool {
    patterns.is_empty()
        || text.is_some_and(|text| patterns.iter().any(|p| matches(p.as_bytes(), text.as_bytes())))
}

fn named(model: &Model, run: &Run) -> bool {
    run.issuer.as_str() == model.issuer
        && any_matches(&model.dags, Some(run.dag_id.as_str()))
        && any_matches(&model.tasks, Some(run.task_id.as_str()))
        && any_matches(&model.run_types, run.run_type.as_ref().map(Ident::as_str))
        && any_matches(&model.teams, run.team.as_ref().map(Ident::as_str))
        && (model.tags.is_empty() || model.tags.iter().any(|tag| run.tags.contains(*tag)))
}

/// Walks back minute by minute to the opening, rather than comparing ends.
fn open(model: &Model, now: Timestamp) -> bool {
    let local = TimeZone::get(model.zone).unwrap().to_datetime(now);
    let on = |day: Weekday| {
        let index = usize::try_from(day.to_monday_zero_offset()).unwrap();
        model.days.is_empty() || model.days.contains(&DAYS[index])
    };
    let Some((open, close)) = model.hours else {
        return on(local.weekday());
    };
    let mut minute = u16::try_from(local.hour()).unwrap() * 60 + u16::try_from(local.minute()).unwrap();
    let mut day = local.weekday();
    if minute == close {
        return false;
    }
    while minute != open {
        (minute, day) = if minute == 0 { (1439, day.previous()) } else { (minute - 1, day) };
        if minute == close {
            return false;
        }
    }
    on(day)
}

/// The rules that the naive evaluator says deny.
fn expected(model: &Model, case: &Case) -> BTreeSet<&'static str> {
    let run = case.principal.as_run().unwrap();
    let mut rules = BTreeSet::new();
    let mut deny = |when: bool, rule| {
        if when {
            rules.insert(rule);
        }
    };
    deny(!named(model, run), "p#who");
    deny(!model.attestation.contains(&run.attestation.as_str()), "p#attestation");
    let inside = case.source_ip.is_some_and(|ip| {
        let ip = ip.to_canonical();
        model.networks.iter().any(|net| net.parse::<ipnet::IpNet>().unwrap().contains(&ip))
    });
    deny(!model.networks.is_empty() && !inside, "p#where");
    deny(!open(model, case.now), "p#when");
    let ttl = case.ttl.as_nanos();
    deny(ttl <= 0 || ttl > i128::from(model.max_ttl) * 1_000_000_000, "p#max_ttl");
    let wanted = model.approval.as_ref().is_some_and(|(run_types, dags)| {
        let hidden = run.run_type.is_none();
        (hidden || any_matches(run_types, run.run_type.as_ref().map(Ident::as_str)))
            && any_matches(dags, Some(run.dag_id.as_str()))
    });
    deny(wanted && !case.approved, "p#approval");
    rules
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cedar_and_a_naive_evaluator_agree(model in model(), case in asked()) {
        let source = document(&model);
        let policy = compile(&source);
        let expected = expected(&model, &case);
        let approval: BTreeSet<_> = ["p#approval"].into();
        match case.decide(&policy) {
            Decision::Permit { rules } => {
                prop_assert!(expected.is_empty(), "{source}\n{case:?}\n{expected:?}");
                prop_assert_eq!(rules, ["p#who"]);
            }
            Decision::NeedsGrant { .. } => prop_assert_eq!(&expected, &approval, "{}\n{:?}", source, case),
            Decision::Deny { named, reasons } => {
                prop_assert_ne!(&expected, &approval);
                let rules: BTreeSet<_> = reasons.iter().map(|reason| reason.rule.as_str()).collect();
                prop_assert_eq!(rules, expected.clone(), "{}\n{:?}", source, case);
                prop_assert_eq!(named, !expected.contains("p#who"));
            }
        }
    }

    #[test]
    fn who_is_named_does_not_depend_on_anything_else(model in model(), case in asked(), ttl in 1..50_000_i64) {
        let policy = compile(&document(&model));
        let named = |case: &Case| !matches!(case.decide(&policy), Decision::Deny { named: false, .. });
        let other = Case { ttl: SignedDuration::from_secs(ttl), source_ip: None, approved: !case.approved, ..case };
        let run = other.principal.as_run().unwrap();
        prop_assert_eq!(named(&other), self::named(&model, run));
    }
}
