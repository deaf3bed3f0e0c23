//! What a version of a policy, or a draft of one, would have changed in the last 30 days. Only a button asks for it.

use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use cortex_core::policy::{self, Policy};
use cortex_providers::BuiltIns;
use serde::Deserialize;

use super::page::{Frame, Page, Section, render};
use super::policies::path;
use super::session::Act;
use super::text::{self, Html};
use crate::http::auth::Role;
use crate::http::policies::{head, versions};
use crate::http::replays::{begin, turn};
use crate::http::{App, Problem};
use crate::replay::{self, Bounds, Change, Cut, Group, Report};
use crate::store::documents::Kind;

/// How far back the console looks.
const SINCE: &str = "30d";
/// How many groups the page shows.
const GROUPS: usize = 100;

/// How far a page goes while somebody waits for it.
fn bounds() -> Bounds {
    Bounds { records: 50_000, time: Duration::from_secs(6), workers: replay::cores() }
}

/// A version of the policy by its number, or a draft.
#[derive(Deserialize)]
pub(super) struct Form {
    version: Option<i32>,
    document: Option<String>,
}

struct Row {
    tone: &'static str,
    change: &'static str,
    dag: Html,
    task: Html,
    provider: Html,
    rules: Html,
    said: Html,
    count: u64,
    in_force_too: u64,
    last: Html,
    example: String,
}

struct Line {
    count: u64,
    words: &'static str,
    in_force_too: u64,
}

#[derive(Template)]
#[template(path = "console/policy_replay.html")]
struct Replayed {
    frame: Frame,
    name: String,
    what: String,
    path: String,
    diff: Html,
    records: u64,
    unchanged: u64,
    would_deny: u64,
    since: Html,
    cut: Option<&'static str>,
    oldest: Html,
    changed: Vec<Line>,
    not_decided: Vec<Line>,
    rows: Vec<Row>,
    more: usize,
    draft: String,
}

pub(super) async fn page(State(app): State<App>, Path(name): Path<String>, act: Act<Form>) -> Page {
    let Act { visitor, form } = act;
    visitor.caller.need(&[Role::Admin])?;
    let head = head(&app, Kind::Policy, &name).await?;
    let (what, document) = match (form.version, form.document) {
        (Some(version), None) => {
            let known = versions(&app, &name).await?.into_iter().find(|known| known.version == version);
            let known = known.ok_or_else(|| Problem::not_found(format!("there is no version {version}")))?;
            (format!("version {version}"), known.source)
        }
        (None, Some(document)) => ("your draft".to_owned(), document.replace("\r\n", "\n")),
        _ => return Err(Problem::bad_request("name a version or send a document").into()),
    };
    let proposed = Policy::compile(&document, &BuiltIns).map_err(Problem::document)?;
    if proposed.name().as_str() != head.name {
        let detail = format!("the document is of {}, and this is the page of {}", proposed.name(), head.name);
        return Err(Problem::bad_request(detail).into());
    }
    let turn = turn(&app)?;
    let mut replay = begin(&app, std::slice::from_ref(&document), SINCE, bounds()).await?;
    while replay.step().await.map_err(Problem::from)?.is_some() {}
    drop(turn);
    let frame =
        Frame::load(&app, &visitor, Some(Section::Policies), format!("{} replayed", head.name)).await?;
    let diff = text::diff(&policy::diff(&head.source, &document));
    render(&shown(frame, head.name, what, diff, document, &replay.report()))
}

fn shown(frame: Frame, name: String, what: String, diff: Html, draft: String, report: &Report) -> Replayed {
    let row = |group: &Group| row(group, &frame);
    let cut = report.cut.map(|cut| match cut {
        Cut::Records => "there are more than a page looks at",
        Cut::Time => "the rest took too long for a page",
    });
    let changed = report.changed.iter().map(|one| Line {
        count: one.count,
        words: one.change.in_words(),
        in_force_too: one.in_force_too,
    });
    let not_decided = report.not_decided.iter().map(|one| Line {
        count: one.count,
        words: one.why.in_words(),
        in_force_too: 0,
    });
    Replayed {
        path: path(&name),
        records: report.records,
        unchanged: report.unchanged,
        would_deny: report.would_deny,
        since: text::exact(report.since),
        cut,
        oldest: report.oldest.map(text::exact).unwrap_or_default(),
        changed: changed.collect(),
        not_decided: not_decided.collect(),
        rows: report.groups.iter().take(GROUPS).map(row).collect(),
        more: report.groups.len().saturating_sub(GROUPS),
        name,
        what,
        diff,
        draft,
        frame,
    }
}

fn row(group: &Group, frame: &Frame) -> Row {
    let tone = match group.change {
        Change::PermitToDeny | Change::ApprovalToDeny => "bad",
        Change::PermitToApproval | Change::DenyToApproval => "warn",
        Change::DenyToPermit | Change::ApprovalToPermit => "ok",
        Change::Scope | Change::ScopeAndLifetime | Change::Lifetime => "info",
    };
    Row {
        tone,
        change: group.change.in_words(),
        dag: text::line(&group.dag_id),
        task: text::line(&group.task_id),
        provider: text::line(&group.provider),
        rules: text::value(&group.rules.join(", ")),
        said: text::value(&group.said),
        count: group.count,
        in_force_too: group.in_force_too,
        last: text::time(group.last, frame.now),
        example: group.example.to_string(),
    }
}
