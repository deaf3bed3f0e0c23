//! What a change of policies would have done: the requests on record, decided again while the caller listens.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cortex_core::policy::Policy;
use cortex_providers::BuiltIns;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::{App, body};
use crate::replay::{self, Bounds, Means, Progress, Question, Replay, ReplayError, Report};

/// The most documents in one replay.
const DOCUMENTS_MAX: usize = 100;
/// The media type of JSON lines.
const JSON_LINES: &str = "application/jsonl";

/// How far a replay may go that a server does beside its work.
fn bounds() -> Bounds {
    Bounds { records: 2_000_000, time: Duration::from_mins(5), workers: replay::cores() }
}

/// Policies to replay.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// The documents, in YAML, each of another policy.
    #[schema(min_items = 1, max_items = 100)]
    documents: Vec<String>,
    /// From when on requests are decided again: `30d`, `12h`, `2w`, a date or a time. 30 days where this is missing.
    since: Option<String>,
}

/// One line of the answer.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReplayLine {
    /// It goes on.
    Progress(Progress),
    /// What it came to: the last line.
    Result(Box<Report>),
    /// It did not come to its end: the last line.
    Problem(Problem),
}

/// Decide the requests on record again under policies that are not in force yet. The answer comes in JSON lines: how
/// far it has come, and last the result, or the problem that ended it. Nothing changes and nothing is recorded. It
/// ends with the connection, and after five minutes or two million records of a policy, which the result says. A
/// replica does one at a time.
#[utoipa::path(
    post, path = "/v1/policies/replay", tag = "policies", security(("bearer" = [])), request_body = ReplayRequest,
    responses(
        (status = 200, description = "JSON lines.", body = ReplayLine, content_type = "application/jsonl"),
        (status = 422, description = "A document is not accepted, each fault with its line.", body = Problem),
        (status = 429, description = "Another replay is under way.", body = Problem),
    )
)]
pub(super) async fn replay(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.need(&[Role::Admin])?;
    let ReplayRequest { documents, since } = body::json(&headers, &body)?;
    let turn = turn(&app)?;
    let replay = begin(&app, &documents, since.as_deref().unwrap_or("30d"), bounds()).await?;
    let work = Work { replay: Some(replay), stopping: app.stopping.clone(), _turn: turn };
    let lines = stream::unfold(work, |mut work| async move {
        let line = work.line().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), work))
    });
    Ok(([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response())
}

/// The turn to replay; it is over when this is dropped.
pub(crate) fn turn(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&app.replays).try_acquire_owned().map_err(|_| {
        let detail = "another replay is under way at this replica; ask again when it is over";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
    })
}

/// Begins a replay of `documents`.
pub(crate) async fn begin(
    app: &App,
    documents: &[String],
    since: &str,
    bounds: Bounds,
) -> Result<Replay, Problem> {
    if documents.is_empty() || documents.len() > DOCUMENTS_MAX {
        return Err(Problem::bad_request(format!("send 1 to {DOCUMENTS_MAX} documents")));
    }
    let now = app.broker.clock.now();
    let since = replay::since(since, now).map_err(|fault| Problem::bad_request(format!("since: {fault}")))?;
    let compile = |source: &String| Policy::compile(source, &BuiltIns).map_err(Problem::document);
    let policies = documents.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<_> = policies.iter().map(Policy::name).collect();
    if names.len() < policies.len() {
        return Err(Problem::bad_request("two documents are of one policy; send one of them"));
    }
    let means = Means {
        pool: app.broker.pool.clone(),
        catalogue: app.broker.library.catalogue(),
        registry: app.broker.providers.clone(),
    };
    Ok(Replay::begin(means, Question { policies, since, now }, bounds).await?)
}

/// A replay that is told of line by line. Dropped with the connection, it is over.
struct Work {
    replay: Option<Replay>,
    stopping: CancellationToken,
    _turn: OwnedSemaphorePermit,
}

impl Work {
    /// The next line; none behind the last.
    async fn line(&mut self) -> Option<Vec<u8>> {
        let mut replay = self.replay.take()?;
        let step = tokio::select! {
            () = self.stopping.cancelled() => {
                let detail = "this replica is stopping; ask again";
                return ReplayLine::Problem(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)).to_bytes();
            }
            step = replay.step() => step,
        };
        let line = match step {
            Ok(Some(progress)) => {
                self.replay = Some(replay);
                ReplayLine::Progress(progress)
            }
            Ok(None) => ReplayLine::Result(Box::new(replay.report())),
            Err(error) => ReplayLine::Problem(error.into()),
        };
        line.to_bytes()
    }
}

impl ReplayLine {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut line = serde_json::to_vec(self).ok()?;
        line.push(b'\n');
        Some(line)
    }
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Store(error) => error.into(),
            ReplayError::Guardrails | ReplayError::Slow => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            ReplayError::Failed => Self::internal(),
        }
    }
}
