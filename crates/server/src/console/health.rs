//! How the system is: what stands in the way of issuing, and what will before long.

use askama::Template;
use axum::extract::State;

use super::page::{Frame, Page, Section, render};
use super::revocations::{Debt, debts};
use super::session::Visitor;
use super::text::{self, Html};
use crate::http::auth::Role;
use crate::http::{App, operations};
use crate::keyring;
use crate::store::{keys, sessions};

struct Issuer {
    name: Html,
    kind: &'static str,
    tone: &'static str,
    keys: String,
    age: String,
    error: Html,
}

struct Key {
    kid: Html,
    state: &'static str,
    since: Html,
}

#[derive(Template)]
#[template(path = "console/health.html")]
struct Health {
    frame: Frame,
    ready: bool,
    problems: Vec<String>,
    warnings: Vec<Html>,
    policies: usize,
    issuers: Vec<Issuer>,
    keys: Vec<Key>,
    sessions: usize,
    debts: Vec<Debt>,
    replica: Html,
    build: String,
}

pub(super) async fn page(State(app): State<App>, visitor: Visitor) -> Page {
    visitor.caller.need(&[Role::Admin, Role::Auditor])?;
    let broker = &app.broker;
    let readiness = operations::readiness(&app).await;
    let frame = Frame::load(&app, &visitor, Some(Section::Health), "System health").await?;
    let author = &broker.recorder.stamp().author;
    let rows = keys::published(&broker.pool).await?;
    let warnings = [readiness.warnings, broker.live().roles.warnings()].concat();
    let key = |row: &keys::KeyRow| Key {
        kid: text::value(&row.kid),
        state: match (keyring::signs(&rows, row, frame.now), row.active_from > frame.now) {
            (true, _) => "signs",
            (false, true) => "published, signs later",
            (false, false) => "published, no longer signs",
        },
        since: text::time(row.active_from, frame.now),
    };
    render(&Health {
        ready: readiness.ready,
        problems: readiness.problems,
        warnings: warnings.iter().map(|warning| text::value(warning)).collect(),
        policies: readiness.policies,
        issuers: issuers(&app),
        keys: rows.iter().map(key).collect(),
        sessions: sessions::list(&broker.pool, frame.now).await?.len(),
        debts: debts(&app, frame.now).await?,
        replica: text::value(&author.replica),
        build: author.build.clone(),
        frame,
    })
}

fn issuers(app: &App) -> Vec<Issuer> {
    let status = app.broker.live().identity.status();
    let issuer = |status: cortex_identity::IssuerStatus| {
        let keys = status.keys;
        let tone = match (keys.keys, &keys.last_error, keys.age) {
            (0, _, Some(_)) => "bad",
            (_, Some(_), _) => "warn",
            (0, None, None) => "info",
            _ => "ok",
        };
        let dropped = if keys.dropped > 0 { format!(", {} not usable", keys.dropped) } else { String::new() };
        Issuer {
            name: text::value(status.issuer.as_str()),
            kind: match status.kind {
                cortex_identity::Kind::Run => "runs",
                cortex_identity::Kind::Person => "people",
                cortex_identity::Kind::Service => "services",
            },
            tone,
            keys: format!("{}{dropped}", keys.keys),
            age: keys.age.map_or_else(
                || "not fetched yet".to_owned(),
                |age| format!("{} ago", text::span(age.as_secs())),
            ),
            error: keys.last_error.as_deref().map(text::value).unwrap_or_default(),
        }
    };
    status.into_iter().map(issuer).collect()
}
