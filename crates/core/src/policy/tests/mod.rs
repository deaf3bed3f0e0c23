//! What the policy engine promises.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::*;
use crate::decision::{Clause, Decision, Reason};
use crate::principal::{Attestation, Run};

mod clauses;
mod documents;
mod examples;
mod faults;
mod fuzz;
mod guardrails;
mod property;
mod refusals;
mod size;
mod suggest;

/// Providers for tests: a target has one key, and what it holds is the resource.
pub(super) struct Tiny;

impl Targets for Tiny {
    fn names(&self) -> Vec<&str> {
        vec!["aws", "bigquery", "snowflake", "api"]
    }

    fn check(&self, provider: &str, target: &Value) -> Result<String, Vec<TargetProblem>> {
        let problem = |pointer: &str, message: &str| {
            vec![TargetProblem {
                pointer: pointer.into(),
                message: message.into(),
                remedy: "correct it".into(),
            }]
        };
        let object = target.as_object().ok_or_else(|| problem("", "the target is no mapping"))?;
        if let Some(bad) = object.keys().find(|key| key.as_str() == "rolle") {
            return Err(problem(&format!("/{bad}"), "unknown key"));
        }
        let bad_resource = target.pointer("/allow/1/resources/0").is_some_and(|value| value == "*");
        if bad_resource {
            return Err(problem("/allow/1/resources/0", "everything"));
        }
        let key = match provider {
            "aws" | "snowflake" => "role",
            "bigquery" => "project",
            _ => "audience",
        };
        match object.get(key).and_then(Value::as_str) {
            Some(value) => Ok(format!("{provider}:{value}")),
            None => Err(problem(&format!("/{key}"), "missing")),
        }
    }
}

pub(super) fn compile(source: &str) -> Policy {
    Policy::compile(source, &Tiny).unwrap_or_else(|problems| panic!("{problems:#?}\n{source}"))
}

/// The smallest document, with `more` after it.
pub(super) fn minimal(more: &str) -> String {
    format!("name: p\nwho:\n  airflow: prod\n  dags: [d]\nwhat:\n  aws: {{role: r}}\n{more}")
}

pub(super) fn run() -> Run {
    Run {
        issuer: "prod".parse().unwrap(),
        dag_id: "d".parse().unwrap(),
        run_id: "scheduled__2026-11-23T00:00:00+00:00".parse().unwrap(),
        task_id: "t".parse().unwrap(),
        map_index: None,
        try_number: 1,
        run_type: Some("scheduled".parse().unwrap()),
        triggered_by: None,
        triggering_user: None,
        team: None,
        bundle: None,
        tags: std::collections::BTreeSet::new(),
        attestation: Attestation::Issuer,
    }
}

/// An ask and everything that it borrows.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) principal: Principal,
    pub(super) provider: String,
    pub(super) source_ip: Option<IpAddr>,
    pub(super) now: Timestamp,
    pub(super) ttl: SignedDuration,
    pub(super) approved: bool,
    pub(super) break_glass: bool,
}

impl Case {
    pub(super) fn of(run: Run) -> Self {
        Self {
            principal: Principal::Run(run),
            provider: "aws".into(),
            source_ip: None,
            now: "2026-11-23T02:00:00Z".parse().unwrap(),
            ttl: SignedDuration::from_mins(15),
            approved: false,
            break_glass: false,
        }
    }

    pub(super) fn at(mut self, now: &str) -> Self {
        self.now = now.parse().unwrap();
        self
    }

    pub(super) fn from(mut self, ip: &str) -> Self {
        self.source_ip = Some(ip.parse().unwrap());
        self
    }

    pub(super) fn ask(&self) -> Ask<'_> {
        Ask {
            principal: &self.principal,
            provider: &self.provider,
            source_ip: self.source_ip,
            now: self.now,
            ttl: self.ttl,
            approved: self.approved,
            break_glass: self.break_glass,
        }
    }

    pub(super) fn decide(&self, policy: &Policy) -> Decision {
        policy.decide(&Guardrails::none(), &self.ask())
    }
}

pub(super) fn run_with(change: impl FnOnce(&mut Run)) -> Run {
    let mut run = run();
    change(&mut run);
    run
}

/// The reasons of a denial, and whether the run was named.
pub(super) fn denial(decision: Decision) -> (bool, Vec<Reason>) {
    match decision {
        Decision::Deny { named, reasons } => (named, reasons),
        other => panic!("not denied: {other:?}"),
    }
}

pub(super) fn clauses(decision: Decision) -> Vec<Clause> {
    denial(decision).1.into_iter().map(|reason| reason.clause).collect()
}

pub(super) fn permitted(decision: &Decision) -> bool {
    matches!(decision, Decision::Permit { .. })
}
