//! The kill switch: what is stopped, stopping something, letting it go on.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Redirect;
use cortex_core::Scope;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::page::{Frame, Oops, Page, Section, render};
use super::session::{Act, Nothing, Visitor};
use super::text::{self, Html};
use crate::http::auth::Role;
use crate::http::freezes::{Asked, lift_one, put};
use crate::http::{App, Problem};
use crate::store::freezes::{self, StoredFreeze};

/// How many freezes the page shows.
const ROWS: i64 = 200;

/// A scope as a form says it: the kind, and the fields that belong to it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ScopeForm {
    pub(super) kind: String,
    pub(super) issuer: String,
    pub(super) policy: String,
    pub(super) dag_id: String,
    pub(super) run_id: String,
    pub(super) principal: String,
}

impl ScopeForm {
    /// The scope. What its kind has no use for is refused, so that nobody stops more than they think.
    pub(super) fn scope(&self) -> Result<Scope, Problem> {
        let fields = [
            ("kind", &self.kind),
            ("issuer", &self.issuer),
            ("policy", &self.policy),
            ("dag_id", &self.dag_id),
            ("run_id", &self.run_id),
            ("principal", &self.principal),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.trim().is_empty());
        let object: Map<_, _> =
            given.map(|(name, value)| (name.to_owned(), Value::from(value.trim()))).collect();
        serde_json::from_value(Value::Object(object))
            .map_err(|error| Problem::bad_request(format!("what to stop is not clear: {error}")))
    }
}

struct Row {
    id: String,
    scope: Html,
    reason: Html,
    by: Html,
    at: Html,
    until: Html,
    in_force: bool,
    lifted: Html,
}

#[derive(Template)]
#[template(path = "console/freezes.html")]
struct Freezes {
    frame: Frame,
    rows: Vec<Row>,
    any: bool,
    may_change: bool,
    form: ScopeForm,
}

pub(super) async fn page(State(app): State<App>, visitor: Visitor, Query(form): Query<ScopeForm>) -> Page {
    visitor.caller.need(&Role::ALL)?;
    let frame = Frame::load(&app, &visitor, Some(Section::Freezes), "Freezes").await?;
    let found = freezes::list(&app.broker.pool, false, None, ROWS, frame.now).await?;
    let row = |one: StoredFreeze| Row {
        id: one.freeze.id.to_string(),
        scope: text::value(&one.freeze.scope.in_words()),
        reason: text::value(&one.freeze.reason),
        by: text::value(&one.freeze.by),
        at: text::time(one.freeze.at, frame.now),
        until: one.freeze.until.map(|until| text::time(until, frame.now)).unwrap_or_default(),
        in_force: one.in_force,
        lifted: one.lifted_at.map(|at| text::time(at, frame.now)).unwrap_or_default(),
    };
    render(&Freezes {
        any: found.iter().any(|one| one.in_force),
        rows: found.into_iter().map(row).collect(),
        may_change: visitor.caller.has(&[Role::Admin]),
        form,
        frame,
    })
}

/// What a person stops. The scope's fields are named once more: a form cannot nest.
#[derive(Deserialize)]
pub(super) struct Stop {
    #[serde(flatten)]
    scope: ScopeForm,
    reason: String,
    #[serde(default)]
    until: String,
}

/// Stops something.
pub(super) async fn set(State(app): State<App>, act: Act<Stop>) -> Result<Redirect, Oops> {
    let Stop { scope, reason, until } = act.form;
    let until = match until.trim() {
        "" => None,
        text => Some(
            text.parse::<Timestamp>()
                .map_err(|_| Problem::bad_request("the end is written as 2026-01-31T23:59:59Z"))?,
        ),
    };
    put(&app, &act.visitor.caller, Asked { scope: scope.scope()?, reason, until }).await?;
    Ok(Redirect::to("/console/freezes?done=frozen"))
}

/// Lets it go on.
pub(super) async fn lift(
    State(app): State<App>,
    Path(id): Path<String>,
    act: Act<Nothing>,
) -> Result<Redirect, Oops> {
    lift_one(&app, &act.visitor.caller, &id).await?;
    Ok(Redirect::to("/console/freezes?done=lifted"))
}
