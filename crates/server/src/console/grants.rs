//! Grants: all of them, one of them whole, and people's word on it.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use cortex_core::grant::{self, Asked, Grant};
use cortex_core::policy::ValidFor;
use cortex_core::{Digest, Principal};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::page::{Frame, Oops, Page, Section, render};
use super::session::{Act, Visitor};
use super::text::{self, Html};
use super::waiting;
use crate::http::auth::Role;
use crate::http::grants::{may_withdraw, parse_id, said_on, say, take_back};
use crate::http::{App, Problem};
use crate::store::grants::{self, Filter, Word};

/// How many grants a page has.
const ROWS: i64 = 50;

/// What to look for; an empty field is none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    status: String,
    kind: String,
    policy: String,
    dag_id: String,
    before: String,
}

struct Row {
    id: String,
    policy: Html,
    what: Html,
    sub: Html,
    who: Html,
    status: &'static str,
    tone: &'static str,
    requested: Html,
}

struct Choice {
    word: &'static str,
    here: bool,
}

#[derive(Template)]
#[template(path = "console/grants.html")]
struct List {
    frame: Frame,
    search: Search,
    statuses: Vec<Choice>,
    rows: Vec<Row>,
    next: Option<String>,
}

/// Every grant, newest first.
pub(super) async fn list(State(app): State<App>, visitor: Visitor, Query(search): Query<Search>) -> Page {
    visitor.caller.need(&Role::ALL)?;
    let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let fields = [&search.status, &search.kind, &search.policy, &search.dag_id];
    if fields.iter().any(|text| text.len() > 500 || text.contains('\0')) {
        return Err(Problem::bad_request("a filter has at most 500 bytes and no NUL").into());
    }
    let filter = Filter {
        status: some(&search.status),
        kind: some(&search.kind),
        policy: some(&search.policy),
        dag_id: some(&search.dag_id),
        run_id: None,
        before: some(&search.before).map(|id| parse_id(&id)).transpose()?,
        limit: ROWS,
    };
    let frame = Frame::load(&app, &visitor, Some(Section::Grants), "Grants").await?;
    let mut connection = app.broker.pool.acquire().await?;
    let found = grants::list(&mut connection, &filter, frame.now).await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == ROWS);
    let next = found.last().filter(|_| full).map(|last| next(&search, last));
    let statuses = grant::State::NAMES.map(|word| Choice { word, here: search.status == word });
    render(&List {
        rows: found.iter().map(|grant| row(grant, frame.now)).collect(),
        statuses: statuses.into(),
        next,
        search,
        frame,
    })
}

fn next(search: &Search, last: &Grant) -> String {
    let [status, kind, policy, dag_id] =
        [&search.status, &search.kind, &search.policy, &search.dag_id].map(|text| text::component(text));
    format!("/console/grants?status={status}&kind={kind}&policy={policy}&dag_id={dag_id}&before={}", last.id)
}

fn row(grant: &Grant, now: Timestamp) -> Row {
    let (what, sub) = waiting::subject(grant);
    Row {
        id: grant.id.to_string(),
        policy: text::line(grant.policy.as_str()),
        what: text::line(&what),
        sub: text::line_of(&sub, 60),
        who: waiting::requester(grant).as_deref().map(text::line).unwrap_or_default(),
        status: grant.state.name(),
        tone: tone(&grant.state),
        requested: text::time(grant.requested_at, now),
    }
}

fn tone(state: &grant::State) -> &'static str {
    match state {
        grant::State::Requested { .. } => "info",
        grant::State::Approved { .. } | grant::State::Spent { .. } => "ok",
        grant::State::Denied { .. } => "bad",
        grant::State::Expired { .. } | grant::State::Withdrawn { .. } | grant::State::Voided { .. } => "warn",
    }
}

/// One person's word, shown.
struct Said {
    who: Html,
    at: Html,
    comment: Html,
}

/// What a grant asks for on one provider.
struct Target {
    provider: Html,
    scope: Html,
}

/// One grant whole: what is decided on is what is shown.
#[derive(Template)]
#[template(path = "console/grant.html")]
struct One {
    frame: Frame,
    id: String,
    status: &'static str,
    tone: &'static str,
    /// What the status means, in a sentence.
    standing: Html,
    loud: bool,
    digest: String,
    policy: String,
    policy_path: String,
    policy_version: i32,
    policy_digest: String,
    facts: Vec<(&'static str, Html)>,
    run_path: Option<String>,
    targets: Vec<Target>,
    warnings: Vec<String>,
    words: Vec<Said>,
    approved: usize,
    approvers: Vec<Html>,
    quorum: u32,
    reason: Html,
    door: Door,
    may_withdraw: bool,
    whole: Html,
}

/// Whether the reader may decide.
enum Door {
    /// They may.
    Open,
    /// Others may; why they may not, and where they sign in again if that would help.
    Closed { why: String, sign_in: Option<String> },
    /// Nothing is left to decide.
    Over,
}

impl Door {
    fn new(grant: &Grant, may: Result<(), String>) -> Self {
        match may {
            _ if !matches!(grant.state, grant::State::Requested { .. }) => Self::Over,
            Ok(()) => Self::Open,
            Err(why) => {
                let here = text::component(&format!("/console/grants/{}", grant.id));
                let path = format!("/console/sign-in?again=1&return_to={here}");
                Self::Closed { sign_in: why.contains("sign in again").then_some(path), why }
            }
        }
    }
}

/// One grant.
pub(super) async fn page(State(app): State<App>, visitor: Visitor, Path(id): Path<String>) -> Page {
    visitor.caller.need(&Role::ALL)?;
    let now = app.broker.clock.now();
    let mut connection = app.broker.pool.acquire().await?;
    let grant = grants::get(&mut connection, parse_id(&id)?, now).await?;
    let grant = grant.ok_or_else(|| Problem::not_found("there is no such grant"))?;
    let authors = grants::authors(&mut connection, &[grant.policy.to_string()]).await?;
    drop(connection);
    let author = authors.get(grant.policy.as_str()).map_or("", String::as_str);
    let may = waiting::may_decide(&app, &visitor, &grant, author, now);
    let frame =
        Frame::load(&app, &visitor, Some(Section::Grants), format!("Grant for {}", grant.policy)).await?;
    let me = Principal::Person(visitor.caller.person.clone());
    let withdrawable = matches!(grant.state, grant::State::Requested { .. } | grant::State::Approved { .. });
    let may_withdraw = withdrawable && may_withdraw(&app, &me, visitor.caller.roles(), &grant).is_ok();
    render(&one(&grant, frame, may, may_withdraw))
}

fn one(grant: &Grant, frame: Frame, may: Result<(), String>, may_withdraw: bool) -> One {
    let targets = grant.request.get("targets").and_then(Value::as_object).into_iter().flatten();
    let groups = grant.approvers.groups.iter().map(|group| text::value(&format!("a member of {group}")));
    let people = grant.approvers.people.iter().map(|person| text::value(person));
    One {
        id: grant.id.to_string(),
        status: grant.state.name(),
        tone: tone(&grant.state),
        standing: standing(&grant.state, frame.now),
        loud: grant.is_break_glass(),
        digest: grant.request_digest.to_string(),
        policy: grant.policy.to_string(),
        policy_path: super::policies::path(grant.policy.as_str()),
        policy_version: grant.policy_version,
        policy_digest: grant.policy_digest.to_string(),
        facts: facts(grant, frame.now),
        run_path: run_path(grant),
        targets: targets
            .map(|(provider, scope)| Target { provider: text::line(provider), scope: text::json(scope) })
            .collect(),
        warnings: grant.warnings(),
        words: words(grant).iter().map(|word| said(word, frame.now)).collect(),
        approved: grant.approvals().len(),
        approvers: groups.chain(people).collect(),
        quorum: grant.approvers.quorum,
        reason: grant.reason.as_deref().map(text::value).unwrap_or_default(),
        door: Door::new(grant, may),
        may_withdraw,
        whole: text::json(&grant.request),
        frame,
    }
}

fn run_path(grant: &Grant) -> Option<String> {
    match &grant.asked {
        Asked::Run { requester, .. } => Some(super::runs::path(
            requester.issuer.as_str(),
            requester.dag_id.as_str(),
            requester.run_id.as_str(),
        )),
        Asked::Standing { .. } => None,
    }
}

/// Who spoke: approvals, or the one that ended it.
fn words(grant: &Grant) -> &[grant::Approval] {
    match &grant.state {
        grant::State::Denied { by, .. } | grant::State::Withdrawn { by } => std::slice::from_ref(by),
        _ => grant.approvals(),
    }
}

fn said(word: &grant::Approval, now: Timestamp) -> Said {
    Said {
        who: text::value(&word.person),
        at: text::time(word.at, now),
        comment: word.comment.as_deref().map(text::value).unwrap_or_default(),
    }
}

fn standing(state: &grant::State, now: Timestamp) -> Html {
    match state {
        grant::State::Requested { expires_at, .. } => text::told("closes", *expires_at, now),
        grant::State::Approved { expires_at, .. } => text::told("holds until", *expires_at, now),
        grant::State::Denied { decided_at, .. } => text::told("decided", *decided_at, now),
        grant::State::Expired { at, .. } => text::told("ended", *at, now),
        grant::State::Spent { decided_at, .. } => {
            text::told("its last use was made; approved", *decided_at, now)
        }
        grant::State::Withdrawn { by } => text::told("taken back", by.at, now),
        grant::State::Voided { because, .. } => text::value(because),
    }
}

/// What the request says, in the order in which people ask.
fn facts(grant: &Grant, now: Timestamp) -> Vec<(&'static str, Html)> {
    let shown = |value: &dyn ToString| Some(text::value(&value.to_string()));
    let lifetime = grant.request.get("ttl_seconds").and_then(Value::as_i64);
    let uses = match grant.uses.max {
        Some(max) => format!("{} of {max} exchanges", grant.uses.used),
        None => format!("{}, as often as the task asks", grant.uses.used),
    };
    let mut facts = match &grant.asked {
        Asked::Run { requester, valid_for, .. } => vec![
            ("DAG", shown(&requester.dag_id)),
            ("Task", shown(&requester.task_id)),
            ("Map index", requester.map_index.and_then(|index| shown(&index))),
            ("Run", shown(&requester.run_id)),
            ("Airflow", shown(&requester.issuer)),
            ("Started by", requester.triggering_user.as_ref().and_then(|user| shown(user))),
            ("Proven by", shown(&requester.attestation.as_str())),
            ("Holds for", shown(&valid_for_words(*valid_for))),
        ],
        Asked::Standing { requester, issuer, dag_id, tasks, until } => vec![
            ("DAG", shown(dag_id)),
            ("Tasks", shown(&if tasks.is_empty() { "every task".to_owned() } else { join(tasks) })),
            ("Runs", shown(&"every scheduled run")),
            ("Airflow", shown(issuer)),
            ("Asked by", shown(&Principal::Person(requester.clone()).subject())),
            ("Until", Some(text::exact(*until))),
        ],
    };
    facts.extend([
        ("Credential lives", lifetime.and_then(|ttl| shown(&text::span(ttl)))),
        ("Used", shown(&uses)),
        ("Ticket", grant.ticket.as_ref().and_then(|ticket| shown(ticket))),
        ("Asked", Some(text::time(grant.requested_at, now))),
    ]);
    facts.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
}

fn join(names: impl IntoIterator<Item = impl ToString>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

fn valid_for_words(valid_for: ValidFor) -> String {
    match valid_for {
        ValidFor::Task => "this task in this run".to_owned(),
        ValidFor::Run => "every task of this run".to_owned(),
        ValidFor::Window { seconds } => format!("every run of the DAG for {}", text::span(seconds)),
    }
}

/// What a person decides: on what they saw, by its digest.
#[derive(Deserialize)]
pub(super) struct Decision {
    digest: String,
    comment: Option<String>,
}

fn comment(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Approves a grant.
pub(super) async fn approve(
    State(app): State<App>,
    Path(id): Path<String>,
    act: Act<Decision>,
) -> Result<Redirect, Oops> {
    decide(&app, &id, act, true).await
}

/// Denies a grant.
pub(super) async fn deny(
    State(app): State<App>,
    Path(id): Path<String>,
    act: Act<Decision>,
) -> Result<Redirect, Oops> {
    decide(&app, &id, act, false).await
}

async fn decide(app: &App, id: &str, act: Act<Decision>, approve: bool) -> Result<Redirect, Oops> {
    let Act { visitor, form } = act;
    let seen = form.digest.parse::<Digest>().map_err(|_| {
        let detail = "the page did not say what you saw, so nothing was decided: open it again and look";
        Problem::new(StatusCode::PRECONDITION_FAILED, detail)
    })?;
    let comment = comment(form.comment);
    let id = said_on(id, comment.as_deref())?;
    let grant = say(app, &visitor.caller, id, Word { approve, comment, seen }).await?;
    let done = if approve { "approved" } else { "denied" };
    Ok(Redirect::to(&format!("/console/grants/{}?done={done}", grant.id)))
}

#[derive(Deserialize)]
pub(super) struct Withdrawal {
    comment: Option<String>,
}

/// Takes a grant back.
pub(super) async fn withdraw(
    State(app): State<App>,
    Path(id): Path<String>,
    act: Act<Withdrawal>,
) -> Result<Redirect, Oops> {
    let Act { visitor, form } = act;
    let me = Principal::Person(visitor.caller.person.clone());
    let comment = comment(form.comment);
    let id = parse_id(&id)?;
    take_back(&app, &me, visitor.caller.roles(), id, comment.as_deref()).await?;
    Ok(Redirect::to(&format!("/console/grants/{id}?done=withdrawn")))
}
