//! An Airflow's REST API on loopback, versions 1 and 2, as far as it says which task instances run.
//!
//! It lets in whom an Airflow lets in: HTTP Basic for version 1, for version 2 a bearer token that `/auth/token`
//! gave for the password.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::fault::Twist;
use crate::gate::{Answer, Call, Operation, Service};
use crate::issuer::RunClaims;
use crate::ledger::Cloud;

/// The one user of the API.
const USER: &str = "cortex";

/// The most task instances that are kept; the oldest go first.
const CAPACITY: usize = 1_000;

/// A task instance as the Airflow's database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInstance {
    /// Which one, its current try, and what is known of its run and its DAG.
    pub run: RunClaims,
    /// `running`, `success` and so on; none before it is scheduled.
    pub state: Option<String>,
    /// When the current try started.
    pub start_date: Option<Timestamp>,
}

/// The API behind its listener.
pub(crate) struct Airflow {
    password: String,
    instances: Mutex<Vec<TaskInstance>>,
    /// The tokens that `/auth/token` gave.
    tokens: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Airflow {
    pub(crate) fn new() -> Self {
        Self { password: random_secret(), instances: Mutex::default(), tokens: Mutex::default() }
    }

    /// `user:password`.
    pub(crate) fn credentials(&self) -> String {
        format!("{USER}:{}", self.password)
    }

    /// Puts a task instance into the database, in the place of an earlier state of it.
    pub(crate) fn put(&self, instance: TaskInstance) {
        let mut instances = lock(&self.instances);
        instances.retain(|known| !is_same(&known.run, &instance.run));
        if instances.len() == CAPACITY {
            instances.remove(0);
        }
        instances.push(instance);
    }

    /// Ends every token that was given so far.
    pub(crate) fn end_logins(&self) {
        lock(&self.tokens).clear();
    }

    fn log_in(&self, call: &Call) -> Response {
        let body = call.json().unwrap_or_default();
        if body != json!({"username": USER, "password": self.password}) {
            return refused(StatusCode::UNAUTHORIZED, "Invalid credentials");
        }
        let token = random_secret();
        lock(&self.tokens).push(token.clone());
        (StatusCode::CREATED, Json(json!({"access_token": token}))).into_response()
    }

    fn lets_in(&self, call: &Call, version: &str) -> bool {
        if version == "v1" {
            let basic = format!("Basic {}", STANDARD.encode(self.credentials()));
            return call.header("authorization") == Some(&basic);
        }
        let known = |token: &str| lock(&self.tokens).iter().any(|known| known == token);
        call.bearer().is_some_and(known)
    }

    fn read(&self, call: &Call) -> Response {
        let path: Vec<String> = call.path.split('/').skip(1).map(decoded).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let ["api", version @ ("v1" | "v2"), rest @ ..] = path.as_slice() else {
            return refused(StatusCode::NOT_FOUND, "Not Found");
        };
        if !self.lets_in(call, version) {
            return refused(StatusCode::UNAUTHORIZED, "Not authenticated");
        }
        let found = match rest {
            ["dags", dag, "dagRuns", run, "taskInstances", task] => self.instance([dag, run, task], -1),
            ["dags", dag, "dagRuns", run, "taskInstances", task, index] => {
                index.parse().ok().and_then(|index| self.instance([dag, run, task], index))
            }
            ["dags", dag, "dagRuns", run] => self.dag_run(dag, run, version),
            ["dags", dag] if *version == "v1" => self.dag(dag, version),
            ["dags", dag, "details"] => self.dag(dag, version),
            _ => None,
        };
        match found {
            Some(found) => Json(found).into_response(),
            None => refused(StatusCode::NOT_FOUND, "Not Found"),
        }
    }

    fn find<T>(&self, fits: impl Fn(&RunClaims) -> bool, say: impl Fn(&TaskInstance) -> T) -> Option<T> {
        lock(&self.instances).iter().find(|known| fits(&known.run)).map(say)
    }

    fn instance(&self, [dag, run, task]: [&str; 3], index: i64) -> Option<Value> {
        let fits = |known: &RunClaims| {
            known.dag_id == dag && known.run_id == run && known.task_id == task && known.map_index == index
        };
        self.find(fits, |instance| {
            json!({
                "dag_id": dag, "dag_run_id": run, "task_id": task, "map_index": index,
                "try_number": instance.run.try_number,
                "state": instance.state,
                "start_date": instance.start_date,
                "end_date": null,
                "hostname": "worker-1", "pool": "default_pool", "queue": "default",
                "rendered_fields": {"bash_command": "true"},
            })
        })
    }

    fn dag_run(&self, dag: &str, run: &str, version: &str) -> Option<Value> {
        let fits = |known: &RunClaims| known.dag_id == dag && known.run_id == run;
        self.find(fits, |TaskInstance { run: known, .. }| {
            let mut answer = json!({
                "dag_id": dag, "dag_run_id": run, "state": "running", "conf": {},
                "run_type": known.run_type,
            });
            if version == "v2" {
                answer["triggered_by"] = json!(known.triggered_by);
                answer["triggering_user_name"] = json!(known.triggering_user_name);
            }
            answer
        })
    }

    fn dag(&self, dag: &str, version: &str) -> Option<Value> {
        self.find(
            |known| known.dag_id == dag,
            |TaskInstance { run: known, .. }| {
                let tags: Vec<_> = known.tags.iter().map(|tag| json!({"name": tag})).collect();
                let mut answer = json!({"dag_id": dag, "owners": ["airflow"], "tags": tags});
                if version == "v2" {
                    answer["bundle_name"] = json!(known.bundle_name);
                }
                answer
            },
        )
    }
}

/// Something that opens nothing outside this process.
pub(crate) fn random_secret() -> String {
    format!("sandbox-{}", uuid::Builder::from_random_bytes(rand::random()).into_uuid().simple())
}

fn is_same(one: &RunClaims, other: &RunClaims) -> bool {
    let key = |run: &RunClaims| (run.dag_id.clone(), run.run_id.clone(), run.task_id.clone(), run.map_index);
    key(one) == key(other)
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"detail": why}))).into_response()
}

impl Service for Airflow {
    const CLOUD: Cloud = Cloud::Airflow;

    fn operation(&self, call: &Call) -> Operation {
        let part = |name: &str| call.path.contains(name);
        let name = match () {
            () if part("/auth/token") => "token",
            () if part("/taskInstances/") => "taskInstance",
            () if part("/dagRuns/") => "dagRun",
            () => "dag",
        };
        Operation { name: name.to_owned(), mints: false }
    }

    async fn answer(&self, call: &Call, _twist: Option<Twist>) -> Answer {
        let response = match (&call.method, call.path.as_str()) {
            (&Method::POST, "/auth/token") => self.log_in(call),
            (&Method::GET, _) => self.read(call),
            _ => refused(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
        };
        response.into()
    }

    fn throttled(&self, _call: &Call) -> Response {
        StatusCode::TOO_MANY_REQUESTS.into_response()
    }
}
