//! The door: who looks at a page, and whether what they send comes from a page of the console.

use axum::RequestExt as _;
use axum::body::{Body, Bytes};
use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts};
use axum::response::{Html as HtmlBody, IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cortex_core::Digest;
use cortex_core::record::What;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::page::{Oops, render};
use super::text;
use crate::http::auth::Caller;
use crate::http::{App, Client, Problem};
use crate::sign_in::{SignIn, is_own_path};
use crate::store::sessions::{self, Session};

/// What the console is called by browsers: a cookie for this host alone, for TLS alone, for no script. Over plain http,
/// which is for loopback only, browsers do not take such names.
fn name(app: &App, base: &'static str) -> String {
    if is_tls(app) { format!("__Host-{base}") } else { base.to_owned() }
}

fn is_tls(app: &App) -> bool {
    app.issuer_url.starts_with("https://")
}

/// The cookie that holds a session's secret.
const SESSION: &str = "cortex";
/// The cookie that holds what a sign-in remembers.
const PENDING: &str = "cortex-sign-in";

fn cookie(app: &App, base: &'static str, value: String, same_site: SameSite) -> Cookie<'static> {
    Cookie::build((name(app, base), value))
        .path("/")
        .http_only(true)
        .secure(is_tls(app))
        .same_site(same_site)
        .build()
}

/// The cookie of a session that has just begun. Without an age: it goes with the browser.
pub(super) fn session_cookie(app: &App, secret: String) -> Cookie<'static> {
    cookie(app, SESSION, secret, SameSite::Strict)
}

/// The cookie that a sign-in is completed with. It has to come along from the provider's site. What is in it says
/// itself how long it is good.
pub(super) fn pending_cookie(app: &App, sealed: String) -> Cookie<'static> {
    cookie(app, PENDING, sealed, SameSite::Lax)
}

/// Takes both cookies back.
pub(super) fn without(app: &App, jar: CookieJar, session: bool) -> CookieJar {
    let jar = jar.remove(cookie(app, PENDING, String::new(), SameSite::Lax));
    if session { jar.remove(cookie(app, SESSION, String::new(), SameSite::Strict)) } else { jar }
}

/// What the browser kept of its sign-in.
pub(super) fn pending(app: &App, jar: &CookieJar) -> Option<String> {
    jar.get(&name(app, PENDING)).map(|cookie| cookie.value().to_owned())
}

/// A person with a session.
pub(super) struct Visitor {
    pub(super) caller: Caller,
    pub(super) session: Session,
    /// What a form has to carry: it comes from the session's secret, so that only a page of it knows it.
    pub(super) form_token: String,
    /// What was done just now, as the address says.
    pub(super) notice: Option<&'static str>,
}

impl Visitor {
    async fn find(
        headers: &HeaderMap,
        uri: &Uri,
        app: &App,
        sign_in: &SignIn,
    ) -> Result<Option<Self>, Problem> {
        let jar = CookieJar::from_headers(headers);
        let cookie = jar.get(&name(app, SESSION)).map(Cookie::value);
        let Some(secret) = cookie.filter(|secret| secret.len() <= 100) else { return Ok(None) };
        let mut connection = app.broker.pool.acquire().await?;
        let hash = Digest::of(secret.as_bytes());
        let now = app.broker.clock.now();
        // A page that keeps itself fresh is no use of the session: it would never end.
        let used = uri.path() != "/console/waiting";
        let session = sessions::find(&mut connection, hash, sign_in.idle_ttl(), now, used).await?;
        Ok(session.map(|session| Self {
            caller: Caller::new(session.person.clone(), &app.broker.live().roles),
            session,
            form_token: form_token(secret),
            notice: super::page::notice(uri),
        }))
    }
}

fn form_token(secret: &str) -> String {
    hex::encode(Digest::of(format!("cortex console form\n{secret}").as_bytes()).as_bytes())
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let Some(sign_in) = &app.broker.sign_in else {
            return Err(Oops::not_configured().into_response());
        };
        match Self::find(&parts.headers, &parts.uri, app, sign_in).await {
            Ok(Some(visitor)) => Ok(visitor),
            Ok(None) => Err(no_session(parts)),
            Err(problem) => Err(Oops::from(problem).into_response()),
        }
    }
}

/// Nobody is signed in. A link from another site comes without the cookie, because the cookie is for this site alone:
/// the page then asks for itself once more, and if there is a session, it shows.
fn no_session(parts: &Parts) -> Response {
    let here = parts.uri.path_and_query().map_or("/console", |path| path.as_str());
    if parts.method != Method::GET || !is_own_path(here) {
        let detail = "your session is over; sign in and do it again: nothing was changed";
        return Oops::with_sign_in(StatusCode::UNAUTHORIZED, detail).into_response();
    }
    if fetch_site(&parts.headers) == Some("cross-site") {
        return onwards(here);
    }
    if parts.headers.contains_key("hx-request") {
        let away = format!("/console/sign-in?return_to={}", text::component("/console"));
        return (StatusCode::UNAUTHORIZED, [("hx-redirect", away)]).into_response();
    }
    Redirect::to(&format!("/console/sign-in?return_to={}", text::component(here))).into_response()
}

#[derive(askama::Template)]
#[template(path = "console/onwards.html")]
struct Onwards<'a> {
    to: &'a str,
}

/// A page that goes on by itself to one of the console's own: from here, and not from another site.
pub(super) fn onwards(to: &str) -> Response {
    render(&Onwards { to })
        .map_or_else(IntoResponse::into_response, |HtmlBody(body)| HtmlBody(body).into_response())
}

fn fetch_site(headers: &HeaderMap) -> Option<&str> {
    headers.get("sec-fetch-site").and_then(|value| value.to_str().ok())
}

/// Something that a person does: a form of the console, sent from a page of the console in their session.
pub(super) struct Act<T> {
    pub(super) visitor: Visitor,
    pub(super) form: T,
}

/// A form with nothing in it but its token.
#[derive(Deserialize)]
pub(super) struct Nothing {}

#[derive(Deserialize)]
struct Token {
    token: String,
}

impl<T: DeserializeOwned> FromRequest<App> for Act<T> {
    type Rejection = Response;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, Response> {
        let oops = |problem: Problem| Oops::from(problem).into_response();
        let visitor: Visitor = request.extract_parts_with_state(app).await?;
        let Ok(client) = request.extract_parts_with_state::<Client, _>(app).await;
        let own = is_from_console(request.headers(), app);
        let body = Bytes::from_request(request, app).await.map_err(IntoResponse::into_response)?;
        let token: Option<Token> = form(&body).await;
        let known = token.is_some_and(|token| {
            let (sent, expected) = (token.token.as_bytes(), visitor.form_token.as_bytes());
            aws_lc_rs::constant_time::verify_slices_are_equal(sent, expected).is_ok()
        });
        if !own || !known {
            return Err(refuse(app, &visitor, client).await);
        }
        let form = form(&body).await;
        let form = form.ok_or_else(|| oops(Problem::bad_request("the form cannot be read")))?;
        Ok(Self { visitor, form })
    }
}

/// Reads a form; unknown fields are passed over, because each form carries its token too.
async fn form<T: DeserializeOwned>(body: &Bytes) -> Option<T> {
    let request = Request::post("/").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let request = request.body(Body::from(body.clone())).ok()?;
    Form::<T>::from_request(request, &()).await.ok().map(|Form(form)| form)
}

/// Whether the browser says that a page of the console sent this. `Origin` is in every such request of a browser of
/// today; where it is missing, `Sec-Fetch-Site` has to be there.
fn is_from_console(headers: &HeaderMap, app: &App) -> bool {
    let ours = reqwest::Url::parse(&app.issuer_url).map(|url| url.origin().ascii_serialization());
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let same_origin = match (origins.next(), origins.next()) {
        (None, _) => fetch_site(headers) == Some("same-origin"),
        (Some(origin), None) => ours.is_ok_and(|ours| origin.as_bytes() == ours.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    same_origin && fetch_site(headers).is_none_or(|site| site == "same-origin")
}

/// Refuses what another site sent with this person's cookie, or an old page, and writes it down.
async fn refuse(app: &App, visitor: &Visitor, client: Client) -> Response {
    let what = What::SessionRefused {
        reason: "cross_site".to_owned(),
        person: visitor.caller.subject(),
        request_id: client.request_id,
        source: client.source.map(Into::into),
    };
    if let Err(error) = app.broker.recorder.note(what).await {
        tracing::warn!(%error, "a refused form is not on record");
    }
    Oops::from(Problem::new(
        StatusCode::FORBIDDEN,
        "this was not sent from a page of this console in your session, so nothing was done; open the page again",
    ))
    .into_response()
}
