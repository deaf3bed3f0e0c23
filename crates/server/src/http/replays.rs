//! What a change of policies would have done: the requests on record, decided again while the caller listens.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cortex_core::PolicyName;
use cortex_core::policy::{Policy, Suggestion};
use cortex_providers::BuiltIns;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::auth::{Caller, Role};
use super::error::Problem;
use super::{App, body};
use crate::replay::{self, Bounds, Means, Progress, Question, Replay, ReplayError, Report, Survey};

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

/// One line of an answer.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<R> {
    Progress(Progress),
    Result(R),
    Problem(Problem),
}

/// One line of a replay: exactly one of the members.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes what `Line` writes")]
pub(super) struct ReplayLine {
    /// It goes on.
    progress: Option<Progress>,
    /// What it came to: the last line.
    result: Option<Report>,
    /// It did not come to its end: the last line.
    problem: Option<Problem>,
}

/// One line of a suggestion: exactly one of the members.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes what `Line` writes")]
pub(super) struct SuggestionLine {
    /// It goes on.
    progress: Option<Progress>,
    /// The document with the evidence: the last line.
    #[schema(value_type = Option<Object>)]
    result: Option<Suggestion>,
    /// It did not come to its end: the last line.
    problem: Option<Problem>,
}

/// Decide the requests on record again under policies that are not in force yet. The answer comes in JSON lines: how
/// far it has come, and last the result, or the problem that ended it. Nothing changes and nothing is recorded. It
/// ends with the connection, and after five minutes or two million records of a policy, which the result says. A
/// replica does one at a time.
#[utoipa::path(
    post, path = "/v1/replays", tag = "policies", security(("bearer" = [])), request_body = ReplayRequest,
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
    Ok(answer(&app, replay, turn))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SuggestionQuery {
    /// What was not used for this long is left out: `90d`, `26w`, a date or a time. 90 days where this is missing.
    unused_for: Option<String>,
}

/// Suggest a tighter policy: the one in force without the DAGs, tasks, run types and targets that were never used. The
/// answer comes in JSON lines, as that of a replay does. Nothing is applied.
#[utoipa::path(
    get, path = "/v1/policies/{name}/suggestion", tag = "policies", security(("bearer" = [])),
    params(("name" = String, Path, description = "The policy.", max_length = 64), SuggestionQuery),
    responses(
        (status = 200, description = "JSON lines; the last one has the document and the evidence.",
         body = SuggestionLine, content_type = "application/jsonl"),
        (status = 404, description = "No such policy.", body = Problem),
        (status = 429, description = "Another replay is under way.", body = Problem),
    )
)]
pub(super) async fn suggest(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    query: Result<Query<SuggestionQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.need(&[Role::Admin])?;
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let none = || Problem::not_found("there is no policy of this name in force, or it cannot be read");
    let name = name.parse::<PolicyName>().map_err(|_| none())?;
    let now = app.broker.clock.now();
    let since = replay::since(query.unused_for.as_deref().unwrap_or("90d"), now)
        .map_err(|fault| Problem::bad_request(format!("unused_for: {fault}")))?;
    let turn = turn(&app)?;
    let survey = Survey::begin(app.broker.pool.clone(), &name, (since, now), bounds()).await?;
    Ok(answer(&app, survey.ok_or_else(none)?, turn))
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
        registry: app.broker.live().providers.clone(),
    };
    Ok(Replay::begin(means, Question { policies, since, now }, bounds).await?)
}

/// What goes on in steps and comes to something.
trait Stepwise: Send + 'static {
    type Result: Serialize;

    fn step(&mut self) -> impl Future<Output = Result<Option<Progress>, ReplayError>> + Send;
    fn end(self) -> Self::Result;
}

impl Stepwise for Replay {
    type Result = Report;

    async fn step(&mut self) -> Result<Option<Progress>, ReplayError> {
        Replay::step(self).await
    }

    fn end(self) -> Report {
        self.report()
    }
}

impl Stepwise for Survey {
    type Result = Suggestion;

    async fn step(&mut self) -> Result<Option<Progress>, ReplayError> {
        Survey::step(self).await
    }

    fn end(self) -> Suggestion {
        self.suggestion()
    }
}

/// Tells of `steps` line by line for as long as somebody listens.
fn answer<S: Stepwise>(app: &App, steps: S, turn: OwnedSemaphorePermit) -> Response {
    let work = Work { steps: Some(steps), stopping: app.stopping.clone(), _turn: turn };
    let lines = stream::unfold(work, |mut work| async move {
        let line = work.line().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), work))
    });
    ([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response()
}

/// Steps that are told of. Dropped with the connection, they are over.
struct Work<S> {
    steps: Option<S>,
    stopping: CancellationToken,
    _turn: OwnedSemaphorePermit,
}

impl<S: Stepwise> Work<S> {
    /// The next line; none behind the last.
    async fn line(&mut self) -> Option<Vec<u8>> {
        let mut steps = self.steps.take()?;
        let step = tokio::select! {
            () = self.stopping.cancelled() => {
                let detail = "this replica is stopping; ask again";
                return line(&Line::<S::Result>::Problem(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)));
            }
            step = steps.step() => step,
        };
        match step {
            Ok(Some(progress)) => {
                self.steps = Some(steps);
                line(&Line::<S::Result>::Progress(progress))
            }
            Ok(None) => line(&Line::Result(steps.end())),
            Err(error) => line(&Line::<S::Result>::Problem(error.into())),
        }
    }
}

fn line(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    Some(line)
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
