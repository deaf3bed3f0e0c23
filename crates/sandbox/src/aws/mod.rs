//! An AWS account on loopback: STS, the little of IAM that revokes, the little of S3 that proves a scope, and a KMS.
//!
//! `POST /` is the query API of STS and IAM, and with `X-Amz-Target` that of KMS; every other path is S3, path style.

mod assume;
mod caller;
mod config;
mod document;
mod error;
mod evaluate;
mod iam;
mod kms;
mod s3;
mod s3_body;
mod sigv4;
mod sts;
mod web_identity;
mod xml;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Method;
use axum::response::Response;

pub use config::{AwsConfig, Role, User};

use crate::fault::Twist;
use crate::gate::{Answer, Call, Operation, Service, World};
use crate::jwks::TrustedIssuer;
use crate::ledger::Cloud;
use crate::vault::Vault;
use caller::Session;
use document::{Document, Malformed};
use error::AwsError;
use s3::Buckets;

const STS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const IAM: &str = "https://iam.amazonaws.com/doc/2010-05-08/";

/// A role with its policies parsed.
#[derive(Debug)]
struct LiveRole {
    /// The id that its sessions' user ids begin with: `AROA…`.
    id: String,
    trust: Document,
    max_session_s: u32,
    /// Inline policies by name, as they were written and as they read.
    policies: BTreeMap<String, (String, Document)>,
}

#[derive(Debug)]
pub(crate) struct LiveUser {
    name: String,
    secret_access_key: String,
    policies: Vec<Document>,
}

/// What changes while the sandbox runs.
#[derive(Debug)]
struct State {
    roles: BTreeMap<String, LiveRole>,
    /// Sessions by access key id.
    sessions: HashMap<String, Arc<Session>>,
    buckets: Buckets,
}

pub(crate) struct Aws {
    account: String,
    audiences: Vec<String>,
    /// The issuer's URL without its scheme: how AWS names an OIDC provider.
    provider: String,
    issuer: Arc<TrustedIssuer>,
    world: World,
    /// Users by access key id.
    users: HashMap<String, LiveUser>,
    state: Mutex<State>,
    /// Keys of the KMS by ARN.
    keys: BTreeMap<String, Vault>,
}

impl Aws {
    pub(crate) fn new(
        config: AwsConfig,
        issuer: Arc<TrustedIssuer>,
        world: World,
    ) -> Result<Self, Malformed> {
        let provider = issuer.url().split_once("://").map_or(issuer.url(), |(_, rest)| rest).to_owned();
        let mut roles = BTreeMap::new();
        for role in config.roles {
            let name = role.name.clone();
            roles.insert(name, live_role(role, &config.account, &provider)?);
        }
        let mut users = HashMap::new();
        for user in config.users {
            let policies: Vec<_> = user
                .policies
                .iter()
                .map(|p| Document::permissions(&p.to_string()))
                .collect::<Result<_, _>>()?;
            let live = LiveUser { name: user.name, secret_access_key: user.secret_access_key, policies };
            users.insert(user.access_key_id, live);
        }
        let buckets = Buckets::new(config.buckets);
        let arn = |key: &(String, String)| format!("arn:aws:kms:{}:{}:key/{}", key.0, config.account, key.1);
        let keys = config.kms_keys.iter().map(|key| (arn(key), Vault::default())).collect();
        Ok(Self {
            account: config.account,
            audiences: config.audiences,
            provider,
            issuer,
            world,
            users,
            state: Mutex::new(State { roles, sessions: HashMap::new(), buckets }),
            keys,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn query_api(&self, call: &Call, twist: Option<Twist>) -> Answer {
        let request_id = request_id();
        let params = Params::read(&call.body);
        let action = params.get("Action").unwrap_or_default();
        let (namespace, answer) = match params.get("Version") {
            Some("2010-05-08") => (IAM, self.iam(action, &params, call, &request_id).map(Answer::from)),
            _ => (STS, self.sts(action, &params, call, twist, &request_id).await),
        };
        answer.unwrap_or_else(|error| error.query_response(&request_id, namespace).into())
    }
}

fn live_role(role: Role, account: &str, provider: &str) -> Result<LiveRole, Malformed> {
    let mut statements = Vec::new();
    for trust in &role.trust {
        statements.extend(Document::trust(&trust.document(account, provider).to_string())?.statements);
    }
    let mut policies = BTreeMap::new();
    for (name, document) in role.policies {
        let text = document.to_string();
        let read = Document::permissions(&text)?;
        policies.insert(name, (text, read));
    }
    Ok(LiveRole {
        id: format!("AROASANDBOX{}", random_id(9)),
        trust: Document { statements },
        max_session_s: role.max_session_s,
        policies,
    })
}

impl Service for Aws {
    const CLOUD: Cloud = Cloud::Aws;

    fn operation(&self, call: &Call) -> Operation {
        if let Some(name) = kms::target(call) {
            // What it gives back is a key.
            return Operation { name: name.to_owned(), mints: true };
        }
        if call.path == "/" && call.method == Method::POST {
            let name = Params::read(&call.body).get("Action").unwrap_or_default().to_owned();
            let mints =
                name.starts_with("AssumeRole") || matches!(&*name, "PutRolePolicy" | "DeleteRolePolicy");
            return Operation { name, mints };
        }
        let name = s3::operation_name(call);
        Operation { name: name.to_owned(), mints: s3::changes(name) }
    }

    async fn answer(&self, call: &Call, twist: Option<Twist>) -> Answer {
        if let Some(action) = kms::target(call) {
            return self.kms(action, call, twist).into();
        }
        if call.path == "/" && call.method == Method::POST {
            return self.query_api(call, twist).await;
        }
        let request_id = request_id();
        self.s3(call, &request_id).unwrap_or_else(|error| error.s3_response(&request_id, &call.path)).into()
    }

    fn throttled(&self, call: &Call) -> Response {
        let request_id = request_id();
        if kms::target(call).is_some() {
            return AwsError::bad("ThrottlingException", "Rate exceeded").json_response(&request_id);
        }
        if call.path == "/" {
            return AwsError::bad("Throttling", "Rate exceeded").query_response(&request_id, STS);
        }
        AwsError::slow_down().s3_response(&request_id, &call.path)
    }
}

/// The parameters of a query API.
struct Params(Vec<(String, String)>);

impl Params {
    fn read(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &'static str) -> Result<&str, AwsError> {
        self.get(name).ok_or_else(|| AwsError::validation(format!("1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null")))
    }

    /// The members of a list: `name.member.1`, `name.member.2` and so on, each with `suffix`.
    fn members<'a>(&'a self, name: &'a str, suffix: &'a str) -> impl Iterator<Item = &'a str> {
        (1..).map_while(move |n| self.get(&format!("{name}.member.{n}{suffix}")))
    }
}

fn request_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// Random letters and digits, as AWS's ids have them.
fn random_id(length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random: [u8; 32] = rand::random();
    random.iter().take(length).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}
