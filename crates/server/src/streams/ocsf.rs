//! The Open Cybersecurity Schema Framework, version 1.3.0. An issuance is an *Authorize Session*, a sign-in an
//! *Authentication*, what people change an *Entity Management*; what fits none of these is a *Base Event*. What has no
//! attribute there is under `unmapped`, whole.

use serde_json::{Value, json};

use super::event::{Event, Severity, Status};
use super::format::place;

const VERSION: &str = "1.3.0";
/// The category of identity and access management.
const IAM: u32 = 3;

/// The class of an event, with what that class wants beside what all have.
enum Class {
    /// 3002: somebody signs in (1) or out (2).
    Authentication { activity: u32 },
    /// 3003: privileges are assigned (1).
    AuthorizeSession,
    /// 3004: something is created (1), updated (3) or deleted (4); or something else is done to it (99).
    EntityManagement { activity: u32, entity: &'static str },
    /// 0: anything.
    Base,
}

fn class(kind: &str) -> Class {
    let entity = |activity, entity| Class::EntityManagement { activity, entity };
    match kind {
        "issuance.intent" | "issuance.issued" | "denial" => Class::AuthorizeSession,
        "session.started" | "session.refused" => Class::Authentication { activity: 1 },
        "session.ended" => Class::Authentication { activity: 2 },
        "issuance.outcome" => entity(3, "issuance"),
        "policy.applied" => entity(3, "policy"),
        "policy.retired" => entity(4, "policy"),
        "guardrails.applied" => entity(3, "guardrail"),
        "grant.requested" | "preapproval.made" => entity(1, "grant"),
        "grant.decided" => entity(3, "grant"),
        "grant.withdrawn" | "grant.expired" | "grant.voided" | "preapproval.ended" => entity(4, "grant"),
        "freeze.set" => entity(1, "freeze"),
        "freeze.lifted" => entity(4, "freeze"),
        "revocation.requested" => entity(1, "revocation"),
        "revocation.settled" | "revocation.failing" => entity(99, "revocation"),
        "person.disabled" | "person.enabled" => entity(3, "person"),
        "key.created" => entity(1, "signing key"),
        "key.rotated" => entity(3, "signing key"),
        "key.retired" => entity(4, "signing key"),
        _ => Class::Base,
    }
}

/// One event.
pub(super) fn event(event: &Event<'_>, public_url: &str) -> Value {
    let class = class(&event.kind);
    let (uid, activity) = match class {
        Class::Authentication { activity } => (3_002, activity),
        Class::AuthorizeSession => (3_003, 1),
        Class::EntityManagement { activity, .. } => (3_004, activity),
        Class::Base => (0, 99),
    };
    let mut out = json!({
        "activity_id": activity,
        "activity_name": event.title(),
        "category_uid": if uid == 0 { 0 } else { IAM },
        "class_uid": uid,
        "type_uid": uid * 100 + activity,
        "time": event.at.as_millisecond(),
        "severity_id": severity(event.severity()),
        "status_id": status(event.status()),
        "message": event.title(),
        "metadata": {
            "version": VERSION,
            "uid": event.id(),
            "event_code": event.kind,
            "log_name": event.leaf.origin,
            "sequence": event.leaf.index,
            "original_time": event.at.to_string(),
            "product": {
                "name": "Cortex",
                "vendor_name": "Cortex",
                "version": event.text(&["/build"]),
                "url_string": public_url,
            },
        },
        "unmapped": { "log": place(event), "record": event.record() },
    });
    if let Some(reason) = event.reason() {
        put(&mut out, "status_detail", json!(reason));
    }
    match class {
        Class::Authentication { .. } => {
            put(&mut out, "user", user(event));
            put(&mut out, "service", json!({ "name": "Cortex" }));
            endpoint(&mut out, event);
        }
        Class::AuthorizeSession => {
            put(&mut out, "user", user(event));
            put(&mut out, "privileges", privileges(event));
            put(&mut out, "session", session(event));
            endpoint(&mut out, event);
        }
        Class::EntityManagement { entity, .. } => {
            put(&mut out, "entity", managed(event, entity));
            put(&mut out, "actor", json!({ "user": user(event) }));
        }
        Class::Base => {}
    }
    out
}

fn severity(severity: Severity) -> u32 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
    }
}

fn status(status: Status) -> u32 {
    match status {
        Status::Unknown => 0,
        Status::Success => 1,
        Status::Failure => 2,
    }
}

fn put(out: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = out {
        fields.insert(name.to_owned(), value);
    }
}

/// A principal. A run and a service are of the type "System", a person is a "User".
fn user(event: &Event<'_>) -> Value {
    let who = event.who().unwrap_or_else(|| "cortex".to_owned());
    let is_person = who.starts_with("person");
    json!({ "uid": who, "name": who, "type_id": if is_person { 1 } else { 3 } })
}

/// What the session may do: what was asked for, where it was denied.
fn privileges(event: &Event<'_>) -> Value {
    let text = |pointer: &str| event.text(&[pointer]).map(str::to_owned);
    let known = [text("/policy"), text("/provider"), event.target()];
    let known: Vec<String> = known.into_iter().flatten().collect();
    if known.is_empty() { json!(["none"]) } else { json!(known) }
}

fn session(event: &Event<'_>) -> Value {
    let time = |pointers: &[&str]| {
        let at = event.text(pointers)?.parse::<jiff::Timestamp>().ok()?;
        Some(at.as_millisecond())
    };
    let mut session = json!({ "uid": event.about(), "created_time": event.at.as_millisecond() });
    if let Some(end) = time(&["/lease/expires_at", "/worst_case_expiry"]) {
        put(&mut session, "expiration_time", json!(end));
    }
    session
}

fn endpoint(out: &mut Value, event: &Event<'_>) {
    if let Some(source) = event.source() {
        put(out, "src_endpoint", json!({ "ip": source }));
    }
}

fn managed(event: &Event<'_>, kind: &str) -> Value {
    let named = event.text(&["/name", "/policy", "/subject", "/provider"]);
    let about = event.about();
    let uid = about.or(named).unwrap_or_else(|| event.id());
    let mut entity = json!({ "type": kind, "uid": uid, "name": named.unwrap_or(uid) });
    if let Some(digest) = event.text(&["/digest"]) {
        put(&mut entity, "version", json!(digest));
    }
    entity
}
