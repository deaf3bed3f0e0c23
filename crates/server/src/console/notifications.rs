//! Notifications that were not delivered: given up, or still tried.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Redirect;

use super::page::{Frame, Oops, Page, Section, render};
use super::session::{Act, Nothing, Visitor};
use super::text::{self, Html};
use crate::http::App;
use crate::http::auth::Role;
use crate::http::notifications::send_again;
use crate::store::notifications::{self, Notification};

/// How many of each the page shows.
const ROWS: i64 = 100;

struct Row {
    id: String,
    endpoint: Html,
    event: Html,
    grant: Option<String>,
    attempts: i32,
    made: Html,
    due: Html,
    error: Html,
}

#[derive(Template)]
#[template(path = "console/notifications.html")]
struct Notifications {
    frame: Frame,
    dead: Vec<Row>,
    pending: Vec<Row>,
    may_retry: bool,
}

pub(super) async fn page(State(app): State<App>, visitor: Visitor) -> Page {
    visitor.caller.need(&[Role::Admin, Role::Auditor])?;
    let frame = Frame::load(&app, &visitor, Some(Section::Notifications), "Notifications").await?;
    let row = |one: Notification| Row {
        id: one.id.to_string(),
        endpoint: text::value(&one.endpoint),
        event: text::value(&one.event),
        grant: one.grant_id.map(|id| format!("/console/grants/{id}")),
        attempts: one.attempts,
        made: text::time(one.created_at, frame.now),
        due: text::time(one.due_at, frame.now),
        error: one.last_error.as_deref().map(text::value).unwrap_or_default(),
    };
    let dead = notifications::list(&app.broker.pool, Some("dead"), None, ROWS).await?;
    let pending = notifications::list(&app.broker.pool, Some("pending"), None, ROWS).await?;
    render(&Notifications {
        dead: dead.into_iter().map(row).collect(),
        pending: pending.into_iter().map(row).collect(),
        may_retry: visitor.caller.has(&[Role::Admin]),
        frame,
    })
}

/// Tries one again that was given up.
pub(super) async fn retry(
    State(app): State<App>,
    Path(id): Path<String>,
    act: Act<Nothing>,
) -> Result<Redirect, Oops> {
    send_again(&app, &act.visitor.caller, &id).await?;
    Ok(Redirect::to("/console/notifications?done=retried"))
}
