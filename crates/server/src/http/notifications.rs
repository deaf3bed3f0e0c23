//! `/v1/notifications`: what could not be told to an endpoint, and trying it again.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::{App, page};
use crate::store::notifications::{self, Notification};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `dead`: given up; `pending`: still to be delivered. Both where this is missing.
    status: Option<String>,
    /// The last id of the page before.
    before: Option<String>,
    /// How many, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// A page of notifications, newest first. What was delivered is not kept.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = NotificationPage)]
pub(super) struct Page {
    /// The notifications.
    notifications: Vec<Notification>,
    /// What to send as `before` for the next page.
    next: Option<String>,
}

/// Notifications that were not delivered, newest first.
#[utoipa::path(
    get, path = "/v1/notifications", tag = "grants", security(("bearer" = [])), params(ListQuery),
    responses((status = 200, description = "A page.", body = Page))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    caller.need(&[Role::Admin, Role::Auditor])?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let limit = page::size(query.limit)?;
    if query.status.as_deref().is_some_and(|status| !["dead", "pending"].contains(&status)) {
        return Err(Problem::bad_request("status is dead or pending"));
    }
    let before = query.before.as_deref().map(|text| page::id("a notification", text)).transpose()?;
    let found = notifications::list(&app.broker.pool, query.status.as_deref(), before, limit).await?;
    let next = page::next(&found, limit, |last| last.id.to_string());
    Ok(Json(Page { notifications: found, next }))
}

/// Try a notification again that was given up.
#[utoipa::path(
    post, path = "/v1/notifications/{id}/retry", tag = "grants", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The notification.")),
    responses(
        (status = 202, description = "It is sent again."),
        (status = 400, description = "Not an id.", body = Problem),
        (status = 404, description = "No dead notification of this id.", body = Problem),
    )
)]
pub(super) async fn retry(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    send_again(&app, &caller, &id).await.map(|()| StatusCode::ACCEPTED)
}

/// Tries a dead notification again, for the API and the console alike.
pub(crate) async fn send_again(app: &App, caller: &Caller, id: &str) -> Result<(), Problem> {
    caller.need(&[Role::Admin])?;
    let found =
        notifications::retry(&app.broker.pool, page::id("a notification", id)?, app.broker.clock.now())
            .await?;
    if !found {
        return Err(Problem::not_found("there is no dead notification of this id"));
    }
    tracing::info!(by = caller.subject(), id, "a dead notification is tried again");
    Ok(())
}
