//! `POST /v1/credentials`, and its answer in types.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Subject;
use crate::api::{Answer, Api, ServerUrl};
use crate::error::{Error, Exit};

/// What is asked for, each time anew.
pub(crate) struct Ask {
    /// The server.
    pub(crate) server: ServerUrl,
    /// The policy.
    pub(crate) policy: String,
    /// Some of its targets; all of them where there is none.
    pub(crate) targets: Vec<String>,
    /// A shorter life than the policy's, in seconds.
    pub(crate) ttl_seconds: Option<i64>,
    /// Why.
    pub(crate) reason: Option<String>,
    /// The ticket that it belongs to.
    pub(crate) ticket: Option<String>,
    /// To be let in although the policy is closed at this hour.
    pub(crate) break_glass: bool,
}

/// One credential: the fields that its users need, some of them secret.
#[derive(Clone, Deserialize)]
pub(crate) struct Credential {
    /// When it ends.
    pub(crate) expires_at: Timestamp,
    credential: Map<String, Value>,
}

impl Credential {
    /// One of its fields.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.credential.get(name).and_then(Value::as_str)
    }

    /// The token of a credential that is one.
    pub(crate) fn token(&self) -> Result<Zeroizing<String>, Error> {
        let missing = || Error::Said("the server's answer has no token in it".to_owned());
        self.field("token").map(|token| Zeroizing::new(token.to_owned())).ok_or_else(missing)
    }
}

/// The keys of an AWS session, in the words of AWS's own clients; the session token's name depends on who asks.
pub(crate) fn aws_keys(credential: &Credential, token_name: &str) -> Value {
    let expiration = credential.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "AccessKeyId": credential.field("access_key_id"),
        "SecretAccessKey": credential.field("secret_access_key"),
        token_name: credential.field("session_token"),
        "Expiration": expiration,
        "AccountId": credential.field("account"),
    })
}

/// One target's part of the answer.
pub(crate) enum Entry {
    /// A credential.
    Issued(Credential),
    /// None.
    Refused(Refusal),
}

/// The grant that people have to give first.
pub(crate) struct Pending {
    /// The grant.
    pub(crate) grant_id: String,
    /// What its status can be asked with.
    pub(crate) handle: Zeroizing<String>,
}

/// Why there is no credential.
pub(crate) enum Refusal {
    /// People have to approve.
    Pending(Pending),
    /// No, and asking again changes nothing.
    Denied(String),
    /// The run's token is not accepted: spent, ended, or not what it should be.
    Token(String),
    /// Not now.
    Unavailable(String),
}

impl Refusal {
    /// The sentence for whoever waits.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Pending(pending) => format!("grant {} waits for approval", pending.grant_id),
            Self::Denied(said) | Self::Token(said) | Self::Unavailable(said) => said.clone(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal {
            Refusal::Pending(_) => Exit::Waiting,
            Refusal::Denied(_) | Refusal::Token(_) => Exit::Denied,
            Refusal::Unavailable(_) => Exit::Unavailable,
        };
        Self::Of(exit, refusal.sentence())
    }
}

/// An OAuth error, whole or in one entry.
#[derive(Deserialize)]
struct OAuthError {
    error: String,
    #[serde(default)]
    error_description: String,
    decision_id: Option<String>,
    grant_id: Option<String>,
    grant_handle: Option<String>,
}

impl From<OAuthError> for Refusal {
    fn from(said: OAuthError) -> Self {
        let sentence = match &said.decision_id {
            Some(id) => format!("{} (decision {id})", said.error_description),
            None => said.error_description,
        };
        match (said.error.as_str(), said.grant_id, said.grant_handle) {
            ("authorization_pending", Some(grant_id), Some(handle)) => {
                Self::Pending(Pending { grant_id, handle: Zeroizing::new(handle) })
            }
            ("temporarily_unavailable" | "server_error" | "slow_down", ..) => Self::Unavailable(sentence),
            ("invalid_request", ..) => Self::Token(sentence),
            _ => Self::Denied(sentence),
        }
    }
}

/// By target.
pub(crate) type Bundle = BTreeMap<String, Entry>;

impl Ask {
    /// Asks with a fresh token of the run.
    pub(crate) async fn send(&self, subject: &mut Subject) -> Result<Result<Bundle, Refusal>, Error> {
        let token = subject.token().await?;
        let api = Api::bearing(self.server.clone(), token.clone())?;
        let mut body = json!({"policy": self.policy});
        if let Value::Object(fields) = &mut body {
            let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
            if !self.targets.is_empty() {
                set("targets", json!(self.targets));
            }
            if let Some(ttl) = self.ttl_seconds {
                set("ttl_seconds", json!(ttl));
            }
            for (name, words) in [("reason", &self.reason), ("ticket", &self.ticket)] {
                if let Some(words) = words {
                    set(name, json!(words));
                }
            }
            if self.break_glass {
                set("break_glass", json!(true));
            }
        }
        let answer = api.send(api.request(Method::POST, "/v1/credentials").json(&body)).await?;
        let read = read(answer)?;
        if let Err(Refusal::Token(_)) = read {
            subject.refuse(&token);
        }
        Ok(read)
    }
}

fn read(answer: Answer) -> Result<Result<Bundle, Refusal>, Error> {
    if !answer.status.is_success() {
        return match serde_json::from_value::<OAuthError>(answer.body.clone()) {
            Ok(said) => Ok(Err(said.into())),
            Err(_) => answer
                .accepted()
                .map(|_| Err(Refusal::Unavailable("the server's answer cannot be read".to_owned()))),
        };
    }
    let Value::Object(mut body) = answer.body else { return Err(unreadable()) };
    let Some(Value::Object(credentials)) = body.remove("credentials") else { return Err(unreadable()) };
    credentials
        .into_iter()
        .map(|(target, entry)| Ok((target, read_entry(entry)?)))
        .collect::<Result<Bundle, Error>>()
        .map(Ok)
}

fn read_entry(entry: Value) -> Result<Entry, Error> {
    if entry.get("status").and_then(Value::as_str) == Some("issued") {
        return serde_json::from_value(entry).map(Entry::Issued).map_err(|_| unreadable());
    }
    let said: OAuthError = serde_json::from_value(entry).map_err(|_| unreadable())?;
    Ok(Entry::Refused(said.into()))
}

/// The answer itself is not quoted: it may hold a secret.
fn unreadable() -> Error {
    Error::Said("the server's answer cannot be read; is it a Cortex of another version?".to_owned())
}
