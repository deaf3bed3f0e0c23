//! The way in to every cloud: one call read whole, the armed fault, the cloud's own answer, the ledger.
//!
//! It also serves `/_sandbox/mints` and `/_sandbox/fault` on each listener, for tests in other processes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use cortex_core::Clock;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::fault::{Fault, FaultMode, Faults, Twist};
use crate::ledger::{Cloud, Ledger, Mint, MintId};
use crate::quota::Quotas;

/// The largest request body, in bytes: room for a small object in S3.
const MAX_BODY: usize = 16 << 20;

/// The size of an answer that is too large, in bytes.
const HUGE: usize = 2 << 20;

/// How long a hanging answer hangs before the connection is closed.
const HANG: Duration = Duration::from_mins(10);

/// The longest delay that a fault can ask for, in milliseconds.
const MAX_DELAY_MS: u64 = 600_000;

/// What all clouds share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) quotas: Arc<Quotas>,
}

impl World {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Notes a mint that ends at `expires_at`.
    pub(crate) fn note(&self, minted: Noted<'_>) -> MintId {
        self.ledger.note(Mint {
            cloud: minted.cloud,
            operation: minted.operation.to_owned(),
            at: self.now(),
            subject: minted.subject,
            lease: minted.lease,
            expires_at: minted.expires_at,
            took_us: 0,
            delivered: false,
        })
    }
}

/// A mint as its cloud tells it.
pub(crate) struct Noted<'a> {
    pub(crate) cloud: Cloud,
    pub(crate) operation: &'a str,
    pub(crate) subject: String,
    pub(crate) lease: Option<String>,
    pub(crate) expires_at: Timestamp,
}

/// One HTTP call, read whole.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// The path as it was sent, percent-encoding and all.
    pub(crate) path: String,
    /// The query as it was sent, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    async fn read(request: Request) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, MAX_BODY)
            .await
            .map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "the body cannot be read").into_response())?;
        Ok(Self {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
        })
    }

    /// A header as text, if it is there and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A parameter of the query, decoded.
    pub(crate) fn param(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The token of `Authorization: Bearer …`.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// What a call asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Its name, by which faults find it.
    pub(crate) name: String,
    /// Whether it makes a credential, or changes who may use one or what is stored.
    pub(crate) mints: bool,
}

/// A cloud's answer.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// What it minted on the way.
    pub(crate) mint: Option<MintId>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, mint: None }
    }
}

/// One cloud behind the gate.
pub(crate) trait Service: Send + Sync + 'static {
    const CLOUD: Cloud;

    /// What `call` asks for.
    fn operation(&self, call: &Call) -> Operation;

    /// The cloud's answer, with the fault that it has to act itself.
    fn answer(&self, call: &Call, twist: Option<Twist>) -> impl Future<Output = Answer> + Send;

    /// How the cloud says "too many requests".
    fn throttled(&self, call: &Call) -> Response;
}

/// On a response: close the connection instead of sending this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sever;

/// On a response: this mint leaves with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carries(pub(crate) MintId);

/// The routes of one listener.
pub(crate) fn router<S: Service>(service: Arc<S>, world: World) -> Router {
    let control = Router::new()
        .route("/_sandbox/mints", get(mints))
        .route("/_sandbox/fault", post(arm::<S>).delete(disarm::<S>))
        .with_state(world.clone());
    let cloud = Router::new().fallback(pass::<S>).with_state((service, world));
    control.merge(cloud)
}

async fn mints(State(world): State<World>) -> Json<Vec<Mint>> {
    Json(world.ledger.all())
}

async fn arm<S: Service>(State(world): State<World>, Json(fault): Json<Fault>) -> StatusCode {
    world.faults.arm(S::CLOUD, fault);
    StatusCode::NO_CONTENT
}

async fn disarm<S: Service>(State(world): State<World>) -> StatusCode {
    world.faults.clear(Some(S::CLOUD));
    StatusCode::NO_CONTENT
}

async fn pass<S: Service>(State((service, world)): State<(Arc<S>, World)>, request: Request) -> Response {
    let begun = Instant::now();
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    let operation = service.operation(&call);
    if operation.mints && !world.quotas.spend(S::CLOUD) {
        return service.throttled(&call);
    }
    let fault = world.faults.take(S::CLOUD, &operation.name, operation.mints);
    match fault {
        Some(FaultMode::Delay(ms)) => tokio::time::sleep(Duration::from_millis(ms.min(MAX_DELAY_MS))).await,
        Some(FaultMode::Throttle) => return service.throttled(&call),
        Some(FaultMode::Down) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(FaultMode::Reset) => return severed(),
        Some(FaultMode::Huge) => return vec![b' '; HUGE].into_response(),
        Some(FaultMode::Redirect) => return Redirect::temporary("/_sandbox/mints").into_response(),
        _ => {}
    }
    let answer = service.answer(&call, fault.and_then(FaultMode::twist)).await;
    if let Some(mint) = answer.mint {
        world.ledger.answered(mint, begun.elapsed());
    }
    tracing::debug!(cloud = ?S::CLOUD, operation = operation.name, status = %answer.response.status());
    let done = operation.mints && answer.response.status().is_success();
    deliver(answer, fault.filter(|fault| done || !fault.is_after())).await
}

async fn deliver(answer: Answer, fault: Option<FaultMode>) -> Response {
    match (fault, answer.mint) {
        (Some(FaultMode::FailAfterMint), _) => severed(),
        (Some(FaultMode::HangAfterMint), _) => {
            tokio::time::sleep(HANG).await;
            severed()
        }
        (Some(FaultMode::Garbage), _) => "\u{1}not what you asked for\u{2}".into_response(),
        // What was left out of the answer was not delivered.
        (Some(FaultMode::MissingToken), _) | (_, None) => answer.response,
        (_, Some(mint)) => {
            let mut response = answer.response;
            response.extensions_mut().insert(Carries(mint));
            response
        }
    }
}

fn severed() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Sever);
    response
}
