//! What operators watch.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use jiff::SignedDuration;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;

use super::App;
use crate::broker::Broker;
use crate::store::{self, StoreError};
use crate::telemetry;

/// How long the readiness check waits for the database.
const PATIENCE: Duration = Duration::from_millis(800);

/// Alive: the process answers.
#[utoipa::path(
    get, path = "/healthz", tag = "operations",
    responses((status = 200, description = "Alive.", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether this replica can issue.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Readiness {
    /// Whether it can.
    pub(crate) ready: bool,
    /// What stands in the way.
    pub(crate) problems: Vec<String>,
    /// What an operator should look at before it does.
    pub(crate) warnings: Vec<String>,
    /// How many policies are in force.
    pub(crate) policies: usize,
}

/// Ready: the record can be written and the guardrails read; not while stopping.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "Ready.", body = Readiness),
        (status = 503, description = "Not ready.", body = Readiness),
    )
)]
pub(super) async fn readyz(State(app): State<App>) -> impl IntoResponse {
    let readiness = readiness(&app).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

/// Whether this replica can issue, and what stands in the way.
pub(crate) async fn readiness(app: &App) -> Readiness {
    let broker = &app.broker;
    let catalogue = broker.library.catalogue();
    let mut problems = Vec::new();
    if app.stopping.is_cancelled() {
        problems.push("this replica is stopping".to_owned());
    }
    match tokio::time::timeout(PATIENCE, clock_difference(broker)).await {
        Ok(Ok(off)) if app.max_clock_skew.is_some_and(|most| off > most) => {
            problems.push(format!(
                "this replica's clock is {} s from the database's: set it right, or database.max_clock_skew_s",
                off.as_secs()
            ));
        }
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => problems.push("the database does not answer".to_owned()),
    }
    if catalogue.guardrails().is_none() {
        problems.push("the guardrails cannot be read".to_owned());
    }
    if let Some(fault) = broker.log.health().fault() {
        problems.push(format!("the log is at fault: {}", fault.kind()));
    }
    let mut warnings = broker.reloaded.warnings();
    warnings.extend(app.tls.iter().flat_map(|tls| tls.warnings()));
    // Why it cannot names a place: that is for the log of the process.
    if broker.log.health().anchor_away().is_some() {
        warnings.push("the log's anchor cannot be read or written: nothing new is signed".to_owned());
    }
    Readiness { ready: problems.is_empty(), problems, warnings, policies: catalogue.len() }
}

/// How far this replica's clock is from the database's, at the least: what the answer took is nobody's fault.
async fn clock_difference(broker: &Broker) -> Result<SignedDuration, StoreError> {
    let before = broker.clock.now();
    let there = store::clock(&broker.pool).await?;
    let after = broker.clock.now();
    Ok(before.duration_since(there).max(there.duration_since(after)).max(SignedDuration::ZERO))
}

/// Measurements, in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "The measurements.", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    telemetry::at_scrape(&app.broker);
    let text = telemetry::recorder().map_or_else(String::new, PrometheusHandle::render);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
