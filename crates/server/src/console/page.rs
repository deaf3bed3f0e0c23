//! What every page has: its frame, and the page that says what went wrong.

use std::fmt::Write as _;

use askama::Template;
use axum::http::{StatusCode, Uri};
use axum::response::{Html as HtmlBody, IntoResponse, Response};
use jiff::Timestamp;

use super::assets::{ASSETS, Assets};
use super::session::Visitor;
use super::text;
use crate::http::auth::Role;
use crate::http::{App, Problem};

/// The entries of the menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Waiting,
    Grants,
    Issuances,
    Reports,
    Activity,
    Freezes,
    Revocations,
    Notifications,
    Policies,
    DryRun,
    People,
    Health,
}

impl Section {
    /// Each with its name, its address, and whom it is for.
    const ALL: [(Self, &'static str, &'static str, &'static [Role]); 12] = [
        (Self::Waiting, "Waiting", "/console", &Role::ALL),
        (Self::Grants, "Grants", "/console/grants", &Role::ALL),
        (Self::Issuances, "Issuances", "/console/issuances", &[Role::Auditor, Role::Admin]),
        (Self::Reports, "Reports", "/console/reports", &[Role::Auditor, Role::Admin]),
        (Self::Activity, "Activity", "/console/activity", &[Role::Auditor, Role::Admin]),
        (Self::Policies, "Policies", "/console/policies", &Role::ALL),
        (Self::DryRun, "Dry run", "/console/dry-run", &Role::ALL),
        (Self::Freezes, "Freezes", "/console/freezes", &Role::ALL),
        (Self::Revocations, "Revocations", "/console/revocations", &[Role::Auditor, Role::Admin]),
        (Self::Notifications, "Notifications", "/console/notifications", &[Role::Auditor, Role::Admin]),
        (Self::People, "People", "/console/people", &[Role::Admin]),
        (Self::Health, "Health", "/console/health", &[Role::Auditor, Role::Admin]),
    ];
}

/// One entry of the menu.
pub(super) struct Entry {
    pub(super) label: &'static str,
    pub(super) path: &'static str,
    pub(super) here: bool,
    pub(super) count: usize,
}

/// What every page has around it.
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) menu: Vec<Entry>,
    pub(super) me: text::Html,
    pub(super) roles: String,
    pub(super) made_at: text::Html,
    /// What a form has to carry.
    pub(super) token: String,
    pub(super) host: String,
    /// What was done just now.
    pub(super) notice: Option<&'static str>,
    pub(super) now: Timestamp,
    pub(super) assets: &'static Assets,
}

impl Frame {
    /// The frame of a page that `visitor` looks at.
    pub(super) async fn load(
        app: &App,
        visitor: &Visitor,
        section: Option<Section>,
        title: impl Into<String>,
    ) -> Result<Self, Oops> {
        let now = app.broker.clock.now();
        let waiting = super::waiting::count(app, visitor, now).await?;
        let entry = |(one, label, path, roles): (Section, &'static str, &'static str, &[Role])| {
            let count = if one == Section::Waiting { waiting } else { 0 };
            visitor.caller.has(roles).then_some(Entry { label, path, here: Some(one) == section, count })
        };
        let roles: Vec<_> = visitor.caller.roles().iter().map(|role| role.as_str()).collect();
        let person = &visitor.caller.person;
        Ok(Self {
            title: title.into(),
            menu: Section::ALL.into_iter().filter_map(entry).collect(),
            me: text::line_of(person.email.as_deref().unwrap_or(&person.subject), 40),
            roles: if roles.is_empty() { "no role".to_owned() } else { roles.join(", ") },
            made_at: text::exact(now),
            token: visitor.form_token.clone(),
            host: app.issuer_url.split_once("://").map_or("", |(_, host)| host).to_owned(),
            notice: visitor.notice,
            now,
            assets: &ASSETS,
        })
    }
}

/// What was done, by the word that the address of the next page carries. Only these sentences are ever shown.
const NOTICES: [(&str, &str); 11] = [
    ("approved", "Approved. The task goes on the next time it asks."),
    ("denied", "Denied. The task is told so, with your comment."),
    ("withdrawn", "Taken back. Nothing more is issued under it."),
    ("frozen", "Frozen, at every replica."),
    ("lifted", "Lifted. It goes on."),
    ("revoked", "Revoked. The states below say what the clouds have confirmed."),
    ("retried", "It is sent again."),
    ("ended", "The session is over."),
    ("disabled", "Disabled. Their sessions are over and their tokens are refused."),
    ("enabled", "They may sign in again."),
    ("erased", "They are erased: nothing leads from the log to them."),
];

/// The sentence for the word in `done=`.
pub(super) fn notice(uri: &Uri) -> Option<&'static str> {
    let query = uri.query()?;
    let done = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "done")?.1;
    NOTICES.iter().find(|(word, _)| *word == done).map(|(_, sentence)| *sentence)
}

/// A page.
pub(super) type Page = Result<HtmlBody<String>, Oops>;

/// Renders a page.
pub(super) fn render(template: &impl Template) -> Page {
    match template.render() {
        Ok(html) => Ok(HtmlBody(html)),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            Err(Problem::internal().into())
        }
    }
}

/// A page that says what is the case and what to do.
#[derive(Debug)]
pub(super) struct Oops {
    problem: Problem,
    sign_in_again: bool,
}

#[derive(Template)]
#[template(path = "console/oops.html")]
struct OopsPage {
    status: u16,
    title: String,
    detail: text::Html,
    sign_in_again: bool,
    assets: &'static Assets,
}

impl Oops {
    /// The page where no sign-in is configured.
    pub(super) fn not_configured() -> Self {
        Problem::not_found(
            "Nobody can sign in here yet. An admin names an issuer of people in [sign_in] of cortex.toml; \
             docs/sign-in.md has the lines for common identity providers.",
        )
        .into()
    }

    /// The same with a way to begin again.
    pub(super) fn with_sign_in(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { problem: Problem::new(status, detail), sign_in_again: true }
    }
}

impl<E: Into<Problem>> From<E> for Oops {
    fn from(error: E) -> Self {
        Self { problem: error.into(), sign_in_again: false }
    }
}

impl IntoResponse for Oops {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut detail = self.problem.detail;
        for fault in &self.problem.problems {
            // Writing to a String cannot fail.
            let _ = write!(detail, "\nline {}: {} {}", fault.line, fault.message, fault.remedy);
        }
        let page = OopsPage {
            status: self.problem.status,
            title: self.problem.title,
            detail: text::block(&detail),
            sign_in_again: self.sign_in_again,
            assets: &ASSETS,
        };
        let body = page.render().unwrap_or_else(|_| "Cortex failed; its log says how.".to_owned());
        (status, HtmlBody(body)).into_response()
    }
}

/// The page for what is not there.
pub(super) async fn unknown(_visitor: Visitor) -> Oops {
    Problem::not_found("there is nothing at this address").into()
}
