//! Signing in and out.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::CookieJar;
use cortex_core::record::{SessionEnd, What};
use cortex_core::{Digest, Person, Principal};
use cortex_identity::Known;
use serde::Deserialize;

use super::assets::{ASSETS, Assets};
use super::page::Oops;
use super::session::{self, Act, Nothing};
use crate::denial::of_known;
use crate::http::{App, Client};
use crate::sign_in::{Callback, SignIn, SignInError, is_own_path, secret};
use crate::store::{StoreError, people, sessions};

#[derive(Deserialize)]
pub(super) struct BeginQuery {
    /// Where to go afterwards; only the console's own pages.
    return_to: Option<String>,
    /// Even if the provider remembers the person.
    again: Option<String>,
}

/// Sends the browser to the identity provider.
pub(super) async fn begin(
    State(app): State<App>,
    jar: CookieJar,
    Query(query): Query<BeginQuery>,
) -> Result<Response, Oops> {
    let sign_in = configured(&app)?;
    let return_to = query.return_to.as_deref().unwrap_or("/console");
    if !is_own_path(return_to) {
        let detail = "return_to leads away from the console; sign in and find your way from there";
        return Err(Oops::with_sign_in(StatusCode::BAD_REQUEST, detail));
    }
    let begun = sign_in.begin(&app.broker, return_to, query.again.is_some()).await;
    let begun = begun.map_err(|error| shown(&error))?;
    Ok((jar.add(session::pending_cookie(&app, begun.sealed)), Redirect::to(&begun.url)).into_response())
}

/// Where the provider sends the browser back to.
pub(super) async fn callback(
    State(app): State<App>,
    client: Client,
    jar: CookieJar,
    Query(callback): Query<Callback>,
) -> Response {
    let sealed = session::pending(&app, &jar);
    // Used up whatever comes of it.
    let jar = session::without(&app, jar, false);
    match enter(&app, &client, callback, sealed.as_deref()).await {
        Ok((secret, return_to)) => {
            (jar.add(session::session_cookie(&app, secret)), session::onwards(&return_to)).into_response()
        }
        Err(oops) => (jar, oops).into_response(),
    }
}

/// Completes the sign-in and begins a session: its secret, and where to go.
async fn enter(
    app: &App,
    client: &Client,
    callback: Callback,
    sealed: Option<&str>,
) -> Result<(String, String), Oops> {
    let sign_in = configured(app)?;
    let completed = sign_in.complete(&app.broker, callback, sealed).await;
    let (person, return_to) = match completed {
        Ok(completed) => completed,
        Err(error) => return Err(refused(app, client, &error).await),
    };
    if people::is_disabled(&app.broker.pool, &person.issuer, &person.subject).await? {
        note(app, client, "disabled", Principal::Person(person).subject()).await;
        let detail = "an admin of Cortex has disabled your access; ask them";
        return Err(Oops::with_sign_in(StatusCode::FORBIDDEN, detail));
    }
    Ok((start(app, client, sign_in, person).await?, return_to))
}

async fn start(app: &App, client: &Client, sign_in: &SignIn, person: Person) -> Result<String, StoreError> {
    let secret = secret(&*app.broker.random);
    let mut connection = app.broker.pool.acquire().await?;
    let (hash, ttl) = (Digest::of(secret.as_bytes()), sign_in.session_ttl());
    sessions::start(&mut connection, hash, person, ttl, client.source, app.broker.recorder.stamp()).await?;
    Ok(secret)
}

/// Writes down who was not let in: by name if the token was the issuer's, counted otherwise.
async fn refused(app: &App, client: &Client, error: &SignInError) -> Oops {
    tracing::info!(code = error.code(), ?error, "a sign-in was refused");
    match error {
        SignInError::Token(rejection) if rejection.verified.is_some() => {
            let known = rejection.verified.as_deref();
            let person = known.map_or_else(String::new, |known: &Known| of_known(&app.broker, known));
            note(app, client, error.code(), person).await;
        }
        SignInError::Unavailable(_) => {}
        _ => app.broker.noise.count(counted(error), client.source, app.broker.clock.now()),
    }
    shown(error)
}

/// The reason that a refusal is counted under.
fn counted(error: &SignInError) -> &'static str {
    match error {
        SignInError::Token(rejection) => rejection.reason.code(),
        SignInError::Stale(code) => code,
        SignInError::Provider(_) | SignInError::Unavailable(_) => "provider_refused",
    }
}

async fn note(app: &App, client: &Client, reason: &str, person: String) {
    let what = What::SessionRefused {
        reason: reason.to_owned(),
        person,
        request_id: client.request_id.clone(),
        source: client.source.map(Into::into),
    };
    if let Err(error) = app.broker.recorder.note(what).await {
        tracing::warn!(%error, "a refused sign-in is not on record");
    }
}

fn shown(error: &SignInError) -> Oops {
    let status = match error {
        SignInError::Unavailable(why) => {
            tracing::warn!(why, "the identity provider cannot be used for a sign-in");
            StatusCode::SERVICE_UNAVAILABLE
        }
        SignInError::Provider(_) | SignInError::Stale(_) | SignInError::Token(_) => StatusCode::BAD_REQUEST,
    };
    Oops::with_sign_in(status, error.to_string())
}

fn configured(app: &App) -> Result<&SignIn, Oops> {
    app.broker.sign_in.as_ref().ok_or_else(Oops::not_configured)
}

#[derive(askama::Template)]
#[template(path = "console/signed_out.html")]
struct SignedOut {
    assets: &'static Assets,
}

/// Ends the session. The identity provider's own session is not Cortex's to end.
pub(super) async fn sign_out(
    State(app): State<App>,
    jar: CookieJar,
    act: Act<Nothing>,
) -> Result<Response, Oops> {
    let visitor = act.visitor;
    let mut connection = app.broker.pool.acquire().await?;
    let (id, by) = (visitor.session.id, visitor.caller.subject());
    sessions::end(&mut connection, id, SessionEnd::SignedOut, &by, app.broker.recorder.stamp()).await?;
    let page = super::page::render(&SignedOut { assets: &ASSETS })?;
    Ok((session::without(&app, jar, true), page).into_response())
}
