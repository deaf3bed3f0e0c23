//! A Kubernetes cluster as a witness: its API server says whose token it is and which pod it was made for, and the
//! pod's annotations, which Airflow's executor wrote, say which try of which task runs in it.
//!
//! This proves the pod. That the annotations are true is as good as the rule that nobody but Airflow writes them:
//! see SECURITY.md. There is no key set: the review is the signature's proof, and it knows of a pod that ended.

mod answers;
mod config;

use std::time::Duration;

use cortex_core::{Attestation, Clock, Digest, IssuerName, Run};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

pub use config::ClusterConfig;

use crate::claims::{self, Lifetime};
use crate::endpoint::Endpoint;
use crate::fetch::{self, FetchError};
use crate::rejection::{Reason, Refused, Rejection};
use crate::token::Unverified;
use crate::verifier::{Verified, known};
use answers::{Account, Pod};

/// How many tokens one cluster is asked about at once; more wait, within their deadline.
const AT_ONCE: usize = 16;

/// One cluster.
pub(crate) struct Cluster {
    name: IssuerName,
    audience: String,
    endpoint: Endpoint,
    token_file: std::path::PathBuf,
    service_accounts: Vec<String>,
    lifetime: Lifetime,
    timeout: Duration,
    remember: SignedDuration,
    http: Client,
    places: Semaphore,
}

impl Cluster {
    /// A cluster whose configuration was found without fault.
    pub(crate) fn new(config: &ClusterConfig, http: Client) -> Result<Self, &'static str> {
        Ok(Self {
            name: config.name.clone(),
            audience: config.audience.clone(),
            endpoint: Endpoint::api(&config.url)?,
            token_file: config.token_file.clone(),
            service_accounts: config.service_accounts.clone(),
            lifetime: Lifetime::new(config.max_token_lifetime, config.leeway),
            timeout: Duration::from_secs(config.timeout.into()),
            remember: SignedDuration::from_secs(config.remember.into()),
            http,
            places: Semaphore::new(AT_ONCE),
        })
    }

    /// Verifies a token that names this cluster. Beside the principal, until when this holds without asking again.
    pub(crate) async fn verify(
        &self,
        raw: &str,
        token: &Unverified<'_>,
        digest: Digest,
        clock: &dyn Clock,
    ) -> Result<(Verified, Timestamp), Rejection> {
        let now = clock.now();
        // Nothing of this is proven yet; but what would be refused anyway is not worth a request.
        claims::check_audience(&token.claims, &self.audience).map_err(Refused::unverified)?;
        let expires_at = self.lifetime.check(&token.claims, now).map_err(Refused::unverified)?;
        let asked = async {
            // The semaphore is never closed.
            let _place = self.places.acquire().await;
            let account = self.review(raw, token).await.map_err(Refused::unverified)?;
            let run = self.run(&account).await;
            run.map_err(|refused| refused.verified(known(&self.name, token, digest)))
        };
        let late = || Err(unavailable("no answer in time").unverified());
        let run = tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| late())?;
        let subject = claims::subject(&token.claims).map_err(Refused::unverified)?;
        let verified = Verified::reviewed(run, subject, expires_at, digest);
        let until = now.saturating_add(self.remember).unwrap_or(now);
        Ok((verified, until.min(expires_at)))
    }

    /// Asks whose token it is (`TokenReview`, `authentication.k8s.io/v1`).
    async fn review(&self, raw: &str, token: &Unverified<'_>) -> Result<Account, Refused> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": raw, "audiences": [self.audience]},
        });
        let path = ["apis", "authentication.k8s.io", "v1", "tokenreviews"];
        let request = |url| self.http.post(url).json(&review);
        let answer = self.ask(&path, request, StatusCode::CREATED).await.map_err(|e| unavailable(&e))?;
        let account = Account::read(&answer, &self.audience)?;
        if claims::subject(&token.claims)? != account.username() {
            return Err(Refused::new(Reason::Review, "the cluster names another subject than the token"));
        }
        Ok(account)
    }

    /// The run in the pod that the token was made for.
    async fn run(&self, account: &Account) -> Result<Run, Refused> {
        let named = format!("{}/{}", account.namespace, account.name);
        if !self.service_accounts.contains(&named) {
            return Err(Refused::new(Reason::Workload, "the service account is not one that tasks run as"));
        }
        let Some((pod, uid)) = &account.pod else {
            return Err(Refused::new(Reason::Pod, "the token is not bound to a pod"));
        };
        let path = ["api", "v1", "namespaces", &account.namespace, "pods", pod];
        let answer = match self.ask(&path, |url| self.http.get(url), StatusCode::OK).await {
            Ok(answer) => answer,
            Err(AskError::Fetch(FetchError::Status(404))) => {
                return Err(Refused::new(Reason::Pod, "there is no such pod"));
            }
            Err(error) => return Err(unavailable(&error)),
        };
        let pod = Pod::read(&answer, account, pod, uid)?;
        Ok(Run {
            issuer: self.name.clone(),
            dag_id: pod.dag_id,
            run_id: pod.run_id,
            task_id: pod.task_id,
            map_index: pod.map_index,
            try_number: pod.try_number,
            // The executor does not annotate these.
            run_type: None,
            triggered_by: None,
            triggering_user: None,
            team: None,
            bundle: None,
            tags: std::collections::BTreeSet::new(),
            attestation: Attestation::Kubernetes,
        })
    }

    async fn ask(
        &self,
        path: &[&str],
        request: impl FnOnce(reqwest::Url) -> RequestBuilder,
        expected: StatusCode,
    ) -> Result<Map<String, Value>, AskError> {
        let bearer = fetch::credential(&self.token_file).await.map_err(AskError::Credential)?;
        let url = self.endpoint.below(path.iter().copied()).ok_or(AskError::Url)?;
        Ok(fetch::fetch_object(request(url).bearer_auth(bearer.as_str()), expected).await?)
    }
}

/// Why a cluster does not answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the credential for it cannot be read: {0}")]
    Credential(String),
    #[error("its URL cannot have a path")]
    Url,
    #[error("it {0}")]
    Fetch(#[from] FetchError),
}

fn unavailable(why: &(impl ToString + ?Sized)) -> Refused {
    Refused::new(Reason::ClusterUnavailable, why.to_string())
}

/// Whether `text` is a name of Kubernetes: a DNS subdomain (RFC 1123, as its documentation of object names says).
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 253 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())
}
