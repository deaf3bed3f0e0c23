//! `/v1/reports`: what auditors hand in, written while it is read.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::App;
use super::auth::{Caller, Role};
use super::error::Problem;
use crate::reports::{Format, Period, Report, ReportError, Writing};

/// Which checkpoint a report was made from: its tree and its size.
const CHECKPOINT: HeaderName = HeaderName::from_static("cortex-checkpoint");
/// What the HTML of a report may do: nothing but look as it does.
const STILL: HeaderValue = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");

/// A report that can be asked for.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Report)]
pub(super) struct Known {
    /// Its name.
    name: &'static str,
    /// What it is about.
    title: &'static str,
    /// The controls that it is evidence for.
    controls: Vec<String>,
    /// The columns of its rows.
    columns: &'static [&'static str],
}

/// The reports that can be asked for, each with the controls of SOC 2 and ISO/IEC 27001 that it is evidence for.
#[utoipa::path(
    get, path = "/v1/reports", tag = "record", security(("bearer" = [])),
    responses((status = 200, description = "All of them.", body = [Known]))
)]
pub(super) async fn list(caller: Caller) -> Result<Json<Vec<Known>>, Problem> {
    caller.need(&[Role::Auditor, Role::Admin])?;
    let known = Report::ALL.into_iter().map(|report| Known {
        name: report.name(),
        title: report.title(),
        controls: report.controls().iter().map(|(of, which)| format!("{of}: {which}")).collect(),
        columns: report.columns(),
    });
    Ok(Json(known.collect()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportQuery {
    /// From this time on (RFC 3339).
    from: Option<String>,
    /// Before this time (RFC 3339).
    to: Option<String>,
    /// A quarter instead, in UTC: `2026Q4`.
    quarter: Option<String>,
    /// `html`, `csv`, `jsonl`, or `proof`: what proves each row.
    #[param(value_type = Option<String>)]
    format: Option<Format>,
    /// As of a checkpoint of the newest tree that had this many records; the newest one by default.
    #[param(minimum = 1)]
    size: Option<u64>,
}

/// One report of a period: every record of it that the log had published by a checkpoint, which the header
/// `Cortex-Checkpoint` names as tree and size. It comes while it is made; one that was cut off has no end.
#[utoipa::path(
    get, path = "/v1/reports/{name}", tag = "record", security(("bearer" = [])),
    params(("name" = String, Path, description = "Its name."), ReportQuery),
    responses(
        (status = 200, description = "The report.", content(
            (String = "application/jsonl"), (String = "text/html"), (String = "text/csv")
        )),
        (status = 400, description = "A period or a format that cannot be.", body = Problem),
        (status = 404, description = "No report of this name.", body = Problem),
    )
)]
pub(super) async fn report(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    answer(&app, &caller, &name, query).await
}

/// A report, for the API and the console alike.
pub(crate) async fn answer(
    app: &App,
    caller: &Caller,
    name: &str,
    query: ReportQuery,
) -> Result<Response, Problem> {
    caller.need(&[Role::Auditor, Role::Admin])?;
    let report = Report::named(name).ok_or_else(|| Problem::not_found("there is no report of this name"))?;
    let period = query.period()?;
    let format = query.format.unwrap_or(Format::Jsonl);
    let busy = |_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "other reports are being made; ask again in a moment")
    };
    let turn = app.reports.clone().try_acquire_owned().map_err(busy)?;
    let as_of = (app.broker.clock.now(), query.size);
    let mut writing = Writing::begin(app.broker.pool.clone(), report, period, format, as_of).await?;
    // Whatever cannot be is said before anything is answered.
    let first = writing.next().await?.unwrap_or_default();
    let shard = &writing.head().shard;
    let checkpoint = format!("{} {}", shard.name, shard.published);
    let file = format!("attachment; filename=\"{}.{}\"", report.name(), format.ending());
    let mut response = Body::from_stream(lines(first, writing, turn)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let (Ok(checkpoint), Ok(file)) = (checkpoint.parse(), file.parse()) {
        headers.insert(CHECKPOINT, checkpoint);
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, STILL);
    Ok(response)
}

fn lines(
    first: String,
    writing: Writing,
    turn: OwnedSemaphorePermit,
) -> impl futures_util::Stream<Item = Result<Bytes, ReportError>> {
    stream::unfold(Some((Some(first), writing, turn)), |state| async move {
        let (first, mut writing, turn) = state?;
        if let Some(first) = first {
            return Some((Ok(Bytes::from(first)), Some((None, writing, turn))));
        }
        match writing.next().await {
            Ok(Some(text)) => Some((Ok(Bytes::from(text)), Some((None, writing, turn)))),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "a report was broken off");
                Some((Err(error), None))
            }
        }
    })
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NotYet => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            ReportError::TooMuch => Self::bad_request(error.to_string()),
            ReportError::Store(error) => error.into(),
        }
    }
}

impl ReportQuery {
    fn period(&self) -> Result<Period, Problem> {
        let form = || Problem::bad_request("write from and to as 2026-10-01T00:00:00Z, or quarter as 2026Q4");
        let time = |text: &str| {
            let at: Result<Timestamp, _> = text.parse();
            at.ok().filter(|at| *at >= Timestamp::UNIX_EPOCH).ok_or_else(form)
        };
        let period = match (&self.from, &self.to, &self.quarter) {
            (Some(from), Some(to), None) => Period { from: time(from)?, to: time(to)? },
            (None, None, Some(quarter)) => of_quarter(quarter).ok_or_else(form)?,
            _ => return Err(form()),
        };
        if period.from < period.to {
            Ok(period)
        } else {
            Err(Problem::bad_request("a report begins before it ends"))
        }
    }
}

/// A quarter of a year, in UTC, as `2026Q4`.
fn of_quarter(text: &str) -> Option<Period> {
    let (year, quarter) = text.split_once('Q')?;
    let year: i16 = year.parse().ok().filter(|year| (1970..=9998).contains(year))?;
    let quarter: i8 = quarter.parse().ok().filter(|quarter| (1..=4).contains(quarter))?;
    let begin = |year, quarter: i8| {
        let day = civil::Date::new(year, quarter * 3 - 2, 1).ok()?;
        Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    let to = if quarter == 4 { begin(year + 1, 1)? } else { begin(year, quarter + 1)? };
    Some(Period { from: begin(year, quarter)?, to })
}
