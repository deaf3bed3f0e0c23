//! Sessions and people: who is signed in, and who no longer may.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Redirect;
use cortex_core::Principal;
use serde::Deserialize;

use super::page::{Frame, Oops, Page, Section, render};
use super::session::{Act, Nothing, Visitor};
use super::text::{self, Html};
use crate::http::App;
use crate::http::auth::Role;
use crate::http::people::{Erase, PersonName, change, end, remove};
use crate::store::{people, sessions};

struct SessionRow {
    id: String,
    person: Html,
    email: Html,
    started: Html,
    seen: Html,
    ends: Html,
    mine: bool,
}

struct DisabledRow {
    issuer: String,
    subject: String,
    shown: Html,
    by: Html,
    at: Html,
}

#[derive(Template)]
#[template(path = "console/people.html")]
struct People {
    frame: Frame,
    sessions: Vec<SessionRow>,
    disabled: Vec<DisabledRow>,
    issuers: Vec<String>,
}

pub(super) async fn page(State(app): State<App>, visitor: Visitor) -> Page {
    visitor.caller.need(&[Role::Admin])?;
    let frame = Frame::load(&app, &visitor, Some(Section::People), "People").await?;
    let session = |session: sessions::Session| SessionRow {
        mine: session.id == visitor.session.id,
        id: session.id.to_string(),
        email: session.person.email.as_deref().map(text::line).unwrap_or_default(),
        person: text::value(&Principal::Person(session.person).subject()),
        started: text::time(session.started_at, frame.now),
        seen: text::time(session.last_seen_at, frame.now),
        ends: text::time(session.ends_at, frame.now),
    };
    let disabled = |person: people::DisabledPerson| DisabledRow {
        shown: text::value(&format!("{}:{}", person.issuer, person.subject)),
        by: text::value(&person.disabled_by),
        at: text::time(person.disabled_at, frame.now),
        issuer: person.issuer,
        subject: person.subject,
    };
    let status = app.broker.live().identity.status().into_iter();
    render(&People {
        sessions: sessions::list(&app.broker.pool, frame.now).await?.into_iter().map(session).collect(),
        disabled: people::disabled(&app.broker.pool).await?.into_iter().map(disabled).collect(),
        issuers: status
            .filter(|status| status.kind == cortex_identity::Kind::Person)
            .map(|status| status.issuer.to_string())
            .collect(),
        frame,
    })
}

/// Ends somebody's session.
pub(super) async fn end_session(
    State(app): State<App>,
    Path(id): Path<String>,
    act: Act<Nothing>,
) -> Result<Redirect, Oops> {
    end(&app, &act.visitor.caller, &id).await?;
    Ok(Redirect::to("/console/people?done=ended"))
}

#[derive(Deserialize)]
pub(super) struct Name {
    issuer: String,
    subject: String,
}

/// Disables a person.
pub(super) async fn disable(State(app): State<App>, act: Act<Name>) -> Result<Redirect, Oops> {
    set(&app, act, false).await.map(|()| Redirect::to("/console/people?done=disabled"))
}

/// Lets a person in again.
pub(super) async fn enable(State(app): State<App>, act: Act<Name>) -> Result<Redirect, Oops> {
    set(&app, act, true).await.map(|()| Redirect::to("/console/people?done=enabled"))
}

#[derive(Deserialize)]
pub(super) struct Erasure {
    issuer: String,
    subject: String,
    reason: String,
}

/// Erases a person.
pub(super) async fn erase(State(app): State<App>, act: Act<Erasure>) -> Result<Redirect, Oops> {
    let Erasure { issuer, subject, reason } = act.form;
    let asked = Erase { issuer, subject, users: Vec::new(), reason };
    remove(&app, &act.visitor.caller, asked).await?;
    Ok(Redirect::to("/console/people?done=erased"))
}

async fn set(app: &App, act: Act<Name>, enable: bool) -> Result<(), Oops> {
    let Name { issuer, subject } = act.form;
    change(app, &act.visitor.caller, PersonName { issuer, subject }, enable).await?;
    Ok(())
}
