//! `POST /v1/credentials`: a policy's credentials in one call, for task hooks.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cortex_core::ids::InvalidId;
use cortex_core::{Body, ClaimedRun};
use cortex_log::receipt::Receipt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::auth::bearer;
use super::error::OAuthError;
use super::{App, Client, body};
use crate::exchange::{self, Bundle, Item, Request};
use crate::leases::{HANDLE_PREFIX, LiveLease};
use crate::recall;

/// The longest reason, in bytes.
pub(super) const REASON_MAX: usize = 500;
/// The longest name of a ticket, in bytes.
pub(super) const TICKET_MAX: usize = 200;

/// The try of a task that a service acts for. The service's Airflow is asked whether it is running.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunClaim {
    /// The DAG.
    #[schema(min_length = 1, max_length = 250)]
    dag_id: String,
    /// The DAG run.
    #[schema(min_length = 1, max_length = 250)]
    run_id: String,
    /// The task, with its task groups.
    #[schema(min_length = 1, max_length = 250)]
    task_id: String,
    /// The index of a mapped task instance; -1 or nothing for an unmapped one.
    #[schema(minimum = -1, maximum = 4_294_967_295_i64)]
    map_index: Option<i64>,
    /// Which attempt, from 1.
    #[schema(value_type = u32, minimum = 1)]
    try_number: NonZeroU32,
}

impl RunClaim {
    fn parse(&self) -> Result<ClaimedRun, OAuthError> {
        let bad = |name: &str, why: &str| OAuthError::new("invalid_request", format!("run.{name}: {why}"));
        let ident = |name: &str, text: &str| text.parse().map_err(|why: InvalidId| bad(name, &why.0));
        let map_index = match self.map_index {
            None | Some(-1) => None,
            Some(index) => Some(u32::try_from(index).map_err(|_| bad("map_index", "it is out of range"))?),
        };
        Ok(ClaimedRun {
            dag_id: ident("dag_id", &self.dag_id)?,
            run_id: ident("run_id", &self.run_id)?,
            task_id: ident("task_id", &self.task_id)?,
            map_index,
            try_number: self.try_number,
        })
    }
}

/// What a run asks for.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// The policy.
    #[schema(max_length = 64, example = "finance-data-publish")]
    policy: String,
    /// Some of its providers; all of them where this is missing.
    #[schema(min_items = 1, max_items = 16)]
    targets: Option<Vec<String>>,
    /// Why, for the approver and the record; at most 500 bytes.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// The ticket that it belongs to, for the approver and the record; at most 200 bytes.
    #[schema(max_length = 200)]
    ticket: Option<String>,
    /// To be let in although the policy is closed at this hour, for an hour at most: two different people whom the
    /// policy names for it have to approve. It wants a reason, and everybody is told.
    #[serde(default)]
    break_glass: bool,
    /// A shorter lifetime than the policy's, in seconds.
    #[schema(minimum = 60, maximum = 43200)]
    pub(super) ttl_seconds: Option<i64>,
    /// The run that a service acts for; only with the token of a service, which needs it.
    run: Option<RunClaim>,
}

/// The answer: each provider's credential, or why there is none.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Answer<'a> {
    /// Who asked, as Cortex knows it.
    principal: &'a str,
    /// The policy.
    policy: &'a str,
    /// The policy's version, `sha256:…`.
    policy_digest: String,
    /// By provider.
    credentials: BTreeMap<&'a str, Entry<'a>>,
}

/// One provider's part of the answer.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(super) enum Entry<'a> {
    /// A credential, on record.
    Issued {
        /// The issuance on record.
        issuance_id: String,
        /// When the credential ends.
        #[schema(value_type = String, format = DateTime)]
        expires_at: Timestamp,
        /// What fetches the same credential again while it lives.
        lease_handle: &'a str,
        /// The log's promise that the record of it will be in the log: its name, the leaf's hash, when it was sealed,
        /// by when it is in a checkpoint, and the seal, a signed note. `cortex log prove` makes a proof of it.
        #[schema(value_type = Object)]
        receipt: &'a Receipt,
        /// The credential, with what a client needs beside it.
        credential: Credential<'a>,
    },
    /// None.
    Failed {
        /// Why.
        #[serde(flatten)]
        error: OAuthError,
    },
}

/// The secret, named as its users name it, and what goes with it.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Credential<'a> {
    /// AWS: the access key id.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<&'a str>,
    /// AWS: the secret access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_access_key: Option<&'a str>,
    /// AWS: the session token.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    /// The others: the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    /// What is no secret: `account`, `region`, `role`, `project`, `authenticator` and so on.
    #[serde(flatten)]
    details: &'a BTreeMap<String, Value>,
}

impl<'a> Credential<'a> {
    fn of(lease: &'a LiveLease) -> Self {
        let none = Self {
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            token: None,
            details: &lease.details,
        };
        match &lease.body {
            Body::Token(token) => Self { token: Some(token), ..none },
            Body::AwsKeys { access_key_id, secret_access_key, session_token } => Self {
                access_key_id: Some(access_key_id),
                secret_access_key: Some(secret_access_key),
                session_token: Some(session_token),
                ..none
            },
        }
    }
}

/// Ask for a policy's credentials. The bearer is the run's token, or a lease's handle, or the token of a service that
/// claims a run.
#[utoipa::path(
    post, path = "/v1/credentials", tag = "runs", security(("bearer" = [])),
    request_body = Ask,
    responses(
        (status = 200, description = "The credentials; where one failed, its entry says why.", body = Answer),
        (status = 400, description = "Refused, or waiting for approval; the code says which.", body = OAuthError),
        (status = 401, description = "No token.", body = OAuthError),
        (status = 413, description = "The body is too large."),
        (status = 415, description = "Not JSON.", body = OAuthError),
        (status = 429, description = "Too many asks; Retry-After says when to come back.", body = OAuthError),
        (status = 502, description = "A cloud answered what was not asked.", body = OAuthError),
        (status = 503, description = "Come back later.", body = OAuthError),
    )
)]
pub(super) async fn credentials(
    State(app): State<App>,
    client: Client,
    parts: Parts,
    body: Bytes,
) -> Result<Response, OAuthError> {
    let count = |error: OAuthError| {
        app.broker.noise.count("request", client.source, app.broker.clock.now());
        error
    };
    let missing = || {
        OAuthError::new("invalid_request", "send Authorization: Bearer and the run's token")
            .with_status(StatusCode::UNAUTHORIZED)
    };
    let bearer = Zeroizing::new(bearer(&parts).ok_or_else(missing).map_err(count)?.to_owned());
    let ask = read(&parts.headers, &body).map_err(count)?;
    let claim = ask.run.as_ref().map(RunClaim::parse).transpose().map_err(count)?;
    if bearer.starts_with(HANDLE_PREFIX) {
        if claim.is_some() {
            return Err(count(OAuthError::new("invalid_request", "a handle has its run: leave `run` out")));
        }
        let lease =
            recall::by_handle(&app.broker, &bearer, &ask.policy, client.source, &client.request_id).await?;
        let bundle = Bundle {
            subject: lease.verified.principal().subject(),
            policy: lease.policy.clone(),
            policy_digest: lease.policy_digest,
            items: vec![Item::Issued(lease)],
        };
        return answer(&bundle);
    }
    let bundle = exchange_detached(&app, |gone| Request {
        token: bearer,
        claim,
        policy: ask.policy,
        providers: ask.targets,
        ttl: ask.ttl_seconds.map(SignedDuration::from_secs),
        reason: ask.reason,
        ticket: ask.ticket,
        break_glass: ask.break_glass,
        request_id: client.request_id,
        source: client.source,
        gone,
    })
    .await?;
    answer(&bundle)
}

pub(super) fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Ask, OAuthError> {
    let ask: Ask = body::json(headers, bytes).map_err(|problem| {
        let status = StatusCode::from_u16(problem.status).unwrap_or_default();
        OAuthError::new("invalid_request", problem.detail).with_status(status)
    })?;
    if ask.ttl_seconds.is_some_and(|ttl| !(60..=43_200).contains(&ttl)) {
        return Err(OAuthError::new("invalid_request", "ttl_seconds is 60 to 43,200"));
    }
    for (what, text, most) in [("reason", &ask.reason, REASON_MAX), ("ticket", &ask.ticket, TICKET_MAX)] {
        body::bounded(what, text.as_deref(), most)
            .map_err(|problem| OAuthError::new("invalid_request", problem.detail))?;
    }
    Ok(ask)
}

/// Runs an exchange in a task of its own: what has begun is finished and recorded even when the caller goes
/// away, and the record says that it was not delivered.
pub(super) async fn exchange_detached(
    app: &App,
    request: impl FnOnce(CancellationToken) -> Request,
) -> Result<Bundle, OAuthError> {
    let gone = CancellationToken::new();
    let request = request(gone.clone());
    let _gone_with_this_future = gone.drop_guard();
    let broker = std::sync::Arc::clone(&app.broker);
    let exchange =
        app.mints.spawn(async move { exchange::exchange(&broker, request).await }.in_current_span());
    match exchange.await {
        Ok(result) => result.map_err(OAuthError::from),
        Err(error) => {
            tracing::error!(%error, "an exchange failed; what it left open is ended by the supervisor");
            Err(OAuthError::new("server_error", "Cortex failed; nothing was released")
                .with_status(StatusCode::INTERNAL_SERVER_ERROR))
        }
    }
}

/// The whole bundle; an error only where every part of it is one.
fn answer(bundle: &Bundle) -> Result<Response, OAuthError> {
    let issued = bundle.items.iter().any(|item| matches!(item, Item::Issued(_)));
    if !issued && let Some(Item::Refused { refused, .. }) = bundle.items.first() {
        return Err(refused.clone().into());
    }
    let credentials = bundle.items.iter().map(|item| (item.provider(), entry(item))).collect();
    let answer = Answer {
        principal: &bundle.subject,
        policy: bundle.policy.as_str(),
        policy_digest: bundle.policy_digest.to_string(),
        credentials,
    };
    Ok(Json(answer).into_response())
}

fn entry(item: &Item) -> Entry<'_> {
    match item {
        Item::Issued(lease) => Entry::Issued {
            issuance_id: lease.lease.issuance_id.to_string(),
            expires_at: lease.lease.expires_at,
            lease_handle: &lease.handle,
            receipt: &lease.receipt,
            credential: Credential::of(lease),
        },
        Item::Refused { refused, .. } => Entry::Failed { error: refused.clone().into() },
    }
}
