//! The three questions that an Airflow is asked, and how Cortex proves who it is.

use std::path::{Path, PathBuf};

use cortex_core::ClaimedRun;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::answers::{Dag, DagRun, Instance};
use super::{AirflowConfig, ApiVersion, AskError};
use crate::endpoint::Endpoint;
use crate::fetch::{self, FetchError};

/// How Cortex proves who it is.
enum Access {
    /// `user:password` from a file, exchanged for a token that is kept until it is refused.
    Login { file: PathBuf, token: Mutex<Option<Zeroizing<String>>> },
    /// `user:password` from a file, as HTTP Basic.
    Basic(PathBuf),
    /// A bearer token from a file.
    Bearer(PathBuf),
}

/// The REST API of one Airflow.
pub(super) struct Api {
    endpoint: Endpoint,
    version: ApiVersion,
    access: Access,
    http: Client,
}

impl Api {
    pub(super) fn new(config: &AirflowConfig, http: Client) -> Result<Self, &'static str> {
        let access = match (&config.token_file, &config.password_file, config.api) {
            (Some(file), None, _) => Access::Bearer(file.clone()),
            (None, Some(file), ApiVersion::V1) => Access::Basic(file.clone()),
            (None, Some(file), ApiVersion::V2) => {
                Access::Login { file: file.clone(), token: Mutex::default() }
            }
            _ => return Err("needs one credential"),
        };
        Ok(Self { endpoint: Endpoint::api(&config.url)?, version: config.api, access, http })
    }

    /// The task instance that is claimed, if there is one.
    pub(super) async fn instance(&self, claim: &ClaimedRun) -> Result<Option<Instance>, AskError> {
        let index = claim.map_index.map(|index| index.to_string());
        let (dag, run, task) = (claim.dag_id.as_str(), claim.run_id.as_str(), claim.task_id.as_str());
        let path = ["dags", dag, "dagRuns", run, "taskInstances", task];
        let path: Vec<&str> = path.into_iter().chain(index.as_deref()).collect();
        match self.get(&path).await {
            Ok(answer) => Instance::read(&answer, claim).map(Some),
            Err(AskError::Fetch(FetchError::Status(404))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The DAG run that is claimed.
    pub(super) async fn dag_run(&self, claim: &ClaimedRun) -> Result<DagRun, AskError> {
        let path = ["dags", claim.dag_id.as_str(), "dagRuns", claim.run_id.as_str()];
        DagRun::read(&self.get(&path).await?, claim)
    }

    /// The DAG that is claimed.
    pub(super) async fn dag(&self, claim: &ClaimedRun) -> Result<Dag, AskError> {
        let path: &[&str] = match self.version {
            ApiVersion::V1 => &["dags", claim.dag_id.as_str()],
            ApiVersion::V2 => &["dags", claim.dag_id.as_str(), "details"],
        };
        Dag::read(&self.get(path).await?, claim)
    }

    async fn get(&self, path: &[&str]) -> Result<Map<String, Value>, AskError> {
        let version = match self.version {
            ApiVersion::V1 => "v1",
            ApiVersion::V2 => "v2",
        };
        let url = self.url(["api", version].iter().chain(path))?;
        let request = || self.http.get(url.clone());
        match &self.access {
            Access::Bearer(file) => answer(request().bearer_auth(read(file).await?.as_str())).await,
            Access::Basic(file) => {
                let text = read(file).await?;
                let (user, password) = pair(&text)?;
                answer(request().basic_auth(user, Some(password))).await
            }
            Access::Login { file, token } => {
                let first = self.log_in(file, token, None).await?;
                match answer(request().bearer_auth(first.as_str())).await {
                    // The token has ended, or the Airflow has a new key: once more, with a new one.
                    Err(AskError::Fetch(FetchError::Status(401))) => {
                        let fresh = self.log_in(file, token, Some(&first)).await?;
                        answer(request().bearer_auth(fresh.as_str())).await
                    }
                    other => other,
                }
            }
        }
    }

    /// The token that is kept, unless it is the one that was `refused`; one login for all who wait.
    async fn log_in(
        &self,
        file: &Path,
        kept: &Mutex<Option<Zeroizing<String>>>,
        refused: Option<&str>,
    ) -> Result<Zeroizing<String>, AskError> {
        let mut kept = kept.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| refused != Some(token.as_str())) {
            return Ok(token.clone());
        }
        let text = read(file).await?;
        let (user, password) = pair(&text)?;
        let url = self.url(["auth", "token"].iter())?;
        let login = self.http.post(url).json(&json!({"username": user, "password": password}));
        let mut answer = fetch::fetch_object(login, StatusCode::CREATED).await?;
        let token = match answer.remove("access_token") {
            Some(Value::String(token)) if !token.is_empty() => Zeroizing::new(token),
            _ => return Err(AskError::Answer("access_token")),
        };
        *kept = Some(token.clone());
        Ok(token)
    }

    /// A URL under the Airflow's own, each segment encoded.
    fn url<'a>(&self, path: impl Iterator<Item = &'a &'a str>) -> Result<Url, AskError> {
        self.endpoint.below(path.copied()).ok_or(AskError::Answer("URL"))
    }
}

async fn answer(request: RequestBuilder) -> Result<Map<String, Value>, AskError> {
    Ok(fetch::fetch_object(request, StatusCode::OK).await?)
}

async fn read(file: &Path) -> Result<Zeroizing<String>, AskError> {
    fetch::credential(file).await.map_err(AskError::Credential)
}

fn pair(text: &str) -> Result<(&str, &str), AskError> {
    let pair = text.split_once(':').filter(|(user, password)| !user.is_empty() && !password.is_empty());
    pair.ok_or_else(|| AskError::Credential("it is not user:password".to_owned()))
}
