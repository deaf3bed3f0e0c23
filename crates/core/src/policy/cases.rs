//! Tests of policies: tables of runs and what the policies should answer, kept beside them as `*.test.yaml`.
//!
//! ```yaml
//! policy: finance-data-publish          # defaults for every case, each of which may say otherwise
//! target: aws
//! time: 2026-11-23T02:00:00Z
//! network: 10.1.2.3
//! run: {issuer: prod, dag_id: finance_publish, task_id: publish_mart, run_type: scheduled}
//! cases:
//!   - name: the nightly run publishes
//!     expect: permit
//!   - name: a run by hand waits for an approval
//!     run: {run_type: manual}
//!     expect: needs_grant
//!     rules: [finance-data-publish#approval]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::fields::{Field, Fields, boolean, nearest, shortened};
use super::problem::{Fault, Position, Problem, Problems};
use super::yaml::{self, Kind, Node};
use super::{Ask, Guardrails, Policy};
use crate::decision::Decision;
use crate::ids::{InvalidId, IssuerName, PolicyName};
use crate::principal::{Attestation, Ident, Principal, Run};

/// The most cases in one file.
const MAX_CASES: usize = 512;

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A permit.
    Permit,
    /// An approval is wanted.
    NeedsGrant,
    /// A denial.
    Deny,
}

impl Expected {
    const ALL: [(&'static str, Self); 3] =
        [("permit", Self::Permit), ("needs_grant", Self::NeedsGrant), ("deny", Self::Deny)];

    fn parse(text: &str) -> Result<Self, Fault> {
        Self::ALL.iter().find(|(word, _)| *word == text).map(|(_, expected)| *expected).ok_or_else(|| {
            let words = Self::ALL.map(|(word, _)| word);
            Fault::new(format!("{:?} is no decision", shortened(text)), nearest(text, &words))
        })
    }

    fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Permit { .. } => Self::Permit,
            Decision::NeedsGrant { .. } => Self::NeedsGrant,
            Decision::Deny { .. } => Self::Deny,
        }
    }

    /// The word in test files.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, expected)| *expected == self).map_or("", |(word, _)| word)
    }
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseOutcome {
    /// The case's name.
    pub name: String,
    /// The line of the case in the file, from 1.
    pub line: usize,
    /// The policy that was asked.
    pub policy: PolicyName,
    /// What it answered.
    pub decision: Decision,
    /// Why the case failed, in one sentence; none if it passed.
    pub failure: Option<String>,
}

impl CaseOutcome {
    /// Whether the policy answered what the case expects.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// Runs the cases of one file. The error is every fault of the file itself, in the order of the text; a case
/// that fails is an outcome, not an error.
pub fn run_tests(
    source: &str,
    policies: &BTreeMap<PolicyName, Policy>,
    guardrails: &Guardrails,
) -> Result<Vec<CaseOutcome>, Vec<Problem>> {
    let mut problems = Problems::default();
    let cases = yaml::parse(source, &mut problems).and_then(|node| file(&node, policies, &mut problems));
    let cases = problems.or(cases)?;
    Ok(cases.iter().map(|case| case.outcome(guardrails)).collect())
}

/// One case, read.
struct Case<'p> {
    name: String,
    at: Position,
    policy: &'p Policy,
    principal: Principal,
    target: String,
    time: Timestamp,
    network: Option<IpAddr>,
    ttl: SignedDuration,
    approved: bool,
    break_glass: bool,
    expect: Expected,
    rules: Option<BTreeSet<String>>,
}

impl Case<'_> {
    fn outcome(&self, guardrails: &Guardrails) -> CaseOutcome {
        let ask = Ask {
            principal: &self.principal,
            provider: &self.target,
            source_ip: self.network,
            now: self.time,
            ttl: self.ttl,
            approved: self.approved,
            break_glass: self.break_glass,
        };
        let decision = self.policy.decide(guardrails, &ask);
        CaseOutcome {
            name: self.name.clone(),
            line: self.at.line,
            policy: self.policy.name().clone(),
            failure: self.failure(&decision),
            decision,
        }
    }

    fn failure(&self, decision: &Decision) -> Option<String> {
        let decided: BTreeSet<String> = match decision {
            Decision::Permit { rules } | Decision::NeedsGrant { rules } => rules.iter().cloned().collect(),
            Decision::Deny { reasons, .. } => reasons.iter().map(|reason| reason.rule.clone()).collect(),
        };
        let list = |rules: &BTreeSet<String>| rules.iter().cloned().collect::<Vec<_>>().join(", ");
        let got = Expected::of(decision);
        if got != self.expect {
            let (want, got) = (self.expect.as_str(), got.as_str());
            return Some(format!("expected {want}, decided {got} by {}", list(&decided)));
        }
        let wanted = self.rules.as_ref().filter(|rules| **rules != decided)?;
        Some(format!("expected the rules {}, decided by {}", list(wanted), list(&decided)))
    }
}

fn file<'p>(
    node: &Node,
    policies: &'p BTreeMap<PolicyName, Policy>,
    problems: &mut Problems,
) -> Option<Vec<Case<'p>>> {
    let mut defaults = Fields::of(node, Position::START, "the test file", problems)?;
    let field = defaults.require("cases", problems);
    let Some(Kind::List(items)) = field.map(|field| &field.node.kind) else {
        let at = field.map_or(node.at, |field| field.at);
        problems.add(at, "`cases` is not a list of cases", "write `- name: ...` lines under `cases:`");
        return None;
    };
    if items.is_empty() || items.len() > MAX_CASES {
        problems.add(
            node.at,
            format!("`cases` has {} entries", items.len()),
            format!("write 1 to {MAX_CASES}"),
        );
        return None;
    }
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        let Some(mut fields) = Fields::of(item, item.at, "the case", problems) else {
            continue;
        };
        let mut layers = Layers { case: &mut fields, defaults: &mut defaults, at: item.at };
        out.extend(case(&mut layers, policies, problems));
        fields.finish(problems);
    }
    defaults.finish(problems);
    Some(out)
}

/// A case over the file's defaults.
struct Layers<'l, 'n> {
    case: &'l mut Fields<'n>,
    defaults: &'l mut Fields<'n>,
    at: Position,
}

impl<'n> Layers<'_, 'n> {
    fn get(&mut self, key: &'static str) -> Option<Field<'n>> {
        let default = self.defaults.get(key);
        self.case.get(key).or(default)
    }

    fn require(&mut self, key: &'static str, problems: &mut Problems) -> Option<Field<'n>> {
        let field = self.get(key);
        if field.is_none() {
            problems.add(
                self.at,
                format!("the case has no `{key}`"),
                format!("add `{key}:` here or above `cases`"),
            );
        }
        field
    }

    fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
        problems: &mut Problems,
    ) -> Option<T> {
        self.require(key, problems)?.parse(parse, problems)
    }
}

fn case<'p>(
    layers: &mut Layers<'_, '_>,
    policies: &'p BTreeMap<PolicyName, Policy>,
    problems: &mut Problems,
) -> Option<Case<'p>> {
    let at = layers.at;
    let name = layers.case.require("name", problems).and_then(|f| f.text(problems)).map(str::to_owned);
    let policy = layers.required("policy", |text| find(text, policies), problems);
    let target = layers.required("target", |text| Ok(text.to_owned()), problems);
    let time = layers.required("time", timestamp, problems);
    let network = layers.get("network").map_or(Some(None), |f| f.parse(address, problems).map(Some));
    let ttl = layers.get("ttl").map_or(Some(None), |f| f.parse(super::time::duration, problems).map(Some));
    let approved = layers.get("approved").map_or(Some(false), |f| boolean(f, problems));
    let break_glass = layers.get("break_glass").map_or(Some(false), |f| boolean(f, problems));
    let expect = layers.required("expect", Expected::parse, problems);
    let rules = layers.case.get("rules").map_or(Some(None), |f| {
        f.list(|text| Ok(text.to_owned()), problems).map(|rules| Some(rules.into_iter().collect()))
    });
    let run = run(layers, problems);
    let policy = policy?;
    Some(Case {
        name: name?,
        at,
        policy,
        principal: Principal::Run(run?),
        target: target?,
        time: time?,
        network: network?,
        ttl: ttl?.unwrap_or_else(|| policy.max_ttl()),
        approved: approved?,
        break_glass: break_glass?,
        expect: expect?,
        rules: rules?,
    })
}

fn run(layers: &mut Layers<'_, '_>, problems: &mut Problems) -> Option<Run> {
    let (default, own) = (layers.defaults.get("run"), layers.case.get("run"));
    let at = layers.at;
    let Some(any) = own.or(default) else {
        problems.add(at, "the case has no `run`", "add `run:` here or above `cases`");
        return None;
    };
    let mut defaults = Fields::of(default.unwrap_or(any).node, any.at, "`run`", problems)?;
    let mut case = Fields::of(own.unwrap_or(any).node, any.at, "`run`", problems)?;
    let mut layers = Layers { case: &mut case, defaults: &mut defaults, at };
    let run = claims(&mut layers, problems);
    case.finish(problems);
    if own.is_some() && default.is_some() {
        defaults.finish(problems);
    }
    run
}

fn claims(layers: &mut Layers<'_, '_>, problems: &mut Problems) -> Option<Run> {
    let issuer = layers.required("issuer", id::<IssuerName>, problems);
    let dag_id = layers.required("dag_id", id::<Ident>, problems);
    let task_id = layers.required("task_id", id::<Ident>, problems);
    let run_id = layers.get("run_id").map_or_else(|| id("test").ok(), |f| f.parse(id::<Ident>, problems));
    let mut ident = |key| layers.get(key).map_or(Some(None), |f| f.parse(id::<Ident>, problems).map(Some));
    let run_type = ident("run_type");
    let triggered_by = ident("triggered_by");
    let team = ident("team");
    let bundle = ident("bundle");
    let triggering_user = layers
        .get("triggering_user")
        .map_or(Some(None), |f| f.text(problems).map(|text| Some(text.to_owned())));
    let tags = layers.get("tags").map_or_else(
        || Some(BTreeSet::new()),
        |f| f.list(|text| Ok(text.to_owned()), problems).map(|tags| tags.into_iter().collect()),
    );
    let map_index = layers.get("map_index").map_or(Some(None), |f| number(f, problems).map(Some));
    let try_number = layers.get("try_number").map_or(Some(1), |f| number(f, problems));
    let attestation = layers
        .get("attestation")
        .map_or(Some(Attestation::Issuer), |f| f.parse(super::read::attestation, problems));
    Some(Run {
        issuer: issuer?,
        dag_id: dag_id?,
        run_id: run_id?,
        task_id: task_id?,
        map_index: map_index?,
        try_number: try_number?,
        run_type: run_type?,
        triggered_by: triggered_by?,
        triggering_user: triggering_user?,
        team: team?,
        bundle: bundle?,
        tags: tags?,
        attestation: attestation?,
    })
}

fn find<'p>(text: &str, policies: &'p BTreeMap<PolicyName, Policy>) -> Result<&'p Policy, Fault> {
    policies.iter().find(|(name, _)| name.as_str() == text).map(|(_, policy)| policy).ok_or_else(|| {
        let names: Vec<_> = policies.keys().map(PolicyName::as_str).collect();
        Fault::new(format!("no policy is called {:?}", shortened(text)), nearest(text, &names))
    })
}

fn id<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| {
        Fault::new(format!("{:?} is no identifier", shortened(text)), "write one that Airflow allows")
    })
}

fn timestamp(text: &str) -> Result<Timestamp, Fault> {
    text.parse().map_err(|_| {
        Fault::new(
            format!("{:?} is no time", shortened(text)),
            "write RFC 3339, such as 2026-11-23T02:00:00Z",
        )
    })
}

fn address(text: &str) -> Result<IpAddr, Fault> {
    text.parse()
        .map_err(|_| Fault::new(format!("{:?} is no address", shortened(text)), "write an IP address"))
}

fn number(field: Field<'_>, problems: &mut Problems) -> Option<u32> {
    let number = match &field.node.kind {
        Kind::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    if number.is_none() {
        problems.add(field.at, format!("`{}` is not a whole number", field.key), "write 0, 1, 2 and so on");
    }
    number
}
