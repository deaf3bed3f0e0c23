//! Revocations: what was ended before its time, how far that has come, and ending more.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use cortex_core::IssuanceId;
use cortex_core::revocation::{Selector, State as Ending};
use jiff::Timestamp;
use serde::Deserialize;

use super::freezes::ScopeForm;
use super::page::{Frame, Oops, Page, Section, render};
use super::session::{Act, Visitor};
use super::text::{self, Html};
use crate::http::auth::Role;
use crate::http::revocations::{Asked, begin, preview, shown};
use crate::http::{App, Problem};
use crate::store::revocations::{self, Hit, Preview, Revocation, queue};

/// How many revocations, and issuances of one, a page shows.
const ROWS: i64 = 100;

struct Row {
    id: String,
    what: Html,
    reason: Html,
    by: Html,
    at: Html,
    complete: bool,
    pending: i64,
    enforced: i64,
    expires_at: i64,
}

pub(super) struct Debt {
    pub(super) provider: Html,
    pub(super) count: i64,
    pub(super) oldest: Html,
}

/// What the address proposes to revoke.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Proposal {
    #[serde(flatten)]
    scope: ScopeForm,
    issuance_id: String,
}

#[derive(Template)]
#[template(path = "console/revocations.html")]
struct List {
    frame: Frame,
    rows: Vec<Row>,
    debts: Vec<Debt>,
    may_change: bool,
    form: ScopeForm,
    issuance_id: String,
}

fn what(selector: &Selector) -> String {
    match selector {
        Selector::Issuance { issuance_id } => format!("issuance {issuance_id}"),
        Selector::Within { scope, since: None } => scope.in_words(),
        Selector::Within { scope, since: Some(since) } => {
            format!("{} since {}", scope.in_words(), text::clock(*since))
        }
    }
}

fn row(one: &Revocation, now: Timestamp) -> Row {
    Row {
        id: one.id.to_string(),
        what: text::line(&what(&one.selector)),
        reason: text::line(&one.reason),
        by: text::line(&one.by),
        at: text::time(one.at, now),
        complete: one.complete,
        pending: one.pending,
        enforced: one.enforced,
        expires_at: one.expires_at,
    }
}

pub(super) async fn list(State(app): State<App>, visitor: Visitor, Query(proposal): Query<Proposal>) -> Page {
    visitor.caller.need(&[Role::Admin, Role::Auditor])?;
    let frame = Frame::load(&app, &visitor, Some(Section::Revocations), "Revocations").await?;
    let found = revocations::list(&app.broker.pool, None, ROWS).await?;
    render(&List {
        rows: found.iter().map(|one| row(one, frame.now)).collect(),
        debts: debts(&app, frame.now).await?,
        may_change: visitor.caller.has(&[Role::Admin]),
        form: proposal.scope,
        issuance_id: proposal.issuance_id,
        frame,
    })
}

/// What the clouds have not confirmed yet.
pub(super) async fn debts(app: &App, now: Timestamp) -> Result<Vec<Debt>, Oops> {
    let debts = queue::debt(&app.broker.pool).await?;
    let debt = |(provider, count, oldest): (String, i64, Timestamp)| Debt {
        provider: text::value(&provider),
        count,
        oldest: text::time(oldest, now),
    };
    Ok(debts.into_iter().map(debt).collect())
}

pub(super) struct Ended {
    issuance: String,
    provider: Html,
    target: Html,
    pub(super) word: &'static str,
    pub(super) tone: &'static str,
    pub(super) detail: Html,
    expires: Html,
}

pub(super) fn ended(hit: &Hit, now: Timestamp) -> Ended {
    let (word, tone, detail) = match &hit.state {
        Ending::Pending { attempts, last_error } => {
            let detail = match last_error {
                Some(why) => format!("{attempts} tries in vain: {why}"),
                None => "not tried yet".to_owned(),
            };
            ("pending", "warn", detail)
        }
        Ending::Enforced { at, .. } => ("enforced", "ok", format!("confirmed {}", text::clock(*at))),
        Ending::ExpiresAt { time, why } => {
            ("expires", "info", format!("{why} It ends {}.", text::clock(*time)))
        }
    };
    Ended {
        issuance: hit.issuance_id.to_string(),
        provider: text::line(&hit.provider),
        target: hit.target.as_deref().map(text::line).unwrap_or_default(),
        word,
        tone,
        detail: text::value(&detail),
        expires: text::time(hit.credential_expires_at, now),
    }
}

#[derive(Template)]
#[template(path = "console/revocation.html")]
struct One {
    frame: Frame,
    row: Row,
    hits: Vec<Ended>,
    more: bool,
}

pub(super) async fn one(State(app): State<App>, visitor: Visitor, Path(id): Path<String>) -> Page {
    visitor.caller.need(&[Role::Admin, Role::Auditor])?;
    let id = id.parse().map_err(|_| Problem::bad_request("a revocation's id is a UUID"))?;
    let found = shown(&app, id, None, ROWS).await?;
    let frame = Frame::load(&app, &visitor, Some(Section::Revocations), "One revocation").await?;
    render(&One {
        row: row(&found.revocation, frame.now),
        hits: found.issuances.iter().map(|hit| ended(hit, frame.now)).collect(),
        more: found.next.is_some(),
        frame,
    })
}

/// What a person wants ended.
#[derive(Deserialize)]
pub(super) struct Revoke {
    #[serde(flatten)]
    scope: ScopeForm,
    #[serde(default)]
    issuance_id: String,
    #[serde(default)]
    since: String,
    reason: String,
    #[serde(default)]
    freeze: String,
    /// `yes` once the person has seen what it hits.
    #[serde(default)]
    sure: String,
}

impl Revoke {
    fn asked(&self, dry_run: bool) -> Result<Asked, Problem> {
        let issuance_id = match self.issuance_id.trim() {
            "" => None,
            text => Some(
                text.parse::<IssuanceId>().map_err(|_| Problem::bad_request("an issuance's id is a UUID"))?,
            ),
        };
        let since = match self.since.trim() {
            "" => None,
            text => Some(
                text.parse::<Timestamp>()
                    .map_err(|_| Problem::bad_request("a time is written as 2026-01-31T23:59:59Z"))?,
            ),
        };
        let scope = if issuance_id.is_some() { None } else { Some(self.scope.scope()?) };
        let reason = self.reason.clone();
        Ok(Asked { issuance_id, scope, since, reason, dry_run, freeze: !self.freeze.is_empty() })
    }
}

/// What would be ended, before it is.
#[derive(Template)]
#[template(path = "console/revoke.html")]
struct Sure {
    frame: Frame,
    form: Revoke,
    hits: Vec<Ended>,
    more: bool,
}

/// Shows what a revocation would hit; and revokes, once the person has seen that.
pub(super) async fn revoke(State(app): State<App>, act: Act<Revoke>) -> Result<Response, Oops> {
    let Act { visitor, form } = act;
    if form.sure == "yes" {
        let id = begin(&app, &visitor.caller, form.asked(false)?).await?;
        return Ok(Redirect::to(&format!("/console/revocations/{id}?done=revoked")).into_response());
    }
    let Preview { issuances, more } = preview(&app, &visitor.caller, form.asked(true)?).await?;
    let frame = Frame::load(&app, &visitor, Some(Section::Revocations), "Revoke these?").await?;
    let hits = issuances.iter().map(|hit| ended(hit, frame.now)).collect();
    Ok(render(&Sure { frame, form, hits, more })?.into_response())
}
