//! Policies: the list, and one of them in words, as a document, through its versions, its tests and its decisions.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query, State};
use cortex_core::PolicyName;
use cortex_core::policy::{self, Policy, Sentence};
use cortex_providers::BuiltIns;
use serde::Deserialize;

use super::issuances::Row as Decision;
use super::page::{Frame, Oops, Page, Section, render};
use super::session::{Act, Visitor};
use super::text::{self, Html};
use crate::http::auth::Role;
use crate::http::policies::{READERS, head, in_force, versions};
use crate::http::{App, Problem};
use crate::store::documents::{self, Kind, Version};
use crate::store::issuances::{self, Filter};

/// How many policies a page has.
const ROWS: i64 = 100;
/// How many versions are compared.
const VERSIONS: usize = 25;

/// The page of a policy.
pub(super) fn path(name: &str) -> String {
    format!("/console/policies/{}", text::component(name))
}

struct Row {
    path: String,
    name: Html,
    about: Html,
    version: i32,
    targets: Html,
    approval: bool,
    applied: Html,
}

#[derive(Deserialize)]
pub(super) struct After {
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "console/policies.html")]
struct List {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
}

pub(super) async fn list(State(app): State<App>, visitor: Visitor, Query(query): Query<After>) -> Page {
    visitor.caller.need(&READERS)?;
    let after = query.after.filter(|after| after.parse::<PolicyName>().is_ok()).unwrap_or_default();
    let found = documents::list(&app.broker.pool, Kind::Policy, &after, ROWS).await?;
    let frame = Frame::load(&app, &visitor, Some(Section::Policies), "Policies").await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == ROWS);
    let next = found.last().filter(|_| full).map(|last| format!("/console/policies?after={}", last.name));
    let rows = found.iter().map(|version| row(version, &frame)).collect();
    render(&List { frame, rows, next })
}

fn row(version: &Version, frame: &Frame) -> Row {
    let policy = Policy::compile(&version.source, &BuiltIns).ok();
    let targets =
        policy.iter().flat_map(Policy::targets).map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    let about = policy.as_ref().map(|policy| policy.description().unwrap_or_default());
    Row {
        path: path(&version.name),
        name: text::line(&version.name),
        about: text::line_of(
            about.unwrap_or("this version of Cortex cannot read it: it permits nothing"),
            160,
        ),
        version: version.version,
        targets: text::line(&targets),
        approval: policy.is_some_and(|policy| policy.approval().is_some()),
        applied: text::time(version.applied_at, frame.now),
    }
}

struct Old {
    version: i32,
    applied: Html,
    by: Html,
    diff: Html,
}

/// What came of one case of a table of tests.
struct Case {
    name: Html,
    passed: bool,
    said: Html,
}

#[derive(Template)]
#[template(path = "console/policy.html")]
struct One {
    frame: Frame,
    name: String,
    about: Html,
    version: i32,
    digest: String,
    applied: Html,
    by: Html,
    words: Vec<Sentence>,
    source: Html,
    draft: String,
    cedar: Html,
    old: Vec<Old>,
    decisions: Vec<Decision>,
    may_see_decisions: bool,
    may_replay: bool,
    dry_run: String,
    tested: Option<Vec<Case>>,
    tests: String,
}

pub(super) async fn one(State(app): State<App>, visitor: Visitor, Path(name): Path<String>) -> Page {
    render(&load(&app, &visitor, &name).await?)
}

async fn load(app: &App, visitor: &Visitor, name: &str) -> Result<One, Oops> {
    visitor.caller.need(&READERS)?;
    let head = head(app, Kind::Policy, name).await?;
    let versions = versions(app, name).await?;
    let frame = Frame::load(app, visitor, Some(Section::Policies), head.name.clone()).await?;
    let catalogue = app.broker.library.catalogue();
    let policy = in_force(&catalogue, name).ok();
    let may_see_decisions = visitor.caller.has(&[Role::Auditor, Role::Admin]);
    let decisions = if may_see_decisions {
        let filter = Filter { policy: Some(head.name.clone()), limit: 15, ..Filter::default() };
        issuances::list(&app.broker.pool, &filter).await?
    } else {
        Vec::new()
    };
    Ok(One {
        about: text::value(policy.and_then(Policy::description).unwrap_or_default()),
        words: policy.map(Policy::in_words).unwrap_or_default(),
        cedar: text::block(&policy.map(Policy::cedar).unwrap_or_default()),
        source: text::block(&head.source),
        version: head.version,
        digest: head.digest.to_string(),
        applied: text::time(head.applied_at, frame.now),
        by: text::value(&head.applied_by),
        old: olds(&versions, &frame),
        decisions: decisions.into_iter().map(|one| Decision::new(one, frame.now)).collect(),
        may_see_decisions,
        may_replay: visitor.caller.has(&[Role::Admin]),
        draft: head.source.clone(),
        dry_run: format!("/console/dry-run?policy={}", text::component(&head.name)),
        tested: None,
        tests: String::new(),
        name: head.name,
        frame,
    })
}

/// Each version against the one before it, the newest first.
fn olds(versions: &[Version], frame: &Frame) -> Vec<Old> {
    let before = versions.iter().skip(1).map(|version| version.source.as_str()).chain([""]);
    versions
        .iter()
        .zip(before)
        .take(VERSIONS)
        .map(|(version, before)| Old {
            version: version.version,
            applied: text::time(version.applied_at, frame.now),
            by: text::value(&version.applied_by),
            diff: text::diff(&policy::diff(before, &version.source)),
        })
        .collect()
}

#[derive(Deserialize)]
pub(super) struct Tests {
    tests: String,
}

/// Runs a table of tests against the version in force. Nothing changes.
pub(super) async fn test(State(app): State<App>, Path(name): Path<String>, act: Act<Tests>) -> Page {
    let Act { visitor, form } = act;
    let mut page = load(&app, &visitor, &name).await?;
    let catalogue = app.broker.library.catalogue();
    let unreadable = || Problem::bad_request("the policy or the guardrails cannot be read");
    let source = in_force(&catalogue, &name)?.source();
    let policy = Policy::compile(source, &BuiltIns).map_err(Problem::document)?;
    let policies = BTreeMap::from([(policy.name().clone(), policy)]);
    let guardrails = catalogue.guardrails().ok_or_else(unreadable)?;
    let outcomes = policy::run_tests(&form.tests, &policies, guardrails).map_err(Problem::document)?;
    let cases = outcomes.iter().map(|outcome| Case {
        name: text::value(&outcome.name),
        passed: outcome.passed(),
        said: text::value(outcome.failure.as_deref().unwrap_or("as expected")),
    });
    page.tested = Some(cases.collect());
    page.tests = form.tests;
    render(&page)
}
