//! Google on loopback: the token service, IAM credentials, enough of `BigQuery` to prove a binding, a KMS, and the metadata
//! server of a machine.

mod bigquery;
mod config;
mod credentials;
mod deny;
mod error;
mod kms;
mod metadata;
mod query;
mod token;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Method;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

pub use config::{Dataset, GoogleConfig, Member, ServiceAccount, WorkloadPool};

use crate::fault::Twist;
use crate::gate::{Answer, Call, Operation, Service, World};
use crate::jwks::TrustedIssuer;
use crate::ledger::Cloud;
use bigquery::Warehouse;
use deny::Denials;
use error::{ApiError, OauthError};
use kms::CryptoKey;

pub(super) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The most access tokens that are remembered after the expired ones were forgotten.
const MAX_TOKENS: usize = 100_000;

/// What an access token stands for.
#[derive(Debug, Clone)]
struct Access {
    /// The names that bindings may know its holder by.
    members: BTreeSet<Member>,
    /// The holder, for reading: a principal or an email address.
    name: String,
    scopes: BTreeSet<String>,
    expires_at: Timestamp,
}

impl Access {
    fn is_one_of(&self, members: &[Member]) -> bool {
        members.iter().any(|member| self.members.contains(member))
    }
}

pub(crate) struct Google {
    pools: Vec<WorkloadPool>,
    /// Who may act as each service account, by its email address.
    service_accounts: BTreeMap<String, Vec<Member>>,
    warehouse: Mutex<Warehouse>,
    /// Who may write deny policies.
    deny_admins: Vec<Member>,
    denials: Mutex<Denials>,
    tokens: Mutex<HashMap<String, Access>>,
    keys: BTreeMap<String, CryptoKey>,
    /// Whom the metadata server gives tokens of.
    machine: Option<String>,
    issuer: Arc<TrustedIssuer>,
    world: World,
}

impl Google {
    pub(crate) fn new(config: GoogleConfig, issuer: Arc<TrustedIssuer>, world: World) -> Self {
        let accounts = config.service_accounts.into_iter().map(|account| (account.email, account.users));
        Self {
            pools: config.pools,
            service_accounts: accounts.collect(),
            warehouse: Mutex::new(Warehouse::new(config.job_users, config.datasets)),
            deny_admins: config.deny_admins,
            denials: Mutex::default(),
            tokens: Mutex::default(),
            keys: config.crypto_keys.into_iter().map(|(name, users)| (name, CryptoKey::new(users))).collect(),
            machine: config.machine,
            issuer,
            world,
        }
    }

    fn denials(&self) -> MutexGuard<'_, Denials> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an access token, and makes it up.
    fn issue(&self, access: Access) -> Option<String> {
        let token = format!("ya29.sandbox.{}", hex::encode(rand::random::<[u8; 32]>()));
        let now = self.world.now();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, access| access.expires_at > now);
        }
        if tokens.len() >= MAX_TOKENS {
            return None;
        }
        tokens.insert(token.clone(), access);
        Some(token)
    }

    /// Who calls, by the bearer token.
    fn holder(&self, call: &Call) -> Result<Access, ApiError> {
        let token = call.bearer().ok_or_else(ApiError::unauthenticated)?;
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let access = tokens.get(token).filter(|access| access.expires_at > self.world.now());
        access.cloned().ok_or_else(ApiError::unauthenticated)
    }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Token,
    GenerateAccessToken(String),
    /// The path after `/v2/`.
    Iam(String),
    /// A key's name, and what is done with it.
    Kms(String, kms::Action),
    Metadata,
    /// The segments after `/bigquery/v2/projects/`.
    BigQuery(Vec<String>),
    Unknown,
}

fn route(path: &str) -> Route {
    if path == "/v1/token" {
        return Route::Token;
    }
    if path == metadata::PATH {
        return Route::Metadata;
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    if let Some(account) = decoded.strip_prefix("/v1/projects/-/serviceAccounts/") {
        return account
            .strip_suffix(":generateAccessToken")
            .map_or(Route::Unknown, |email| Route::GenerateAccessToken(email.to_owned()));
    }
    if let Some((key, action)) = kms::route(&decoded) {
        return Route::Kms(key, action);
    }
    if let Some(rest) = decoded.strip_prefix("/v2/") {
        return Route::Iam(rest.to_owned());
    }
    decoded
        .strip_prefix("/bigquery/v2/projects/")
        .map_or(Route::Unknown, |rest| Route::BigQuery(rest.split('/').map(ToOwned::to_owned).collect()))
}

impl Service for Google {
    const CLOUD: Cloud = Cloud::Google;

    fn operation(&self, call: &Call) -> Operation {
        let (name, mints) = match route(&call.path) {
            Route::Token => ("token", true),
            Route::GenerateAccessToken(_) => ("generateAccessToken", true),
            Route::Iam(_) => ("denypolicies", call.method != Method::GET),
            // What it gives back is a key.
            Route::Kms(_, action) => (action.as_str(), true),
            Route::Metadata => ("metadata", false),
            Route::BigQuery(_) => ("bigquery", false),
            Route::Unknown => ("other", false),
        };
        Operation { name: name.to_owned(), mints }
    }

    async fn answer(&self, call: &Call, twist: Option<Twist>) -> Answer {
        match route(&call.path) {
            Route::Token => self.token(call, twist).await.unwrap_or_else(|e| e.into_response().into()),
            Route::GenerateAccessToken(email) => {
                self.generate_access_token(call, &email, twist).unwrap_or_else(|e| e.into_response().into())
            }
            Route::Iam(rest) => {
                self.deny_policies(call, &rest).unwrap_or_else(IntoResponse::into_response).into()
            }
            Route::Kms(key, action) => {
                self.kms(call, &key, action, twist).unwrap_or_else(IntoResponse::into_response).into()
            }
            Route::Metadata => self.metadata_token(call).into(),
            Route::BigQuery(segments) => {
                let segments: Vec<_> = segments.iter().map(String::as_str).collect();
                self.bigquery(call, &segments).unwrap_or_else(IntoResponse::into_response).into()
            }
            Route::Unknown => ApiError::missing(&call.path).into_response().into(),
        }
    }

    fn throttled(&self, call: &Call) -> Response {
        if route(&call.path) == Route::Token {
            let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
            return (status, OauthError::new("rate_limit_exceeded", "Quota exceeded.")).into_response();
        }
        ApiError::exhausted().into_response()
    }
}
