//! Who got what: the search, and one issuance or denial whole.

use askama::Template;
use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::page::{Frame, Page, Section, render};
use super::revocations::{Ended, ended};
use super::runs::path as run_path;
use super::session::Visitor;
use super::text::{self, Html};
use crate::http::auth::Role;
use crate::http::issuances::{ListQuery, filter};
use crate::http::{App, Problem};
use crate::store::issuances::{self, Issuance};
use crate::store::revocations;

/// How many rows a page has.
const ROWS: i64 = 50;

/// The search as the address carries it. A form sends every field, so that an empty one is none.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Search {
    pub(super) dag_id: String,
    pub(super) run_id: String,
    pub(super) task_id: String,
    pub(super) principal: String,
    pub(super) policy: String,
    pub(super) provider: String,
    pub(super) outcome: String,
    pub(super) approver: String,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) target: String,
    pub(super) rule: String,
    pub(super) policy_digest: String,
    pub(super) triggering_user: String,
    pub(super) outside_hours: String,
    pub(super) timezone: String,
    pub(super) break_glass: String,
    pub(super) kinds: String,
    pub(super) before: String,
}

impl Search {
    fn query(&self) -> ListQuery {
        let some = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        ListQuery {
            since: some(&self.since),
            until: some(&self.until),
            dag_id: some(&self.dag_id),
            run_id: some(&self.run_id),
            task_id: some(&self.task_id),
            principal: some(&self.principal),
            policy: some(&self.policy),
            provider: some(&self.provider),
            outcome: some(&self.outcome),
            approver: some(&self.approver),
            target: some(&self.target),
            rule: some(&self.rule),
            policy_digest: some(&self.policy_digest),
            triggering_user: some(&self.triggering_user),
            outside_hours: some(&self.outside_hours),
            timezone: some(&self.timezone),
            break_glass: Some(self.break_glass == "true"),
            kinds: some(&self.kinds),
            before: some(&self.before),
            limit: Some(ROWS),
        }
    }

    /// The address of this search, beginning behind `before`.
    fn path(&self, before: &str) -> String {
        let fields = [
            ("dag_id", self.dag_id.as_str()),
            ("run_id", &self.run_id),
            ("task_id", &self.task_id),
            ("principal", &self.principal),
            ("policy", &self.policy),
            ("provider", &self.provider),
            ("outcome", &self.outcome),
            ("approver", &self.approver),
            ("since", &self.since),
            ("until", &self.until),
            ("target", &self.target),
            ("rule", &self.rule),
            ("policy_digest", &self.policy_digest),
            ("triggering_user", &self.triggering_user),
            ("outside_hours", &self.outside_hours),
            ("timezone", &self.timezone),
            ("break_glass", &self.break_glass),
            ("kinds", &self.kinds),
            ("before", before),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let query: Vec<_> = given.map(|(name, value)| format!("{name}={}", text::component(value))).collect();
        format!("/console/issuances?{}", query.join("&"))
    }
}

/// One issuance or denial in a list.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) at: Html,
    pub(super) outcome: String,
    pub(super) policy: Html,
    pub(super) provider: Html,
    pub(super) dag: Html,
    pub(super) task: Html,
    pub(super) why: Html,
    pub(super) ends: Html,
}

impl Row {
    pub(super) fn new(one: Issuance, now: Timestamp) -> Self {
        let shown = |text: Option<String>| text.map_or_else(Html::default, |text| text::line_of(&text, 60));
        Self {
            id: one.issuance_id.unwrap_or(one.id).to_string(),
            at: text::time(one.at, now),
            policy: shown(one.policy),
            provider: shown(one.provider),
            dag: shown(one.dag_id.or(one.principal)),
            task: shown(one.task_id),
            why: shown(one.reason),
            ends: one.expires_at.map(|at| text::time(at, now)).unwrap_or_default(),
            outcome: one.outcome.unwrap_or(one.kind),
        }
    }
}

struct Outcome {
    word: &'static str,
    here: bool,
}

#[derive(Template)]
#[template(path = "console/issuances.html")]
struct List {
    frame: Frame,
    search: Search,
    outcomes: Vec<Outcome>,
    rows: Vec<Row>,
    next: Option<String>,
    behind: Option<i64>,
    here: String,
    denied: String,
    failed: String,
}

pub(super) async fn list(State(app): State<App>, visitor: Visitor, Query(search): Query<Search>) -> Page {
    visitor.caller.need(&[Role::Auditor, Role::Admin])?;
    let (found, behind) = crate::http::issuances::found(&app, &filter(search.query())?).await?;
    let frame = Frame::load(&app, &visitor, Some(Section::Issuances), "Issuances").await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == ROWS);
    let next = found.last().filter(|_| full).map(|last| search.path(&last.id.to_string()));
    let outcomes = ["issued", "denied", "failed", "indeterminate", "open"];
    let with = |outcome: &str| Search { outcome: outcome.to_owned(), ..Search::default() }.path("");
    render(&List {
        outcomes: outcomes.into_iter().map(|word| Outcome { word, here: search.outcome == word }).collect(),
        rows: found.into_iter().map(|one| Row::new(one, frame.now)).collect(),
        next,
        behind,
        here: search.path(""),
        denied: with("denied"),
        failed: with("failed"),
        search,
        frame,
    })
}

/// One fact about an issuance.
struct Fact {
    name: &'static str,
    value: Html,
}

struct Part {
    kind: String,
    at: Html,
    facts: Vec<Fact>,
    whole: Html,
}

#[derive(Template)]
#[template(path = "console/issuance.html")]
struct One {
    frame: Frame,
    id: String,
    run: Option<String>,
    policy: Option<String>,
    grant: Option<String>,
    may_revoke: bool,
    revoked: Option<Ended>,
    parts: Vec<Part>,
}

/// What is told of an entry before the whole of it, as JSON pointers.
const TOLD: [(&str, &str); 22] = [
    ("outcome", "/outcome/outcome"),
    ("code", "/code"),
    ("code", "/outcome/code"),
    ("message", "/outcome/message"),
    ("who", "/subject"),
    ("task", "/principal/task_id"),
    ("DAG", "/principal/dag_id"),
    ("run", "/principal/run_id"),
    ("try", "/principal/try_number"),
    ("started by", "/principal/triggering_user"),
    ("policy", "/policy"),
    ("policy version", "/policy_digest"),
    ("provider", "/provider"),
    ("asked from", "/source"),
    ("asked from", "/caller/source"),
    ("reason given", "/reason"),
    ("lives, seconds", "/ttl_seconds"),
    ("ends", "/lease/expires_at"),
    ("ends", "/outcome/lease/expires_at"),
    ("credential id", "/lease/credential_id"),
    ("credential id", "/outcome/lease/credential_id"),
    ("request id", "/request_id"),
];

fn part(entry: &Value) -> Part {
    let facts = TOLD.iter().filter_map(|(name, pointer)| {
        let value = match entry.pointer(pointer)? {
            Value::String(text) => text::value(text),
            Value::Number(number) => text::value(&number.to_string()),
            _ => return None,
        };
        Some(Fact { name, value })
    });
    let reasons = entry.get("reasons").and_then(Value::as_array).into_iter().flatten();
    let said =
        |reason: &Value, name: &str| reason.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let reasons = reasons.map(|reason| Fact {
        name: "denied by",
        value: text::value(&format!(
            "{}: {} {}",
            said(reason, "rule"),
            said(reason, "message"),
            said(reason, "remedy")
        )),
    });
    let time = |value: &Value| value.as_str().and_then(|at| at.parse::<Timestamp>().ok());
    Part {
        kind: entry.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned(),
        at: entry.get("at").and_then(time).map(text::exact).unwrap_or_default(),
        facts: facts.chain(reasons).collect(),
        whole: text::json(entry),
    }
}

pub(super) async fn one(State(app): State<App>, visitor: Visitor, Path(id): Path<String>) -> Page {
    visitor.caller.need(&[Role::Auditor, Role::Admin])?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::bad_request("an id is a UUID"))?;
    let entries = issuances::one(&app.broker.pool, id).await?;
    let first = entries.first().ok_or_else(|| Problem::not_found("nothing is on record under this id"))?;
    let string = |pointer: &str| first.pointer(pointer).and_then(Value::as_str);
    let run = match (string("/principal/issuer"), string("/principal/dag_id"), string("/principal/run_id")) {
        (Some(issuer), Some(dag), Some(run)) => Some(run_path(issuer, dag, run)),
        _ => None,
    };
    let hit = revocations::of_issuance(&app.broker.pool, id).await?;
    let frame = Frame::load(&app, &visitor, Some(Section::Issuances), "One issuance").await?;
    render(&One {
        id: id.to_string(),
        run,
        policy: string("/policy").map(super::policies::path),
        grant: string("/grant/id").map(|id| format!("/console/grants/{}", text::component(id))),
        may_revoke: visitor.caller.has(&[Role::Admin]),
        revoked: hit.as_ref().map(|hit| ended(hit, frame.now)),
        parts: entries.iter().map(part).collect(),
        frame,
    })
}
