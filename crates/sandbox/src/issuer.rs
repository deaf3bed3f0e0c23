//! A development issuer: it signs whatever it is asked to, for runs (as an Airflow would) and for people.
//!
//! It has three faces, each an issuer of its own with the same keys, because Cortex trusts an `iss` for one
//! kind of principal: `http://127.0.0.1:<port>` for runs, and below it `/people` for people and `/services` for
//! services.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cortex_core::jwt::{KeyError, SigningAlgorithm, SigningKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::fault::Twist;
use crate::gate::{Answer, Call, Operation, Service, World};
use crate::ledger::Cloud;
use crate::people::{self, SignIns};

/// How the development issuer signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The `aud` of its tokens: what Cortex is configured to be called by these issuers.
    pub audience: String,
    /// How long a token lives where the caller does not say, in seconds.
    pub ttl_s: i64,
}

impl Default for IssuerConfig {
    /// Audience `cortex`, 300 seconds.
    fn default() -> Self {
        Self { audience: "cortex".to_owned(), ttl_s: 300 }
    }
}

/// What Airflow says of a running task: the claim `airflow` of a run's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunClaims {
    /// The DAG.
    pub dag_id: String,
    /// The DAG run.
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// The index of a mapped task instance; -1 for an unmapped one, as Airflow says it.
    #[serde(default = "unmapped")]
    pub map_index: i64,
    /// Which attempt, from 1.
    #[serde(default = "first_try")]
    pub try_number: u32,
    /// `scheduled`, `manual`, `backfill` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_type: Option<String>,
    /// What started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered_by: Option<String>,
    /// Who started the run by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggering_user_name: Option<String>,
    /// The team that the DAG's bundle belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_name: Option<String>,
    /// The bundle that the DAG came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_name: Option<String>,
    /// The DAG's tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

fn unmapped() -> i64 {
    -1
}

fn first_try() -> u32 {
    1
}

impl RunClaims {
    /// The first try of an unmapped task in a scheduled run.
    pub fn scheduled(dag_id: &str, run_id: &str, task_id: &str) -> Self {
        Self {
            dag_id: dag_id.to_owned(),
            run_id: run_id.to_owned(),
            task_id: task_id.to_owned(),
            map_index: unmapped(),
            try_number: first_try(),
            run_type: Some("scheduled".to_owned()),
            triggered_by: Some("timetable".to_owned()),
            triggering_user_name: None,
            team_name: None,
            bundle_name: None,
            tags: BTreeSet::new(),
        }
    }
}

/// What `POST /token` is asked for, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    run: Option<RunClaims>,
    person: Option<PersonClaims>,
    service: Option<ServiceClaims>,
    /// The lifetime in seconds; may be negative, for a token that is expired.
    ttl_s: Option<i64>,
    audience: Option<String>,
    /// Claims that replace or add to the others, to make near misses.
    #[serde(default)]
    claims: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonClaims {
    sub: String,
    #[serde(default)]
    groups: Vec<String>,
    email: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceClaims {
    sub: String,
}

/// The issuer behind its listener.
pub(crate) struct DevIssuer {
    url: String,
    config: IssuerConfig,
    world: World,
    /// The first one signs.
    keys: RwLock<Vec<Arc<SigningKey>>>,
    sign_ins: SignIns,
}

impl DevIssuer {
    pub(crate) fn new(url: String, config: IssuerConfig, world: World) -> Result<Self, KeyError> {
        let keys = RwLock::new(vec![Arc::new(SigningKey::generate(SigningAlgorithm::RS256)?)]);
        Ok(Self { url, config, world, keys, sign_ins: SignIns::default() })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn people_url(&self) -> String {
        format!("{}/people", self.url)
    }

    pub(crate) fn services_url(&self) -> String {
        format!("{}/services", self.url)
    }

    pub(crate) fn service_token(&self, sub: &str) -> Result<String, KeyError> {
        self.sign(&self.service_claims(sub))
    }

    pub(crate) fn run_token(&self, run: &RunClaims) -> Result<String, KeyError> {
        self.sign(&self.run_claims(run))
    }

    pub(crate) fn person_token(&self, sub: &str, groups: &[impl AsRef<str>]) -> Result<String, KeyError> {
        self.sign(&self.person_claims(sub, groups, None))
    }

    /// Signs `claims` as they are, for tokens that are wrong on purpose.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let key = self.signing_key().ok_or(KeyError::Crypto)?;
        key.sign("JWT", claims).map(|token| token.as_str().to_owned())
    }

    /// Signs with a new key from now on; `keep`: the earlier ones stay published.
    pub(crate) fn rotate(&self, keep: bool) -> Result<(), KeyError> {
        let key = Arc::new(SigningKey::generate(SigningAlgorithm::RS256)?);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if !keep {
            keys.clear();
        }
        keys.insert(0, key);
        Ok(())
    }

    fn signing_key(&self) -> Option<Arc<SigningKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    /// The claims of a run's token, before it is signed.
    pub(crate) fn run_claims(&self, run: &RunClaims) -> Value {
        let mut claims = self.registered(self.url.clone());
        claims.insert("sub".to_owned(), format!("airflow:dag:{}:task:{}", run.dag_id, run.task_id).into());
        claims.insert("airflow".to_owned(), json!(run));
        Value::Object(claims)
    }

    fn person_claims(&self, sub: &str, groups: &[impl AsRef<str>], email: Option<&str>) -> Value {
        let mut claims = self.registered(self.people_url());
        claims.insert("sub".to_owned(), sub.into());
        claims.insert("groups".to_owned(), groups.iter().map(AsRef::as_ref).collect::<Vec<_>>().into());
        if let Some(email) = email {
            claims.insert("email".to_owned(), email.into());
        }
        Value::Object(claims)
    }

    fn service_claims(&self, sub: &str) -> Value {
        let mut claims = self.registered(self.services_url());
        claims.insert("sub".to_owned(), sub.into());
        Value::Object(claims)
    }

    fn registered(&self, iss: String) -> Map<String, Value> {
        let now = self.world.now().as_second();
        let jti = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), iss.into());
        claims.insert("aud".to_owned(), self.config.audience.clone().into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("nbf".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(self.config.ttl_s).into());
        claims.insert("jti".to_owned(), jti.to_string().into());
        claims
    }

    fn discovery(&self, iss: &str) -> Response {
        Json(json!({
            "issuer": iss,
            "jwks_uri": format!("{}/jwks", self.url),
            "authorization_endpoint": format!("{iss}/authorize"),
            "token_endpoint": if iss == self.url { format!("{iss}/token") } else { format!("{iss}/code") },
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email", "groups"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "authorization_response_iss_parameter_supported": true,
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "service_documentation": "https://cortex.invalid/for-development-only",
        }))
        .into_response()
    }

    fn jwks(&self) -> Response {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<_> = keys.iter().map(|key| key.public_jwk()).collect();
        Json(json!({ "keys": keys })).into_response()
    }

    /// Gives an ID token for a code, as a sign-in ends.
    fn redeem(&self, call: &Call) -> Response {
        let now = self.world.now().as_second();
        let signed_in = match self.sign_ins.redeem(call, now) {
            Ok(signed_in) => signed_in,
            Err(refused) => return *refused,
        };
        let email = format!("{}@acme.example", signed_in.person);
        let mut claims = self.person_claims(signed_in.person, signed_in.groups, Some(&email));
        if let Some(claims) = claims.as_object_mut() {
            claims.insert("aud".to_owned(), signed_in.client_id.into());
            claims.insert("auth_time".to_owned(), now.into());
            claims.insert("amr".to_owned(), json!(["pwd", "mfa"]));
            claims.extend(signed_in.nonce.map(|nonce| ("nonce".to_owned(), nonce.into())));
        }
        match self.sign(&claims) {
            Ok(token) => Json(people::answer(&token, self.config.ttl_s)).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }

    fn token(&self, call: &Call) -> Response {
        let request: TokenRequest = match serde_json::from_slice(&call.body) {
            Ok(request) => request,
            Err(error) => return refused(&error.to_string()),
        };
        let mut claims = match (&request.run, &request.person, &request.service) {
            (Some(run), None, None) => self.run_claims(run),
            (None, Some(person), None) => {
                self.person_claims(&person.sub, &person.groups, person.email.as_deref())
            }
            (None, None, Some(service)) => self.service_claims(&service.sub),
            _ => return refused("say one of run, person and service"),
        };
        if let Some(claims) = claims.as_object_mut() {
            if let Some(ttl_s) = request.ttl_s {
                let exp = self.world.now().as_second().saturating_add(ttl_s);
                claims.insert("exp".to_owned(), exp.into());
            }
            if let Some(audience) = request.audience {
                claims.insert("aud".to_owned(), audience.into());
            }
            claims.extend(request.claims);
        }
        let ttl_s = request.ttl_s.unwrap_or(self.config.ttl_s);
        match self.sign(&claims) {
            Ok(token) => Json(json!({"token": token, "expires_in": ttl_s})).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

fn refused(why: &str) -> Response {
    let body = json!({"error": "invalid_request", "error_description": why});
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

impl Service for DevIssuer {
    const CLOUD: Cloud = Cloud::Issuer;

    fn operation(&self, call: &Call) -> Operation {
        let name = call.path.rsplit('/').next().unwrap_or_default().to_owned();
        Operation { name, mints: false }
    }

    async fn answer(&self, call: &Call, _twist: Option<Twist>) -> Answer {
        let response = match (&call.method, call.path.as_str()) {
            (&Method::GET, "/.well-known/openid-configuration") => self.discovery(&self.url),
            (&Method::GET, "/people/.well-known/openid-configuration") => self.discovery(&self.people_url()),
            (&Method::GET, "/services/.well-known/openid-configuration") => {
                self.discovery(&self.services_url())
            }
            (&Method::GET, "/jwks") => self.jwks(),
            (&Method::GET, "/people/authorize") => {
                self.sign_ins.authorize(call, &self.people_url(), self.world.now().as_second())
            }
            (&Method::POST, "/people/code") => self.redeem(call),
            (&Method::POST, "/token") => self.token(call),
            _ => StatusCode::NOT_FOUND.into_response(),
        };
        response.into()
    }

    fn throttled(&self, _call: &Call) -> Response {
        StatusCode::TOO_MANY_REQUESTS.into_response()
    }
}
