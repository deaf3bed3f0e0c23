//! Enough of `BigQuery`'s REST API v2 for its clients to connect, read, write and be refused.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::config::Dataset;
use super::error::ApiError;
use super::query::{Column, Table, parse};
use super::{Access, CLOUD_PLATFORM, Google, Member};
use crate::gate::Call;

const BIGQUERY: &str = "https://www.googleapis.com/auth/bigquery";
const INSERT_DATA: &str = "https://www.googleapis.com/auth/bigquery.insertdata";
const READ_ONLY: &str = "https://www.googleapis.com/auth/cloud-platform.read-only";

/// The most rows that all tables hold together.
const MAX_ROWS: usize = 100_000;

/// The most finished jobs that are remembered.
const MAX_JOBS: usize = 1_000;

/// The data and who may touch it.
pub(super) struct Warehouse {
    job_users: Vec<(String, Member)>,
    datasets: Vec<Dataset>,
    /// Row counts by project, dataset and table.
    rows: BTreeMap<(String, String, String), usize>,
    jobs: BTreeMap<String, Job>,
}

/// A query that is done, in the name of whoever started it.
#[derive(Clone)]
struct Job {
    owner: String,
    columns: Vec<Column>,
}

impl Warehouse {
    pub(super) fn new(job_users: Vec<(String, Member)>, datasets: Vec<Dataset>) -> Self {
        let tables = datasets.iter().flat_map(|dataset| {
            dataset.tables.iter().map(|id| ((dataset.project.clone(), dataset.id.clone(), id.clone()), 0))
        });
        Self { job_users, rows: tables.collect(), datasets, jobs: BTreeMap::new() }
    }

    fn readable(&self, project: &str, id: &str, access: &Access) -> Result<&Dataset, ApiError> {
        let dataset = self.datasets.iter().find(|dataset| dataset.project == project && dataset.id == id);
        let dataset = dataset
            .filter(|dataset| access.is_one_of(&dataset.readers) || access.is_one_of(&dataset.writers));
        // Google does not tell whoever may not look whether there is anything to see.
        dataset.ok_or_else(|| {
            ApiError::denied(format!(
                "Access Denied: Dataset {project}:{id}: Permission bigquery.datasets.get denied on dataset {project}:{id} (or it may not exist)."
            ))
        })
    }
}

/// What the scopes of a token have to include.
#[derive(Clone, Copy)]
enum Need {
    Read,
    Insert,
    /// A job: not for read-only tokens.
    Job,
}

fn require(access: &Access, need: Need) -> Result<(), ApiError> {
    let allowed: &[&str] = match need {
        Need::Read => &[BIGQUERY, CLOUD_PLATFORM, READ_ONLY],
        Need::Insert => &[BIGQUERY, CLOUD_PLATFORM, INSERT_DATA],
        Need::Job => &[BIGQUERY, CLOUD_PLATFORM],
    };
    if allowed.iter().any(|scope| access.scopes.contains(*scope)) { Ok(()) } else { Err(ApiError::scope()) }
}

impl Google {
    /// `segments` are those after `/bigquery/v2/projects/`.
    pub(super) fn bigquery(&self, call: &Call, segments: &[&str]) -> Result<Response, ApiError> {
        let access = self.holder(call)?;
        let body = match (&call.method, segments) {
            (&Method::POST, [project, "queries"]) => self.query(call, &access, project)?,
            (&Method::POST, [project, "jobs"]) => self.insert_job(call, &access, project)?,
            (&Method::GET, [project, "queries" | "jobs", id]) => self.job(&access, project, id, segments)?,
            (&Method::GET, [project, "datasets"]) => self.datasets(&access, project)?,
            (&Method::GET, [project, "datasets", id]) => {
                require(&access, Need::Read)?;
                dataset_body(self.warehouse().readable(project, id, &access)?)
            }
            (&Method::GET, [project, "datasets", id, "tables"]) => self.tables(&access, project, id)?,
            (&Method::GET, [project, "datasets", id, "tables", table]) => {
                require(&access, Need::Read)?;
                let mut warehouse = self.warehouse();
                warehouse.readable(project, id, &access)?;
                known_table(&mut warehouse, project, id, table)?;
                table_body(project, id, table)
            }
            (&Method::POST, [project, "datasets", id, "tables", table, "insertAll"]) => {
                self.insert_all(call, &access, project, id, table)?
            }
            _ => return Err(ApiError::missing(&call.path)),
        };
        Ok(Json(body).into_response())
    }

    fn warehouse(&self) -> MutexGuard<'_, Warehouse> {
        self.warehouse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn datasets(&self, access: &Access, project: &str) -> Result<Value, ApiError> {
        require(access, Need::Read)?;
        let warehouse = self.warehouse();
        let own = warehouse.datasets.iter().filter(|dataset| dataset.project == project);
        let seen = own.filter(|dataset| warehouse.readable(project, &dataset.id, access).is_ok());
        Ok(json!({"kind": "bigquery#datasetList", "datasets": seen.map(dataset_body).collect::<Vec<_>>()}))
    }

    fn tables(&self, access: &Access, project: &str, id: &str) -> Result<Value, ApiError> {
        require(access, Need::Read)?;
        let warehouse = self.warehouse();
        let dataset = warehouse.readable(project, id, access)?;
        let tables: Vec<_> = dataset.tables.iter().map(|table| table_body(project, id, table)).collect();
        Ok(json!({"kind": "bigquery#tableList", "totalItems": tables.len(), "tables": tables}))
    }

    fn insert_all(
        &self,
        call: &Call,
        access: &Access,
        project: &str,
        id: &str,
        table: &str,
    ) -> Result<Value, ApiError> {
        require(access, Need::Insert)?;
        self.refuse_denied(access, project, "tables.updateData")?;
        let body = call.json().ok_or_else(|| ApiError::invalid("Invalid JSON payload received."))?;
        let rows = body.get("rows").and_then(Value::as_array);
        let rows = rows.ok_or_else(|| ApiError::invalid("No rows present in the request."))?.len();
        let mut warehouse = self.warehouse();
        let dataset = warehouse.datasets.iter().find(|d| d.project == project && d.id == id);
        if !dataset.is_some_and(|dataset| access.is_one_of(&dataset.writers)) {
            return Err(ApiError::denied(format!(
                "Access Denied: Table {project}:{id}.{table}: Permission bigquery.tables.updateData denied on table {project}:{id}.{table} (or it may not exist)."
            )));
        }
        if warehouse.rows.values().sum::<usize>() + rows > MAX_ROWS {
            return Err(ApiError::exhausted());
        }
        *known_table(&mut warehouse, project, id, table)? += rows;
        Ok(json!({"kind": "bigquery#tableDataInsertAllResponse"}))
    }

    /// `jobs.query`: what `query_and_wait` calls.
    fn query(&self, call: &Call, access: &Access, project: &str) -> Result<Value, ApiError> {
        require(access, Need::Read)?;
        let body = call.json().unwrap_or_default();
        let text = body.get("query").and_then(Value::as_str).unwrap_or_default();
        let columns = self.run(access, project, text)?;
        let id = self.remember(access, columns.clone());
        Ok(results(project, &id, &columns, "bigquery#queryResponse"))
    }

    /// `jobs.insert`: what `query` calls.
    fn insert_job(&self, call: &Call, access: &Access, project: &str) -> Result<Value, ApiError> {
        require(access, Need::Job)?;
        let body = call.json().unwrap_or_default();
        let text = body.pointer("/configuration/query/query").and_then(Value::as_str);
        let text = text.ok_or_else(|| ApiError::invalid("The sandbox runs query jobs only."))?;
        let columns = self.run(access, project, text)?;
        let wanted = body.pointer("/jobReference/jobId").and_then(Value::as_str);
        let id = match wanted {
            Some(id) => {
                self.remember_as(id, access, columns);
                id.to_owned()
            }
            None => self.remember(access, columns),
        };
        Ok(job_body(project, &id, access, text))
    }

    fn job(&self, access: &Access, project: &str, id: &str, segments: &[&str]) -> Result<Value, ApiError> {
        require(access, Need::Read)?;
        let job = self.warehouse().jobs.get(id).filter(|job| job.owner == access.name).cloned();
        let job = job.ok_or_else(|| ApiError::missing(&format!("Job {project}:US.{id}")))?;
        if segments.contains(&"queries") {
            return Ok(results(project, id, &job.columns, "bigquery#getQueryResultsResponse"));
        }
        Ok(job_body(project, id, access, ""))
    }

    fn run(&self, access: &Access, project: &str, text: &str) -> Result<Vec<Column>, ApiError> {
        self.refuse_denied(access, project, "jobs.create")?;
        let warehouse = self.warehouse();
        let may_run =
            warehouse.job_users.iter().any(|(of, member)| of == project && access.members.contains(member));
        if !may_run {
            return Err(ApiError::denied(format!(
                "Access Denied: Project {project}: User does not have bigquery.jobs.create permission in project {project}."
            )));
        }
        let query = parse(text).ok_or_else(|| {
            ApiError::invalid(
                "The sandbox knows SELECT of a number, SESSION_USER() and COUNT(*) FROM a table.",
            )
        })?;
        let count = match &query.table {
            None => 0,
            Some(Table { dataset, table }) => {
                self.refuse_denied(access, project, "tables.getData")?;
                warehouse.readable(project, dataset, access)?;
                *warehouse
                    .rows
                    .get(&(project.to_owned(), dataset.clone(), table.clone()))
                    .ok_or_else(|| ApiError::missing(&format!("Table {project}:{dataset}.{table}")))?
            }
        };
        Ok(query.answer(&access.name, count))
    }

    fn remember(&self, access: &Access, columns: Vec<Column>) -> String {
        let id = format!("sandbox_{}", hex::encode(rand::random::<[u8; 8]>()));
        self.remember_as(&id, access, columns);
        id
    }

    fn remember_as(&self, id: &str, access: &Access, columns: Vec<Column>) {
        let mut warehouse = self.warehouse();
        if warehouse.jobs.len() >= MAX_JOBS {
            warehouse.jobs.pop_first();
        }
        warehouse.jobs.insert(id.to_owned(), Job { owner: access.name.clone(), columns });
    }
}

fn known_table<'a>(
    warehouse: &'a mut Warehouse,
    project: &str,
    id: &str,
    table: &str,
) -> Result<&'a mut usize, ApiError> {
    let key = (project.to_owned(), id.to_owned(), table.to_owned());
    warehouse.rows.get_mut(&key).ok_or_else(|| ApiError::missing(&format!("Table {project}:{id}.{table}")))
}

fn dataset_body(dataset: &Dataset) -> Value {
    json!({
        "kind": "bigquery#dataset",
        "id": format!("{}:{}", dataset.project, dataset.id),
        "datasetReference": {"projectId": dataset.project, "datasetId": dataset.id},
        "location": "US",
    })
}

fn table_body(project: &str, id: &str, table: &str) -> Value {
    json!({
        "kind": "bigquery#table",
        "id": format!("{project}:{id}.{table}"),
        "tableReference": {"projectId": project, "datasetId": id, "tableId": table},
        "type": "TABLE",
        "schema": {"fields": []},
    })
}

fn job_body(project: &str, id: &str, access: &Access, text: &str) -> Value {
    json!({
        "kind": "bigquery#job",
        "id": format!("{project}:US.{id}"),
        "user_email": access.name,
        "jobReference": {"projectId": project, "jobId": id, "location": "US"},
        "configuration": {"jobType": "QUERY", "query": {"query": text, "useLegacySql": false}},
        "status": {"state": "DONE"},
        "statistics": {"query": {"statementType": "SELECT"}},
    })
}

fn results(project: &str, id: &str, columns: &[Column], kind: &str) -> Value {
    let fields: Vec<_> = columns
        .iter()
        .map(|column| json!({"name": column.name, "type": column.kind, "mode": "NULLABLE"}))
        .collect();
    let values: Vec<_> = columns.iter().map(|column| json!({"v": column.value})).collect();
    json!({
        "kind": kind,
        "schema": {"fields": fields},
        "jobReference": {"projectId": project, "jobId": id, "location": "US"},
        "queryId": id,
        "totalRows": "1",
        "rows": [{"f": values}],
        "totalBytesProcessed": "0",
        "jobComplete": true,
        "cacheHit": false,
    })
}
