//! `/console`: pages for approvers, admins and auditors.
//!
//! Plain HTML that works without scripts; the one script adds keys and keeps the waiting list fresh. Whatever a page
//! shows or does goes through the functions that the REST API goes through. A page comes to people with a session
//! (`session`); what changes something also has to come from a page of the console itself.

mod activity;
mod assets;
mod chart;
mod dry_run;
mod freezes;
mod grants;
mod health;
mod issuances;
mod notifications;
mod page;
mod people;
mod policies;
mod replays;
mod reports;
mod revocations;
mod runs;
mod session;
mod sign_in;
mod text;
mod waiting;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};

use crate::http::App;

/// What a page may load and do: its own style sheet and scripts, requests to its own host, nothing inline, no frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The console's routes; one page that says what to configure where nobody can sign in.
pub(crate) fn router(app: &App) -> Router<App> {
    let routes = if app.broker.sign_in.is_some() { routes() } else { nowhere() };
    routes.layer(middleware::from_fn(every_page))
}

fn routes() -> Router<App> {
    Router::new()
        .route("/console", get(waiting::home))
        .route("/console/waiting", get(waiting::fragment))
        .route("/console/sign-in", get(sign_in::begin))
        .route("/console/callback", get(sign_in::callback))
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/assets/{name}", get(assets::asset))
        .route("/console/grants", get(grants::list))
        .route("/console/grants/{id}", get(grants::page))
        .route("/console/grants/{id}/withdraw", post(grants::withdraw))
        .route("/console/grants/{id}/approve", post(grants::approve))
        .route("/console/grants/{id}/deny", post(grants::deny))
        .route("/console/issuances", get(issuances::list))
        .route("/console/issuances/{id}", get(issuances::one))
        .route("/console/reports", get(reports::list))
        .route("/console/reports/{name}", get(reports::one))
        .route("/console/runs/{issuer}/{dag_id}/{run_id}", get(runs::page))
        .route("/console/activity", get(activity::page))
        .route("/console/policies", get(policies::list))
        .route("/console/policies/{name}", get(policies::one).post(policies::test))
        .route("/console/policies/{name}/replay", post(replays::page))
        .route("/console/dry-run", get(dry_run::page))
        .route("/console/freezes", get(freezes::page).post(freezes::set))
        .route("/console/freezes/{id}/lift", post(freezes::lift))
        .route("/console/revocations", get(revocations::list).post(revocations::revoke))
        .route("/console/revocations/{id}", get(revocations::one))
        .route("/console/notifications", get(notifications::page))
        .route("/console/notifications/{id}/retry", post(notifications::retry))
        .route("/console/people", get(people::page))
        .route("/console/people/disable", post(people::disable))
        .route("/console/people/enable", post(people::enable))
        .route("/console/people/erase", post(people::erase))
        .route("/console/sessions/{id}/end", post(people::end_session))
        .route("/console/health", get(health::page))
        .route("/console/{*rest}", get(page::unknown))
}

fn nowhere() -> Router<App> {
    let page = || async { page::Oops::not_configured() };
    Router::new()
        .route("/console", get(page))
        .route("/console/assets/{name}", get(assets::asset))
        .route("/console/{*rest}", get(page))
}

async fn every_page(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
