//! A real Airflow with the provider package in it, driven over its REST API.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::hmac;
use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::counterparts::{AirflowServer, airflow_server};
use crate::forge::encode;

/// How long a DAG run may take, on a machine that is busy with everything else.
const RUN_DEADLINE: Duration = Duration::from_mins(6);
/// How often its state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long its database may be locked.
const LOCKED_DEADLINE: Duration = Duration::from_mins(1);
/// What Airflow signs its tasks' own tokens with.
const JWT_SECRET: &str = "a secret of the tests, for the tokens of the Execution API alone, of 64 bytes";

/// What to start.
pub struct Plan<'a> {
    /// Its port, which Cortex has to know beforehand.
    pub port: u16,
    /// Where Cortex is.
    pub cortex_url: &'a str,
    /// More keyword arguments of the workers' secrets backend.
    pub backend: Value,
    /// More options of Airflow's, `section.key` and value.
    pub options: &'a [(&'a str, &'a str)],
    /// The environment of its processes, besides their own.
    pub environment: &'a [(&'a str, &'a str)],
}

/// A running Airflow; it ends when this is dropped.
pub struct Airflow {
    server: AirflowServer,
    http: Client,
    token: String,
}

/// One run of a DAG.
pub struct DagRun<'a> {
    airflow: &'a Airflow,
    path: String,
    /// Its id.
    pub id: String,
}

impl Airflow {
    /// Starts one with the DAGs of `counterparts/airflow/dags`.
    pub async fn start(plan: Plan<'_>) -> Self {
        let dags = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counterparts/airflow/dags");
        let (port, backend) = (plan.port.to_string(), plan.backend.to_string());
        let mut args = vec!["--port".to_owned(), port, "--cortex-url".into(), plan.cortex_url.into()];
        args.extend(["--cortex-kwargs".into(), backend, "--dags".into(), dags.display().to_string()]);
        for (name, value) in plan.options.iter().chain(&[("api_auth.jwt_secret", JWT_SECRET)]) {
            args.extend(["--config".into(), format!("{name}={value}")]);
        }
        let server = airflow_server(&args, plan.environment).await;
        let http = Client::builder().no_proxy().build().expect("a client");
        let answer = http.get(format!("{}/auth/token", server.base_url())).send().await.expect("an answer");
        let token: Value = answer.json().await.expect("a token");
        let token = token["access_token"].as_str().expect("a token").to_owned();
        Self { server, http, token }
    }

    /// A token for its REST API.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The run that the scheduler starts by itself, once it has.
    pub async fn scheduled(&self, dag: &str) -> DagRun<'_> {
        let path = format!("/dags/{dag}/dagRuns");
        let started = Instant::now();
        loop {
            let (_, page) = self.call(Method::GET, &path, None).await;
            if let Some(id) = page["dag_runs"][0]["dag_run_id"].as_str() {
                return self.run(dag, id);
            }
            assert!(started.elapsed() < RUN_DEADLINE, "{dag}: {page}");
            sleep(LOOK_EVERY).await;
        }
    }

    fn run(&self, dag: &str, id: &str) -> DagRun<'_> {
        let quoted = id.replace('+', "%2B").replace(':', "%3A");
        DagRun { airflow: self, path: format!("/dags/{dag}/dagRuns/{quoted}"), id: id.to_owned() }
    }

    /// Starts a run, once the DAG is known.
    pub async fn trigger(&self, dag: &str, conf: Value) -> DagRun<'_> {
        let path = format!("/dags/{dag}/dagRuns");
        let body = json!({"logical_date": null, "conf": conf});
        let started = Instant::now();
        loop {
            let (status, answer) = self.call(Method::POST, &path, Some(&body)).await;
            if status == StatusCode::OK {
                return self.run(dag, answer["dag_run_id"].as_str().expect("a run"));
            }
            assert!(status == StatusCode::NOT_FOUND && started.elapsed() < RUN_DEADLINE, "{dag}: {answer}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks Airflow's issuer for an ID token with a token of the Execution API for the task instance `id`, as it
    /// would be if somebody kept it.
    pub async fn id_token_of(&self, id: &str) -> (StatusCode, Value) {
        let now = SystemClock.now().as_second();
        let claims = json!({
            "sub": id, "scope": "execution", "aud": "urn:airflow.apache.org:task", "jti": encode(id),
            "iat": now, "nbf": now, "exp": now + 600,
        });
        let message = format!("{}.{}", encode(r#"{"alg":"HS512","typ":"JWT"}"#), encode(claims.to_string()));
        let key = hmac::Key::new(hmac::HMAC_SHA512, JWT_SECRET.as_bytes());
        let token = format!("{message}.{}", encode(hmac::sign(&key, message.as_bytes())));
        let url = format!("{}/execution/variables/cortex_id_token.cortex", self.server.base_url());
        let answer = self.http.get(url).bearer_auth(token).send().await.expect("an answer");
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    /// One call. Airflow on `SQLite` answers 500 where two write at once, so such a call is made again.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let url = format!("{}/api/v2{path}", self.server.base_url());
        let started = Instant::now();
        loop {
            let mut request = self.http.request(method.clone(), &url).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.expect("an answer");
            let status = answer.status();
            if !status.is_server_error() || started.elapsed() > LOCKED_DEADLINE {
                return (status, answer.json().await.unwrap_or_default());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl DagRun<'_> {
    /// The task instance, whose `state`, `id` and `try_number` say where it stands.
    pub async fn task(&self, task: &str) -> Value {
        let (status, found) =
            self.airflow.call(Method::GET, &format!("{}/taskInstances/{task}", self.path), None).await;
        assert_eq!(status, StatusCode::OK, "{task}: {found}");
        found
    }

    /// Waits until the task is in one of `states`; answers which. Panics with its log where it ends in another.
    pub async fn reaches(&self, task: &str, states: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let state = self.task(task).await["state"].as_str().unwrap_or("none").to_owned();
            if states.contains(&&*state) {
                return state;
            }
            let over = ["success", "failed", "upstream_failed", "skipped", "removed"].contains(&&*state);
            let failed = over || started.elapsed() > RUN_DEADLINE;
            assert!(!failed, "{task} is {state}, not {states:?}:\n{}", self.log(task, 1).await);
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the task has deferred itself and the scheduler knows that its process has ended. An Airflow that hears
    /// of that end only when the task runs again takes it for the end of that, and fails it.
    pub async fn is_deferred(&self, task: &str) {
        self.reaches(task, &["deferred"]).await;
        let started = Instant::now();
        let of_task = [format!("task_id='{task}'"), format!("run_id='{}'", self.id)];
        let is_told = |line: &str| {
            line.contains("Received executor event") && of_task.iter().all(|part| line.contains(part))
        };
        while !self.airflow.server.scheduler_log().lines().any(is_told) {
            assert!(started.elapsed() < RUN_DEADLINE, "{}", self.airflow.server.scheduler_log());
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the whole run is over.
    pub async fn ends(&self) {
        let started = Instant::now();
        loop {
            let (_, run) = self.airflow.call(Method::GET, &self.path, None).await;
            if ["success", "failed"].contains(&run["state"].as_str().unwrap_or_default()) {
                return;
            }
            assert!(started.elapsed() < RUN_DEADLINE, "{run}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// What the task returned. Panics with its log where it failed.
    pub async fn returned(&self, task: &str) -> Value {
        self.reaches(task, &["success"]).await;
        self.pushed(task, "return_value").await
    }

    /// What the task has pushed as `key`, once it has.
    pub async fn pushed(&self, task: &str, key: &str) -> Value {
        let path = format!("{}/taskInstances/{task}/xcomEntries/{key}?deserialize=true", self.path);
        let started = Instant::now();
        loop {
            let (status, found) = self.airflow.call(Method::GET, &path, None).await;
            if status == StatusCode::OK {
                let value = &found["value"];
                // Airflow answers a text's JSON or the value itself, by the kind of value.
                return value
                    .as_str()
                    .and_then(|text| serde_json::from_str(text).ok())
                    .unwrap_or(value.clone());
            }
            let state = self.task(task).await["state"].clone();
            let over = state == "failed" || started.elapsed() > RUN_DEADLINE;
            assert!(!over, "{task} is {state} and pushed no {key}:\n{}", self.log(task, 1).await);
            sleep(LOOK_EVERY).await;
        }
    }

    /// The log of one try.
    pub async fn log(&self, task: &str, attempt: u32) -> String {
        let path = format!("{}/taskInstances/{task}/logs/{attempt}?full_content=true", self.path);
        let (_, log) = self.airflow.call(Method::GET, &path, None).await;
        let lines = log["content"].as_array().into_iter().flatten();
        lines.map(Value::to_string).collect::<Vec<_>>().join("\n")
    }
}
