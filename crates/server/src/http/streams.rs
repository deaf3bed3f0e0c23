//! `/v1/streams`: how far the record has been told to the systems that collect it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::App;
use super::auth::{Caller, Role};
use super::error::Problem;
use crate::store::streams::Progress;

/// The configured streams.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Streams)]
pub(super) struct Listed {
    /// Each with its place in the log.
    streams: Vec<Progress>,
}

/// How far each stream has come: which records have arrived, how many wait, and why, if it is stuck.
#[utoipa::path(
    get, path = "/v1/streams", tag = "record", security(("bearer" = [])),
    responses((status = 200, description = "The streams that this Cortex is configured for.", body = Listed))
)]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Listed>, Problem> {
    caller.need(&[Role::Admin, Role::Auditor])?;
    Ok(Json(Listed { streams: app.broker.streams.progress(&app.broker).await? }))
}
