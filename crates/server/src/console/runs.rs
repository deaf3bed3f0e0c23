//! One DAG run: every decision and every credential on a timeline.

use askama::Template;
use axum::extract::{Path, State};
use cortex_core::record::{Entry, Outcome, What};
use jiff::Timestamp;

use super::chart::{self, Span};
use super::page::{Frame, Page, Section, render};
use super::session::Visitor;
use super::text::{self, Html};
use crate::http::auth::Role;
use crate::http::{App, Problem};
use crate::store::timeline;

/// The most entries of one run that are shown.
const ENTRIES: i64 = 500;

/// The page of a run.
pub(super) fn path(issuer: &str, dag_id: &str, run_id: &str) -> String {
    let [issuer, dag_id, run_id] = [issuer, dag_id, run_id].map(text::component);
    format!("/console/runs/{issuer}/{dag_id}/{run_id}")
}

/// One thing that happened, as a line.
struct Event {
    at: Html,
    tone: &'static str,
    what: &'static str,
    who: Html,
    detail: Html,
    link: Option<String>,
}

#[derive(Template)]
#[template(path = "console/run.html")]
struct Story {
    frame: Frame,
    dag: Html,
    run: Html,
    airflow: Html,
    issuances: String,
    searchable: bool,
    may_change: bool,
    freeze: String,
    revoke: String,
    picture: Html,
    events: Vec<Event>,
    cut: bool,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path((issuer, dag_id, run_id)): Path<(String, String, String)>,
) -> Page {
    visitor.caller.need(&Role::ALL)?;
    if [&issuer, &dag_id, &run_id].iter().any(|part| part.len() > 500 || part.contains('\0')) {
        return Err(Problem::not_found("there is no such run").into());
    }
    let entries = timeline::of_run(&app.broker.pool, &issuer, &dag_id, &run_id, ENTRIES).await?;
    let title = format!("Run {}", text::plain(&dag_id.chars().take(60).collect::<String>()));
    let frame = Frame::load(&app, &visitor, Some(Section::Issuances), title).await?;
    let scope = format!(
        "kind=run&issuer={}&dag_id={}&run_id={}",
        text::component(&issuer),
        text::component(&dag_id),
        text::component(&run_id)
    );
    let spans = spans(&entries, frame.now);
    render(&Story {
        picture: chart::timeline("What this run asked for, and how long it held", &spans, frame.now),
        events: entries.iter().map(|entry| event(entry, &entries)).collect(),
        may_change: visitor.caller.has(&[Role::Admin]),
        freeze: format!("/console/freezes?{scope}#freeze"),
        revoke: format!("/console/revocations?{scope}#revoke"),
        searchable: visitor.caller.has(&[Role::Auditor, Role::Admin]),
        cut: i64::try_from(entries.len()).is_ok_and(|count| count >= ENTRIES),
        issuances: format!(
            "/console/issuances?dag_id={}&run_id={}",
            text::component(&dag_id),
            text::component(&run_id)
        ),
        dag: text::value(&dag_id),
        run: text::value(&run_id),
        airflow: text::value(&issuer),
        frame,
    })
}

/// What is drawn: credentials for as long as they live, waiting for people, and what was refused as marks.
fn spans(entries: &[Entry], now: Timestamp) -> Vec<Span> {
    let task = |principal: &cortex_core::Principal| {
        principal.as_run().map_or_else(String::new, |run| run.task_id.to_string())
    };
    let mut spans = Vec::new();
    for entry in entries {
        let span = match &entry.what {
            What::Issued { opening, lease } => Span {
                label: format!("{} {}", task(&opening.principal), opening.provider),
                kind: "issued",
                from: entry.at,
                to: Some(lease.expires_at),
            },
            What::Intent(opening) => {
                let (kind, to) = ending(entries, opening.issuance_id);
                Span {
                    label: format!("{} {}", task(&opening.principal), opening.provider),
                    kind,
                    from: entry.at,
                    to,
                }
            }
            What::Denial(denial) => Span {
                label: format!(
                    "{} {}",
                    denial.principal.as_ref().map(task).unwrap_or_default(),
                    denial.provider.as_deref().unwrap_or("denied")
                ),
                kind: "denied",
                from: entry.at,
                to: None,
            },
            What::GrantRequested { grant_id, .. } => Span {
                label: "waiting for people".to_owned(),
                kind: "waiting",
                from: entry.at,
                to: Some(decided(entries, *grant_id).unwrap_or(now)),
            },
            _ => continue,
        };
        spans.push(span);
    }
    spans
}

/// How an intent ended, and when what came of it does.
fn ending(entries: &[Entry], id: cortex_core::IssuanceId) -> (&'static str, Option<Timestamp>) {
    let outcome = entries.iter().find_map(|entry| match &entry.what {
        What::Outcome { issuance_id, outcome } if *issuance_id == id => Some(outcome),
        _ => None,
    });
    match outcome {
        Some(Outcome::Issued { lease, .. }) => ("issued", Some(lease.expires_at)),
        Some(Outcome::Failed { .. }) => ("failed", None),
        Some(Outcome::Indeterminate { worst_case_expiry, .. }) => ("failed", Some(*worst_case_expiry)),
        None => ("waiting", None),
    }
}

fn decided(entries: &[Entry], id: cortex_core::GrantId) -> Option<Timestamp> {
    entries.iter().rev().find_map(|entry| match &entry.what {
        What::GrantDecided { grant_id, .. } if *grant_id == id => Some(entry.at),
        _ => None,
    })
}

/// What an intent was for.
fn asked(entries: &[Entry], id: cortex_core::IssuanceId) -> &str {
    let opening = entries.iter().find_map(|entry| match &entry.what {
        What::Intent(opening) if opening.issuance_id == id => Some(opening.provider.as_str()),
        _ => None,
    });
    opening.unwrap_or_default()
}

fn event(entry: &Entry, entries: &[Entry]) -> Event {
    let issuance = |id: &dyn std::fmt::Display| Some(format!("/console/issuances/{id}"));
    let grant = |id: &dyn std::fmt::Display| Some(format!("/console/grants/{id}"));
    let (tone, what, who, detail, link) = match &entry.what {
        What::Intent(opening) => (
            "info",
            "asked for",
            opening.subject.clone(),
            format!("{} under {}", opening.provider, opening.policy),
            issuance(&opening.issuance_id),
        ),
        What::Issued { opening, .. } => (
            "ok",
            "issued",
            opening.subject.clone(),
            format!("{} under {}", opening.provider, opening.policy),
            issuance(&opening.issuance_id),
        ),
        What::Outcome { issuance_id, outcome } => {
            let (tone, detail) = match outcome {
                Outcome::Issued { lease, .. } => ("ok", format!("until {}", text::clock(lease.expires_at))),
                Outcome::Failed { code, message, .. } => ("bad", format!("{code}: {message}")),
                Outcome::Indeterminate { message, .. } => ("warn", message.clone()),
            };
            let detail = format!("{}: {detail}", asked(entries, *issuance_id));
            (tone, outcome.name(), String::new(), detail, issuance(issuance_id))
        }
        What::Denial(denial) => (
            "bad",
            "denied",
            denial.subject.clone(),
            denial.reasons.first().map_or_else(|| denial.code.clone(), |reason| reason.message.clone()),
            issuance(&denial.decision_id),
        ),
        What::GrantRequested { grant_id, policy, reason, .. } => {
            ("info", "asked people", policy.to_string(), reason.clone().unwrap_or_default(), grant(grant_id))
        }
        What::GrantDecided { grant_id, by, approve, comment, .. } => (
            if *approve { "ok" } else { "bad" },
            if *approve { "approved" } else { "denied by a person" },
            by.subject(),
            comment.clone().unwrap_or_default(),
            grant(grant_id),
        ),
        What::GrantWithdrawn(end) | What::GrantExpired(end) | What::GrantVoided(end) => (
            "warn",
            "the grant ended",
            end.by.clone().unwrap_or_default(),
            end.status.clone(),
            grant(&end.grant_id),
        ),
        other => ("info", other.kind(), String::new(), String::new(), None),
    };
    Event {
        at: text::exact(entry.at),
        tone,
        what,
        who: text::value(&who),
        detail: text::value(&detail),
        link,
    }
}
