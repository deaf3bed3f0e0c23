//! `/v1/me`, `/v1/sign-in`, `/v1/sessions`, `/v1/people`: who signs in, and who no longer may.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use cortex_core::record::{PersonChange, SessionEnd};
use cortex_core::{IssuerName, Principal, SessionId};
use cortex_identity::Kind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::freezes::{checked_reason, know_at_once};
use super::{App, body};
use crate::store::erasure::{self, Erased, ErasureError, NewErasure};
use crate::store::people::{self, DisabledPerson};
use crate::store::sessions::{self, Session};

/// How many names of Airflows one call may erase.
const USERS_MAX: usize = 20;

/// How a command line signs its person in.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct SignInHelp {
    /// The issuer, whose metadata says the rest.
    issuer: String,
    /// The client to sign in as: what the issuer's tokens for this API carry as their audience.
    client_id: String,
    /// The scopes to ask for.
    scopes: Vec<String>,
}

/// Where people sign in, for command lines.
#[utoipa::path(
    get, path = "/v1/sign-in", tag = "operations",
    responses(
        (status = 200, description = "Where and how.", body = SignInHelp),
        (status = 404, description = "Nobody can sign in here.", body = Problem),
    )
)]
pub(super) async fn sign_in(State(app): State<App>) -> Result<Json<SignInHelp>, Problem> {
    let none = || Problem::not_found("no sign-in is configured here; an admin writes [sign_in]");
    let sign_in = app.broker.sign_in.as_ref().ok_or_else(none)?;
    let issuer = sign_in.issuer();
    Ok(Json(SignInHelp {
        issuer: issuer.iss.clone(),
        client_id: issuer.audience.clone(),
        scopes: sign_in.scopes().to_vec(),
    }))
}

/// Who asks, as Cortex knows them.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Me {
    /// The person as one string, as the record shows them.
    principal: String,
    /// The person: issuer, subject, address, groups and what else their issuer said.
    #[schema(value_type = Object)]
    person: Value,
    /// What their groups let them do.
    roles: Vec<Role>,
}

/// Who am I, and what may I do?
#[utoipa::path(
    get, path = "/v1/me", tag = "people", security(("bearer" = [])),
    responses((status = 200, description = "Who asks.", body = Me))
)]
pub(super) async fn me(State(_app): State<App>, caller: Caller) -> Result<Json<Me>, Problem> {
    let person = serde_json::to_value(&caller.person).map_err(|_| Problem::internal())?;
    Ok(Json(Me { principal: caller.subject(), person, roles: caller.roles().to_vec() }))
}

/// One person's session at the console.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct SessionView {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: SessionId,
    /// Whose it is, as principal.
    person: String,
    /// When they signed in.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When it was last used, to the minute.
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: Timestamp,
    /// When it ends at the latest.
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        let Session { id, person, started_at, last_seen_at, ends_at } = session;
        Self { id, person: Principal::Person(person).subject(), started_at, last_seen_at, ends_at }
    }
}

/// The sessions at the console that live, the latest first.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "people", security(("bearer" = [])),
    responses((status = 200, description = "The sessions; 1,000 at the most.", body = [SessionView]))
)]
pub(super) async fn sessions(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Vec<SessionView>>, Problem> {
    caller.need(&[Role::Admin])?;
    let sessions = sessions::list(&app.broker.pool, app.broker.clock.now()).await?;
    Ok(Json(sessions.into_iter().map(SessionView::from).collect()))
}

/// End somebody's session at the console.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", tag = "people", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The session.")),
    responses(
        (status = 204, description = "It is over."),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "No such session.", body = Problem),
    )
)]
pub(super) async fn end_session(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    end(&app, &caller, &id).await.map(|()| StatusCode::NO_CONTENT)
}

/// Ends a session, for the API and the console alike.
pub(crate) async fn end(app: &App, caller: &Caller, id: &str) -> Result<(), Problem> {
    caller.need(&[Role::Admin])?;
    let id: SessionId = id.parse().map_err(|_| Problem::bad_request("a session's id is a UUID"))?;
    let mut connection = app.broker.pool.acquire().await?;
    let stamp = app.broker.recorder.stamp();
    let ended = sessions::end(&mut connection, id, SessionEnd::Revoked, &caller.subject(), stamp).await?;
    if ended { Ok(()) } else { Err(Problem::not_found("there is no such session")) }
}

/// The people who are not let in, the latest first.
#[utoipa::path(
    get, path = "/v1/people/disabled", tag = "people", security(("bearer" = [])),
    responses((status = 200, description = "Who; 1,000 at the most.", body = [DisabledPerson]))
)]
pub(super) async fn disabled(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Vec<DisabledPerson>>, Problem> {
    caller.need(&[Role::Admin, Role::Auditor])?;
    Ok(Json(people::disabled(&app.broker.pool).await?))
}

/// One person, by the names that their principal is made of.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersonName {
    /// The configured name of the issuer that vouches for them.
    #[schema(max_length = 32)]
    pub(crate) issuer: String,
    /// The `sub` that it knows them by.
    #[schema(min_length = 1, max_length = 255)]
    pub(crate) subject: String,
}

/// Whether the call changed anything.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Changed {
    /// False if it was so before.
    changed: bool,
}

/// Let a person in no longer: their sessions end, and their tokens are refused by every replica.
#[utoipa::path(
    post, path = "/v1/people/disable", tag = "people", security(("bearer" = [])), request_body = PersonName,
    responses(
        (status = 200, description = "They are not let in.", body = Changed),
        (status = 409, description = "Nobody disables themselves.", body = Problem),
        (status = 422, description = "No such issuer of people, or no subject.", body = Problem),
    )
)]
pub(super) async fn disable(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    caller.need(&[Role::Admin])?;
    change(&app, &caller, body::json(&headers, &body)?, false).await.map(|changed| Json(Changed { changed }))
}

/// Let a person in again.
#[utoipa::path(
    post, path = "/v1/people/enable", tag = "people", security(("bearer" = [])), request_body = PersonName,
    responses(
        (status = 200, description = "They are let in.", body = Changed),
        (status = 409, description = "Nobody enables themselves.", body = Problem),
        (status = 422, description = "No such issuer of people, or no subject.", body = Problem),
    )
)]
pub(super) async fn enable(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Changed>, Problem> {
    caller.need(&[Role::Admin])?;
    change(&app, &caller, body::json(&headers, &body)?, true).await.map(|changed| Json(Changed { changed }))
}

/// Whose name is to be erased, and why.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erase {
    /// The name of the issuer that vouches for them.
    #[schema(max_length = 32)]
    pub(crate) issuer: String,
    /// The `sub` that it knows them by.
    #[schema(min_length = 1, max_length = 255)]
    pub(crate) subject: String,
    /// What Airflows and operating systems call them, where that is none of the names that their issuer says.
    #[serde(default)]
    #[schema(max_items = 20)]
    pub(crate) users: Vec<String>,
    /// Why: a ticket, say. It stays on record, so it must not name them.
    #[schema(min_length = 1, max_length = 2000)]
    pub(crate) reason: String,
}

/// Erase a person: nothing leads from the log to them any more, and it verifies as before. It cannot be undone.
///
/// Let their identity provider keep them out first: whoever signs in again is a new person to Cortex. Their sessions end,
/// and what waits for an approval and is theirs is withdrawn. What exports, streams, notifications and backups have
/// already is out of reach.
#[utoipa::path(
    post, path = "/v1/people/erase", tag = "people", security(("bearer" = [])), request_body = Erase,
    responses(
        (status = 200, description = "They are erased.", body = Erased),
        (status = 409, description = "They are disabled, a freeze or a revocation names them, or it is you.", body = Problem),
        (status = 422, description = "No issuer, no subject, no reason, or one that names them.", body = Problem),
    )
)]
pub(super) async fn erase(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Erased>, Problem> {
    caller.need(&[Role::Admin])?;
    remove(&app, &caller, body::json(&headers, &body)?).await.map(Json)
}

/// Erases a person, for the API and the console alike.
pub(crate) async fn remove(app: &App, caller: &Caller, asked: Erase) -> Result<Erased, Problem> {
    caller.need(&[Role::Admin])?;
    let Erase { issuer, subject, users, reason } = asked;
    let refused = |why: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    let issuer: IssuerName = issuer.parse().map_err(|_| refused("issuer is not the name of an issuer"))?;
    let subject = checked_subject(subject)?;
    let plain = |name: &String| (1..=512).contains(&name.len()) && !name.chars().any(char::is_control);
    if users.len() > USERS_MAX || !users.iter().all(plain) {
        return Err(refused("users are at most 20 names of 1 to 512 bytes, without control characters"));
    }
    let reason = checked_reason(reason)?;
    refuse_self(caller, &issuer, &subject)?;
    let erasure = NewErasure { issuer, subject, users, reason, by: caller.subject() };
    let mut connection = app.broker.pool.acquire().await?;
    let erased = erasure::erase(&mut connection, erasure, app.broker.recorder.stamp()).await?;
    drop(connection);
    know_at_once(app).await;
    Ok(erased)
}

impl From<ErasureError> for Problem {
    fn from(error: ErasureError) -> Self {
        match error {
            ErasureError::Store(error) => error.into(),
            ErasureError::Named => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            other => Self::new(StatusCode::CONFLICT, other.to_string()),
        }
    }
}

fn checked_subject(subject: String) -> Result<String, Problem> {
    let printable = subject.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if (1..=255).contains(&subject.len()) && printable {
        return Ok(subject);
    }
    let detail = "subject is 1 to 255 printable ASCII characters";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

fn refuse_self(caller: &Caller, issuer: &IssuerName, subject: &str) -> Result<(), Problem> {
    if caller.person.issuer == *issuer && caller.person.subject == subject {
        return Err(Problem::new(StatusCode::CONFLICT, "nobody does this to themselves; ask another admin"));
    }
    Ok(())
}

/// Disables or enables a person, for the API and the console alike. Whether that changed anything.
pub(crate) async fn change(
    app: &App,
    caller: &Caller,
    name: PersonName,
    enable: bool,
) -> Result<bool, Problem> {
    caller.need(&[Role::Admin])?;
    let refused = |why: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    let known = |issuer: &IssuerName| {
        let status = app.broker.live().identity.status();
        status.iter().any(|known| known.issuer == *issuer && known.kind == Kind::Person)
    };
    let issuer = name.issuer.parse::<IssuerName>().ok().filter(known);
    let issuer = issuer.ok_or_else(|| refused("issuer is not the name of a configured issuer of people"))?;
    let subject = checked_subject(name.subject)?;
    refuse_self(caller, &issuer, &subject)?;
    let change = PersonChange { issuer, subject, by: caller.subject() };
    let mut connection = app.broker.pool.acquire().await?;
    let stamp = app.broker.recorder.stamp();
    Ok(if enable {
        people::enable(&mut connection, change, stamp).await?
    } else {
        people::disable(&mut connection, change, stamp).await?
    })
}
