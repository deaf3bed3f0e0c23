//! Reports for auditors, as links; each comes as the REST API writes it.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use jiff::tz::TimeZone;

use super::page::{Frame, Oops, Page, Section, render};
use super::session::Visitor;
use crate::http::App;
use crate::http::auth::Role;
use crate::http::reports::{ReportQuery, answer};
use crate::reports::Report;

struct Quarter {
    name: String,
}

struct Row {
    name: &'static str,
    title: &'static str,
    controls: Vec<String>,
    quarters: Vec<Quarter>,
}

/// A question of auditors, as a search of the record.
struct Saved {
    question: &'static str,
    path: &'static str,
}

/// Searches that are asked again and again. Their addresses are the searches.
const SAVED: [Saved; 6] = [
    Saved { question: "Denials", path: "/console/issuances?outcome=denied" },
    Saved { question: "Every use of break glass", path: "/console/issuances?break_glass=true" },
    Saved {
        question: "Requests and decisions with break glass",
        path: "/console/issuances?break_glass=true&kinds=grant.requested,grant.decided",
    },
    Saved {
        question: "Approvals outside of office hours (UTC)",
        path: "/console/issuances?kinds=grant.decided&outside_hours=09:00-18:00&timezone=UTC",
    },
    Saved {
        question: "Changes of policies and guardrails",
        path: "/console/issuances?kinds=policy.applied,policy.retired,guardrails.applied",
    },
    Saved {
        question: "Freezes and revocations",
        path: "/console/issuances?kinds=freeze.set,freeze.lifted,revocation.requested,revocation.settled",
    },
];

#[derive(Template)]
#[template(path = "console/reports.html")]
struct List {
    frame: Frame,
    reports: Vec<Row>,
    saved: &'static [Saved],
}

pub(super) async fn list(State(app): State<App>, visitor: Visitor) -> Page {
    visitor.caller.need(&[Role::Auditor, Role::Admin])?;
    let frame = Frame::load(&app, &visitor, Some(Section::Reports), "Reports").await?;
    let today = frame.now.to_zoned(TimeZone::UTC).date();
    let (mut year, mut quarter) = (today.year(), (today.month() + 2) / 3);
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(format!("{year}Q{quarter}"));
        (year, quarter) = if quarter == 1 { (year - 1, 4) } else { (year, quarter - 1) };
    }
    let row = |report: Report| Row {
        name: report.name(),
        title: report.title(),
        controls: report.controls().iter().map(|(of, which)| format!("{of}: {which}")).collect(),
        quarters: names.iter().map(|name| Quarter { name: name.clone() }).collect(),
    };
    render(&List { reports: Report::ALL.into_iter().map(row).collect(), saved: &SAVED, frame })
}

pub(super) async fn one(
    State(app): State<App>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(query): Query<ReportQuery>,
) -> Result<Response, Oops> {
    Ok(answer(&app, &visitor.caller, &name, query).await?)
}
