//! What waits for people: the console's first page, and the lists on it that keep themselves fresh.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use cortex_core::grant::{self, Asked, Grant};
use jiff::Timestamp;

use super::page::{Frame, Oops, Page, Section, render};
use super::session::Visitor;
use super::text::{self, Html};
use crate::http::App;
use crate::http::auth::Role;
use crate::store::grants::{self, Filter};

/// How many grants the lists show.
const SHOWN: i64 = 200;

/// One grant in a list.
struct Row {
    id: String,
    policy: Html,
    what: Html,
    sub: Html,
    who: Html,
    reason: Html,
    requested: Html,
    ends: Html,
    progress: String,
    loud: bool,
    mine: bool,
    why_not: String,
}

/// A grant's run, or the runs that it is for, as path and what is below it.
pub(super) fn subject(grant: &Grant) -> (String, String) {
    match &grant.asked {
        Asked::Run { requester, .. } => {
            (format!("{} › {}", requester.dag_id, requester.task_id), requester.run_id.to_string())
        }
        Asked::Standing { dag_id, .. } => (dag_id.to_string(), "every scheduled run".to_owned()),
    }
}

/// Who asked, as far as a person is behind it.
pub(super) fn requester(grant: &Grant) -> Option<String> {
    match &grant.asked {
        Asked::Run { requester, .. } => requester.triggering_user.clone(),
        Asked::Standing { requester, .. } => {
            Some(requester.email.clone().unwrap_or_else(|| requester.subject.clone()))
        }
    }
}

impl Row {
    fn new(grant: &Grant, may: Result<(), String>, now: Timestamp) -> Self {
        let ends = match &grant.state {
            grant::State::Requested { expires_at, .. } => text::time(*expires_at, now),
            _ => Html::default(),
        };
        let (what, sub) = subject(grant);
        Self {
            id: grant.id.to_string(),
            policy: text::line(grant.policy.as_str()),
            what: text::line(&what),
            sub: text::line_of(&sub, 60),
            who: requester(grant).as_deref().map(text::line).unwrap_or_default(),
            reason: grant.reason.as_deref().map(text::line).unwrap_or_default(),
            requested: text::time(grant.requested_at, now),
            ends,
            progress: format!("{} of {}", grant.approvals().len(), grant.approvers.quorum),
            loud: grant.is_break_glass(),
            mine: may.is_ok(),
            why_not: may.err().unwrap_or_default(),
        }
    }
}

/// Whether this person may decide on a grant of a policy that `author` applied, or why not.
pub(super) fn may_decide(
    app: &App,
    visitor: &Visitor,
    grant: &Grant,
    author: &str,
    now: Timestamp,
) -> Result<(), String> {
    if !visitor.caller.has(&[Role::Approver]) {
        return Err("your groups carry no approver role".to_owned());
    }
    let live = app.broker.live();
    let rules = live.approvers.of_author(author);
    grant.may_decide(&visitor.caller.person, &rules, now).map_err(|why| why.to_string())
}

/// The grants that wait, each with whether this person may decide on it.
async fn requested(
    app: &App,
    visitor: &Visitor,
    now: Timestamp,
) -> Result<Vec<(Grant, Result<(), String>)>, Oops> {
    let mut connection = app.broker.pool.acquire().await?;
    let filter = Filter { status: Some("requested".to_owned()), limit: SHOWN, ..Filter::default() };
    let found = grants::list(&mut connection, &filter, now).await?;
    let mut policies: Vec<_> = found.iter().map(|grant| grant.policy.to_string()).collect();
    policies.sort_unstable();
    policies.dedup();
    let authors: HashMap<_, _> = if policies.is_empty() {
        HashMap::new()
    } else {
        grants::authors(&mut connection, &policies).await?
    };
    let judged = found.into_iter().map(|grant| {
        let author = authors.get(grant.policy.as_str()).map_or("", String::as_str);
        let may = may_decide(app, visitor, &grant, author, now);
        (grant, may)
    });
    Ok(judged.collect())
}

/// How many grants wait for this person.
pub(super) async fn count(app: &App, visitor: &Visitor, now: Timestamp) -> Result<usize, Oops> {
    if !visitor.caller.has(&[Role::Approver]) {
        return Ok(0);
    }
    Ok(requested(app, visitor, now).await?.iter().filter(|(_, may)| may.is_ok()).count())
}

#[derive(Template)]
#[template(path = "console/home.html")]
struct Home {
    frame: Frame,
    mine: Vec<Row>,
    others: Vec<Row>,
}

/// What waits for me.
pub(super) async fn home(State(app): State<App>, visitor: Visitor) -> Page {
    let mut frame = Frame::load(&app, &visitor, Some(Section::Waiting), "What waits for you").await?;
    let (mine, others) = lists(&app, &visitor).await?;
    if !mine.is_empty() {
        frame.title = format!("({}) {}", mine.len(), frame.title);
    }
    render(&Home { frame, mine, others })
}

#[derive(Template)]
#[template(path = "console/waiting.html")]
struct Waiting {
    mine: Vec<Row>,
    others: Vec<Row>,
}

/// The lists alone, for the page that keeps itself fresh.
pub(super) async fn fragment(State(app): State<App>, visitor: Visitor) -> Page {
    let (mine, others) = lists(&app, &visitor).await?;
    render(&Waiting { mine, others })
}

/// What waits for this person, and what waits for others.
async fn lists(app: &App, visitor: &Visitor) -> Result<(Vec<Row>, Vec<Row>), Oops> {
    let now = app.broker.clock.now();
    if !visitor.caller.has(&Role::ALL) {
        return Ok((Vec::new(), Vec::new()));
    }
    let found = requested(app, visitor, now).await?;
    Ok(found.into_iter().map(|(grant, may)| Row::new(&grant, may, now)).partition(|row| row.mine))
}
