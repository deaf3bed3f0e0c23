//! A record as an event for somebody else's system: what every format says of it.

use cortex_core::record::target;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::notify::person;
use crate::store::streams::Leaf;

/// A record on its way out.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Where it is in the log.
    pub(super) leaf: &'a Leaf,
    /// The record as readers are shown it: JSON.
    pub(super) shown: &'a [u8],
    record: Map<String, Value>,
    /// What kind of record it is.
    pub(super) kind: String,
    /// When it was, by the replica that wrote it.
    pub(super) at: Timestamp,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// As it was to go.
    Success,
    /// It was refused, or went wrong.
    Failure,
    /// Nobody knows, or nobody knows yet.
    Unknown,
}

/// How much somebody should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// It is as it is every day.
    Informational,
    /// Somebody was refused.
    Low,
    /// Somebody stepped in.
    Medium,
    /// Somebody has to look.
    High,
}

impl<'a> Event<'a> {
    /// Reads a leaf of the log, and the record as readers are shown it: with names in the place of commitments.
    pub(super) fn read(leaf: &'a Leaf, shown: &'a [u8]) -> Result<Self, String> {
        let unreadable = || format!("the record at {} of {} cannot be read", leaf.index, leaf.origin);
        let record: Map<String, Value> = serde_json::from_slice(shown).map_err(|_| unreadable())?;
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let kind = text("kind").ok_or_else(unreadable)?.to_owned();
        let at = text("at").and_then(|at| at.parse().ok()).ok_or_else(unreadable)?;
        Ok(Self { leaf, shown, record, kind, at })
    }

    /// The record's id: the same at each delivery.
    pub(super) fn id(&self) -> &str {
        self.text(&["/id"]).unwrap_or_default()
    }

    /// The record whole, with names in the place of commitments.
    pub(super) fn record(&self) -> &Map<String, Value> {
        &self.record
    }

    /// The first of these JSON pointers that leads to a text.
    pub(super) fn text(&self, pointers: &[&str]) -> Option<&str> {
        pointers.iter().find_map(|pointer| self.value(pointer)?.as_str())
    }

    /// What a JSON pointer leads to.
    pub(super) fn value(&self, pointer: &str) -> Option<&Value> {
        let (first, rest) = match pointer.get(1..)?.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (pointer.get(1..)?, None),
        };
        let value = self.record.get(first)?;
        rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
    }

    /// Who did it, or asked for it, as principal.
    pub(super) fn who(&self) -> Option<String> {
        ["/subject", "/by", "/principal", "/person"].iter().find_map(|pointer| {
            let value = self.value(pointer).filter(|value| !value.is_null())?;
            person(value)
        })
    }

    /// The DAG, the run and the task, as far as it is about one.
    pub(super) fn run(&self) -> Option<String> {
        let part = |name: &str| {
            let own = ["/", "/principal/", "/request/", "/scope/"].map(|place| format!("{place}{name}"));
            own.iter().find_map(|pointer| self.text(&[pointer]))
        };
        let parts = [part("dag_id"), part("run_id"), part("task_id")];
        parts[0]?;
        Some(parts.into_iter().flatten().collect::<Vec<_>>().join("/"))
    }

    /// What was accessed, where it is an issuance.
    pub(super) fn target(&self) -> Option<String> {
        self.value("/scope").and_then(target)
    }

    /// The caller's address.
    pub(super) fn source(&self) -> Option<&str> {
        self.text(&["/caller/source", "/source"])
    }

    /// The issuance, the decision, the grant or whatever else it is about.
    pub(super) fn about(&self) -> Option<&str> {
        let ids =
            ["issuance_id", "decision_id", "grant_id", "freeze_id", "revocation_id", "session_id", "kid"];
        ids.iter().find_map(|id| self.record.get(*id)?.as_str())
    }

    /// Why, as a short code or in somebody's words.
    pub(super) fn reason(&self) -> Option<&str> {
        self.text(&["/code", "/outcome/code", "/reason", "/why", "/because", "/comment", "/error"])
    }

    /// How it went.
    pub(super) fn status(&self) -> Status {
        match (self.kind.as_str(), self.text(&["/outcome/outcome"])) {
            ("issuance.intent", _) | (_, Some("indeterminate")) => Status::Unknown,
            ("denial" | "denials" | "session.refused" | "revocation.failing" | "notification.dead", _)
            | (_, Some("failed")) => Status::Failure,
            _ => Status::Success,
        }
    }

    /// How much somebody should care.
    pub(super) fn severity(&self) -> Severity {
        let flag = |pointer: &str| self.value(pointer).and_then(Value::as_bool).unwrap_or_default();
        if flag("/break_glass") || flag("/grant/break_glass") {
            return Severity::High;
        }
        match self.kind.as_str() {
            "revocation.failing" => Severity::High,
            "freeze.set"
            | "freeze.lifted"
            | "revocation.requested"
            | "person.disabled"
            | "guardrails.applied"
            | "notification.dead" => Severity::Medium,
            _ if self.status() == Status::Failure => Severity::Low,
            _ => Severity::Informational,
        }
    }

    /// What happened, in a few words.
    pub(super) fn title(&self) -> &'static str {
        match self.kind.as_str() {
            "issuance.intent" => "Credential requested from the provider",
            "issuance.issued" => "Credential issued",
            "issuance.outcome" => "Issuance ended",
            "denial" => "Access denied",
            "denials" => "Unverified callers refused",
            "policy.applied" => "Policy applied",
            "policy.retired" => "Policy retired",
            "guardrails.applied" => "Guardrail changed",
            "grant.requested" => "Approval requested",
            "preapproval.made" => "Approval of scheduled runs requested",
            "grant.decided" => "Approval decided",
            "grant.withdrawn" => "Approval withdrawn",
            "grant.expired" => "Approval expired",
            "grant.voided" => "Approval voided",
            "preapproval.ended" => "Approval of scheduled runs ended",
            "notification.dead" => "Notification given up",
            "freeze.set" => "Freeze set",
            "freeze.lifted" => "Freeze lifted",
            "revocation.requested" => "Revocation requested",
            "revocation.failing" => "Revocation failing",
            "revocation.settled" => "Revocation settled",
            "session.started" => "Signed in",
            "session.ended" => "Signed out",
            "session.refused" => "Sign-in refused",
            "person.disabled" => "Person disabled",
            "person.enabled" => "Person enabled",
            "key.created" => "Signing key created",
            "key.rotated" => "Signing key rotated",
            "key.retired" => "Signing key retired",
            "log.chain_opened" => "Log writer enrolled",
            "log.shard_opened" => "Log tree opened",
            "log.hold_set" => "Legal hold set",
            "log.hold_lifted" => "Legal hold lifted",
            "log.archived" => "Old records archived",
            "log.dropped" => "Archived records dropped",
            _ => "Recorded",
        }
    }
}
